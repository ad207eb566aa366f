"""What the readers of annotation files return: named points of images of any kind.

Letters: N annotated instances, A named points.
"""

from typing import NamedTuple

import numpy as np


class KeypointTable(NamedTuple):
    """N annotated instances of A named points.

    Pixels are those of the image as it is shown, a note of its orientation (EXIF) applied; the
    centre of the first one is 0, y runs downwards.

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


class Parsed(NamedTuple):
    """What one format's file says, before its images are looked at.

    Attributes:
        names: as in `KeypointTable`, and so are the points, boxes, areas, ids, pairs and notices.
        images: N names, as in the file.
        y_up: y runs upwards from the images' lower edge: row = height - y.
        sizes: (N, 2) width and height that the file gives for each image, NaN where it doesn't.
    """

    names: list[str]
    images: list[str]
    points: np.ndarray
    boxes: np.ndarray
    areas: np.ndarray
    ids: list[str]
    flip_pairs: list[tuple[str, str]]
    notices: list[str]
    y_up: bool
    sizes: np.ndarray


def parsed_points(
    names: list[str], images: list[str], points: np.ndarray, ids: list[str], notices: list[str]
) -> Parsed:
    """Return what a format says that has points alone."""
    count = len(images)
    nothing = np.full((count, 4), np.nan)
    areas, sizes = nothing[:, 0], nothing[:, :2]
    return Parsed(names, images, points, nothing, areas, ids, [], notices, False, sizes)
