"""Reading of the MATLAB-born files of AFLW and 300-W [SPEC 6]."""

from pathlib import Path

import numpy as np
import scipy.io

from data_loader.annotation_files import read_lines
from utils.errors import InputError


def load_mat(path: Path) -> dict:
    """Return the variables of a ``.mat`` file.

    Raises:
        InputError: if it is absent or damaged.
    """
    try:
        with path.open("rb") as file:  # of an absent path, scipy doesn't say that it is absent
            return scipy.io.loadmat(file)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; the benchmark's layout has one there") from None
    except Exception as error:  # scipy's reader raises whatever a damaged header makes it
        raise InputError(f"{path}: unreadable .mat file ({error})") from None


def read_mat(path: Path, shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Return numeric arrays of a ``.mat`` file as float64.

    Args:
        path: the file.
        shapes: the arrays wanted and their shapes.

    Raises:
        InputError: if an array is absent, has another shape or isn't finite.
    """
    mat, arrays = load_mat(path), {}
    for name, shape in shapes.items():
        if name not in mat:
            raise InputError(f"{path}: has no variable {name!r}")
        try:
            array = np.asarray(mat[name], dtype=np.float64)
        except (TypeError, ValueError):
            raise InputError(f"{path}: {name!r} isn't numeric") from None
        if array.shape != shape:
            raise InputError(f"{path}: {name!r} is {array.shape}, expected {shape}")
        if not np.isfinite(array).all():
            raise InputError(f"{path}: {name!r} holds a number that isn't finite")
        arrays[name] = array
    return arrays


def read_face_boxes(path: Path) -> dict[str, np.ndarray]:
    """Return image name to ground-truth face box (xmin, ymin, xmax, ymax), 1-based.

    The file holds ``bounding_boxes``, a 1xN cell of structs with ``imgName`` and
    ``bb_ground_truth``.

    Raises:
        InputError: if the file is absent or built otherwise, or a box is empty.
    """
    mat, boxes = load_mat(path), {}
    try:
        for cell in mat["bounding_boxes"].ravel():
            name = str(cell["imgName"].item().item())
            box = np.asarray(cell["bb_ground_truth"].item(), dtype=np.float64).reshape(4)
            boxes[name] = box
    except (KeyError, IndexError, TypeError, ValueError, AttributeError):
        raise InputError(
            f"{path}: expected bounding_boxes, a cell of structs with imgName and bb_ground_truth"
        ) from None
    for name, (xmin, ymin, xmax, ymax) in boxes.items():
        if not (np.isfinite([xmin, ymin, xmax, ymax]).all() and xmax > xmin and ymax > ymin):
            raise InputError(f"{path}: the face box of {name} is empty or not finite")
    return boxes


def read_pts(path: Path, count: int) -> np.ndarray:
    """Return the points (count, 2) of a ``.pts`` file, 1-based, x before y.

    Raises:
        InputError: if the file is absent or hasn't that many points after its opening brace.
    """
    lines = read_lines(path)
    try:
        start = lines.index("{") + 1
        points = np.array([line.split() for line in lines[start : start + count]], dtype=float)
    except ValueError:
        points = np.empty(0)
    if points.shape != (count, 2) or not np.isfinite(points).all():
        raise InputError(f"{path}: expected {count} points 'x y' after a line '{{'")
    return points
