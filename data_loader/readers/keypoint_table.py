"""What the readers of annotation files return: named points of images of any kind.

Letters: N annotated instances, A named points.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data_loader.readers.keypoint_names import shown
from utils.errors import InputError


class KeypointTable(NamedTuple):
    """N annotated instances of A named points.

    Pixels are those of the image as it is shown, a note of its orientation (EXIF) applied; the
    centre of the first one is 0, y runs downwards. The reader of one format doesn't look at the
    images: in its table they have the names and sizes that the file says, and y may run upwards.

    Attributes:
        names: of the A points, each once.
        images: N names, relative to the data folder; an image with several instances is there
            several times.
        points: (N, A, 2) float64, x before y, in pixels; NaN where a point is missing.
        boxes: (N, 4) float64: left, top, right and bottom in pixels; NaN where there is none.
        areas: (N,) float64, in square pixels, of the instance, for OKS; NaN where unknown.
        ids: N names of the instances, each once, none empty.
        flip_pairs: names that a mirror swaps, where the file or the names tell.
        sigmas: (A,) float64, COCO's for OKS, where they apply.
        notices: lines for the log: what was left out.
        sizes: (N, 2) float64, width and height of the images, NaN of those that can't be read.
        turned: (N,), bool, which images a note of their orientation turns.
        y_up: y runs upwards from the images' lower edge: row = height - y.
    """

    names: list[str]
    images: list[str]
    points: np.ndarray
    boxes: np.ndarray
    areas: np.ndarray
    ids: list[str]
    flip_pairs: list[tuple[str, str]]
    sigmas: np.ndarray | None
    notices: list[str]
    sizes: np.ndarray
    turned: np.ndarray
    y_up: bool = False


def table_of_points(
    path: Path,
    names: list[str],
    images: Sequence[str],
    ids: Sequence[str],
    points: np.ndarray,
    lines: Sequence[int],
    boxes: np.ndarray | None = None,
) -> KeypointTable:
    """Return what a format says of N rows that has points and perhaps boxes; repeats are left out.

    Args:
        path: the file, for errors.
        names: of the A points.
        images: of each row.
        ids: of each row's instance.
        points: (N, A, 2).
        lines: of each row, in the file.
        boxes: (N, 4); none if not given.

    Raises:
        InputError: if an instance is there twice with other points.
    """
    places: dict[str, int] = {}
    for place, key in enumerate(ids):
        first = places.setdefault(key, place)
        if not np.array_equal(points[first], points[place], equal_nan=True):
            raise InputError(
                f"{path}, line {lines[place]}: {shown(key)} is there twice with other points, "
                f"first on line {lines[first]}"
            )
    again, kept = len(ids) - len(places), list(places.values())
    nothing = np.full((len(kept), 4), np.nan)
    return KeypointTable(
        names=names,
        images=[images[place] for place in kept],
        points=points[kept],
        boxes=nothing if boxes is None else boxes[kept],
        areas=nothing[:, 0],
        ids=list(places),
        flip_pairs=[],
        sigmas=None,
        notices=[f"{path}: {again:,} lines that repeat another one left out"] if again else [],
        sizes=nothing[:, :2],
        turned=np.zeros(len(kept), dtype=bool),
    )
