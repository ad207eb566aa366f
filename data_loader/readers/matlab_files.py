"""Reading of the MATLAB-born files of AFLW and 300-W [spec 6]."""

from collections.abc import Collection
from pathlib import Path

import numpy as np

from data_loader.geometry import WINDOW_FACE
from data_loader.readers.annotation_files import LAYOUT, parse_coordinate, read_lines
from data_loader.readers.images import MAX_PIXELS
from data_loader.readers.mat_elements import MAX_BYTES, read_variables
from utils.errors import InputError
from utils.files import check_is_file, reason


def load_mat(path: Path, names: set[str]) -> dict:
    """Return some variables of a ``.mat`` file, those of them that it holds.

    Raises:
        InputError: if it is absent or damaged.
    """
    check_is_file(path, LAYOUT)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"of more than {MAX_BYTES} bytes")
        return read_variables(path.read_bytes(), names)
    except Exception as error:  # a damaged header makes its reader raise whatever it likes
        raise InputError(f"{path}: unreadable .mat file ({reason(error)})") from None


def read_mat(
    path: Path, shapes: dict[str, tuple[int, ...]], absent: Collection[str] = ()
) -> dict[str, np.ndarray]:
    """Return numeric arrays of a ``.mat`` file as float64.

    Args:
        path: the file.
        shapes: the arrays wanted and their shapes.
        absent: those of them that may hold NaN.

    Raises:
        InputError: if an array is absent, has another shape or isn't finite.
    """
    mat, arrays = load_mat(path, set(shapes)), {}
    for name, shape in shapes.items():
        if name not in mat:
            raise InputError(f"{path}: has no variable {name!r}")
        if not isinstance(mat[name], np.ndarray):
            raise InputError(f"{path}: {name!r} isn't numeric")
        array = mat[name].astype(np.float64)
        if array.shape != shape:
            raise InputError(f"{path}: {name!r} is {array.shape}, expected {shape}")
        if not (np.isfinite(array) | (np.isnan(array) & (name in absent))).all():
            raise InputError(f"{path}: {name!r} holds a number that isn't finite")
        arrays[name] = array
    return arrays


def read_face_boxes(path: Path) -> dict[str, np.ndarray]:
    """Return image name to ground-truth face box (xmin, ymin, xmax, ymax), 1-based.

    The file holds ``bounding_boxes``, a 1xN cell of structs with ``imgName`` and
    ``bb_ground_truth``.

    Raises:
        InputError: if the file is absent or built otherwise, a name appears twice, or a box
            is empty.
    """
    mat, boxes = load_mat(path, {"bounding_boxes"}), {}
    try:
        for (cell,) in mat["bounding_boxes"]:
            name, box = cell["imgName"], cell["bb_ground_truth"]
            if not name.isprintable():
                raise ValueError(name)
            if name in boxes:
                raise InputError(f"{path}: {name} appears twice")
            boxes[name] = box.astype(np.float64).reshape(4)
    except InputError:
        raise
    except Exception:  # what stands where an array belongs raises whatever it likes
        raise InputError(
            f"{path}: expected bounding_boxes, a cell of structs with imgName and bb_ground_truth"
        ) from None
    for name, (xmin, ymin, xmax, ymax) in boxes.items():
        if not (np.isfinite([xmin, ymin, xmax, ymax]).all() and xmax > xmin and ymax > ymin):
            raise InputError(f"{path}: the face box of {name} is empty or not finite")
    return boxes


def check_face_box(path: Path, box: np.ndarray, size: tuple[int, int]) -> None:
    """Raise an `InputError` unless an image can be scaled to what its face box asks for."""
    width, height = (int(side * WINDOW_FACE / (box[2] - box[0] + 1)) for side in size)
    far = (box.reshape(2, 2) < -np.array(size)) | (box.reshape(2, 2) > 2 * np.array(size))
    if far.any() or not 1 <= width * height <= MAX_PIXELS:
        raise InputError(
            f"{path}: its face box {', '.join(f'{v:g}' for v in box)} can't be that of an image "
            f"of {size[0]} x {size[1]}"
        )


def read_pts(path: Path, count: int) -> np.ndarray:
    """Return the points (count, 2) of a ``.pts`` file, 1-based, x before y, NaN if absent.

    Raises:
        InputError: if the file is absent or hasn't just that many points between its braces.
    """
    lines = read_lines(path)
    start = lines.index("{") + 1 if "{" in lines else len(lines)
    points = []
    for line in lines[start : start + count]:
        try:
            x, y = map(parse_coordinate, line.split())
            if np.isnan(x) != np.isnan(y):
                raise ValueError(line)
        except ValueError:
            break
        points.append((x, y))
    found = next(iter(lines[start + len(points) :]), "")
    if len(points) < count or found != "}":
        raise InputError(
            f"{path}, line {start + len(points) + 1}: expected {count} points 'x y' between lines "
            f"'{{' and '}}', found {found[:60]!r}"
        )
    return np.array(points)
