"""Instances of an image: the boxes that they are cut out by, and what a mirror makes of them.

Letters: N instances, A named points.
"""

from collections.abc import Sequence

import numpy as np

from data_loader.framing import Box
from utils.errors import InputError

BOXES = ("annotated", "points", "image")


def box_or_none(box: np.ndarray) -> Box | None:
    """Return a box (4,) as plain numbers, None if it is NaN."""
    left, top, right, bottom = box.tolist()
    return None if np.isnan(box).any() else (left, top, right, bottom)


def boxes_of(
    kind: str, points: np.ndarray, visible: np.ndarray, annotated: np.ndarray
) -> np.ndarray:
    """Return the boxes (N, 4) that instances are cut out by, NaN for whole images.

    Args:
        kind: one of `BOXES`.
        points: (N, A, 2), in pixels.
        visible: (N, A), bool.
        annotated: (N, 4), NaN where there is none.
    """
    if kind == "annotated":
        return np.array(annotated, dtype=np.float64)
    boxes = np.full((len(points), 4), np.nan)
    if kind == "image":
        return boxes
    for row, (shown, place) in enumerate(zip(visible, points, strict=True)):
        low, high = place[shown].min(axis=0), place[shown].max(axis=0)
        # Points on a line show nothing of what lies beside it; a single point has no size at all.
        added = np.maximum((high - low).max() / 2 - (high - low), 0) / 2
        if (high - low).max() > 0:
            boxes[row] = *(low - added), *(high + added)
    return boxes


def flip_order(names: Sequence[str], pairs: Sequence[tuple[str, str]]) -> np.ndarray | None:
    """Return which point of a mirrored image each point is (A,), None without pairs.

    Raises:
        InputError: if a pair names an unknown point, or one that another pair has.
    """
    if not pairs:
        return None
    order = np.arange(len(names))
    taken: set[str] = set()
    for pair in pairs:
        for name in pair:
            if name not in names:
                known = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
                raise InputError(f"--flip_pairs: no point is named {name}; there are {known}")
        if pair[0] == pair[1] or taken & set(pair):
            raise InputError(f"--flip_pairs {pair[0]}:{pair[1]}: a point has one partner, another")
        taken |= set(pair)
        left, right = names.index(pair[0]), names.index(pair[1])
        order[left], order[right] = right, left
    return order
