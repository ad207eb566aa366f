"""Instances of an image: the boxes that they are cut out by, and what a mirror makes of them.

Letters: N instances, A named points.
"""

from collections.abc import Sequence
from itertools import compress
from pathlib import Path

import numpy as np

from data_loader.readers.annotation_files import replace_backslashes
from data_loader.readers.coco_keypoints import read_coco_boxes
from data_loader.readers.keypoint_files import locate, one_name_each
from data_loader.readers.keypoint_table import KeypointTable, shown_list
from utils.errors import InputError

BOXES = ("annotated", "points", "image")


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
    if kind == "image":
        return np.full((len(points), 4), np.nan)
    low, high = extent_of(points, visible)
    longest = (high - low).max(axis=1, keepdims=True)  # (N, 1)
    # Points on a line show nothing of what lies beside it; a single point has no size at all.
    added = np.maximum(longest / 2 - (high - low), 0) / 2
    return np.where(longest > 0, np.hstack([low - added, high + added]), np.nan)


def extent_of(points: np.ndarray, visible: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the least and the largest x and y, (N, 2) each, of points (N, A, 2).

    ``visible`` (N, A) says which count, of each instance one at least.
    """
    least, largest = (np.where(visible[..., None], points, limit) for limit in (np.inf, -np.inf))
    return least.min(axis=1), largest.max(axis=1)


def with_boxes(table: KeypointTable, path: Path, folder: Path) -> KeypointTable:
    """Return annotated instances with the boxes that a COCO file has for their images.

    Of several boxes of an image, an instance gets the one that holds most of its points; of those,
    the one that overlaps best with its own box, or with that around its points.

    Args:
        table: the instances.
        path: the file.
        folder: the data folder.

    Raises:
        InputError: if the file is no such file, or has no box of an image with annotated points.
    """
    names, boxes, _ = read_coco_boxes(path)
    names, notices = replace_backslashes(folder, names), list[str]()
    if not set(names) & set(table.images):  # they may be relative to another folder
        names, notices = locate(path, folder, names)
    names = one_name_each(folder, [*table.images, *names])[len(table.images) :]
    rows_of: dict[str, list[int]] = {}
    for row, name in enumerate(names):
        rows_of.setdefault(name, []).append(row)
    visible = ~np.isnan(table.points).any(axis=-1)  # (N, A)
    needed = dict.fromkeys(compress(table.images, visible.any(axis=1)))
    absent = [name for name in needed if name not in rows_of]
    if absent:
        raise InputError(
            f"{path}: has no box of {len(absent):,} of the {len(needed):,} annotated images: "
            f"{shown_list(absent)}"
        )
    found = np.full_like(table.boxes, np.nan)
    for row, name in enumerate(table.images):
        if name in rows_of:
            points = table.points[row][visible[row]]
            found[row] = best_box(boxes[rows_of[name]], points, table.boxes[row])
    return table._replace(boxes=found, notices=[*table.notices, *notices])


def best_box(boxes: np.ndarray, points: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Return which of some boxes (K, 4) fits an instance best, (4,); see `with_boxes`.

    Args:
        boxes: left, top, right and bottom each.
        points: (P, 2), those that are annotated.
        own: its annotated box (4,), NaN if there is none.
    """
    if len(boxes) == 1 or not len(points):
        return boxes[0]
    within = (points >= boxes[:, None, :2]) & (points <= boxes[:, None, 2:])  # (K, P, 2)
    held = within.all(axis=-1).sum(axis=1)  # (K,)
    if np.isnan(own).any():
        own = np.concatenate([points.min(axis=0), points.max(axis=0)])
    shared = np.minimum(boxes[:, 2:], own[2:]) - np.maximum(boxes[:, :2], own[:2])
    common = np.maximum(shared, 0).prod(axis=1)
    union = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) + (own[2:] - own[:2]).prod() - common
    return boxes[np.lexsort((common / union, held))[-1]]


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
            raise InputError(
                f"--flip_pairs {pair[0]}:{pair[1]}: each point may be named once, with another as "
                "its partner"
            )
        taken |= set(pair)
        left, right = names.index(pair[0]), names.index(pair[1])
        order[left], order[right] = right, left
    return order
