"""Reading of files of named points, in whichever of the known formats a file is.

Letters: N instances, A points.
"""

from pathlib import Path

import numpy as np

from data_loader.readers.annotation_files import read_lines
from data_loader.readers.coco_keypoints import parse_coco
from data_loader.readers.csv_files import read_rows
from data_loader.readers.deeplabcut import is_deeplabcut, parse_deeplabcut
from data_loader.readers.keypoint_csv import parse_csv
from data_loader.readers.keypoint_images import locate, read_sizes
from data_loader.readers.keypoint_names import find_flip_pairs, find_sigmas, shown, shown_list
from data_loader.readers.keypoint_table import KeypointTable, Parsed
from data_loader.readers.tps_files import is_tps, parse_tps
from utils.errors import InputError
from utils.files import check_is_file

HDF5 = b"\x89HDF"  # begins DeepLabCut's .h5 and SLEAP's .slp
TOLERANCE = 0.01  # of an image's longer side: a click may miss the edge


def read_keypoints(
    path: Path, folder: Path, *, y_up: bool = False, category: str | None = None
) -> KeypointTable:
    """Read an annotation file of named points; its content tells the format.

    Formats: COCO keypoints JSON, DeepLabCut's ``CollectedData*.csv``, plain CSV with one line an
    image or one line a point, and tpsDig's ``.tps``.

    An instance of a plain CSV or ``.tps`` whose points are all missing is in the table; COCO's
    annotations and DeepLabCut's animals without points aren't.

    Args:
        path: the file.
        folder: the data folder, which the images' names are relative to.
        y_up: a plain CSV's y runs upwards from the lower edge: row = height - y. Always so in
            ``.tps``.
        category: name of the one that is meant, in a COCO file of several.

    Raises:
        InputError: if the file is of no known format, doesn't fit it, or doesn't fit its images.
    """
    parsed = _parse(path, y_up, category)
    images, notices = locate(path, folder, parsed.images)
    sizes, turned = read_sizes(folder, images)  # (N, 2), (N,)
    _check_sizes(path, images, sizes, parsed.sizes)
    points, boxes = parsed.points, parsed.boxes
    if parsed.y_up:
        points, boxes = _turn_over(points, boxes, sizes[:, 1])
    if not np.isfinite(points).any():
        raise InputError(f"{path}: none of its {len(points):,} lines or records has a point")
    _check_inside(path, parsed.names, images, points, sizes)
    absent = np.isnan(points).all(axis=(0, 2))  # (A,)
    if absent.any():
        missing = [name for name, gone in zip(parsed.names, absent, strict=True) if gone]
        notices = [*notices, f"{path}: no instance has {shown_list(missing, 10)}"]
    return KeypointTable(
        names=parsed.names,
        images=images,
        points=points,
        boxes=boxes,
        areas=parsed.areas,
        ids=parsed.ids,
        flip_pairs=parsed.flip_pairs or find_flip_pairs(parsed.names),
        sigmas=find_sigmas(parsed.names),
        notices=parsed.notices + notices,
        sizes=sizes,
        turned=turned,
    )


def _parse(path: Path, y_up: bool, category: str | None) -> Parsed:
    """Read a file by the format that its content tells."""
    check_is_file(path)
    with path.open("rb") as file:
        if file.read(len(HDF5)) == HDF5:
            raise InputError(
                f"{path}: an HDF5 file; give DeepLabCut's CSV beside it, or convert SLEAP's"
            )
    lines = read_lines(path)
    first = next((line for line in lines if line), "")
    is_json = first.startswith(("{", "["))
    if category is not None and not is_json:
        raise InputError(f"{path}: not COCO's JSON, which alone has categories (--category)")
    if is_json:
        parsed = parse_coco(path, "\n".join(lines), category)
    elif is_tps(lines):
        return parse_tps(path, lines)
    else:
        rows = read_rows(path, lines)
        if not is_deeplabcut(rows):
            return parse_csv(rows)._replace(y_up=y_up)
        parsed = parse_deeplabcut(rows)
    if y_up:
        raise InputError(f"{path}: y runs downwards in this format; --y_up is for plain CSV")
    return parsed


def _turn_over(
    points: np.ndarray, boxes: np.ndarray, heights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return points (N, A, 2) and boxes (N, 4) whose y ran upwards from the lower edge.

    Those of an image whose height (N,) isn't known stay: it can't be read, so none is used.
    """
    known = ~np.isnan(heights)
    points, boxes = points.copy(), boxes.copy()
    points[known, :, 1] = heights[known, None] - points[known, :, 1]
    boxes[known, 1], boxes[known, 3] = (
        heights[known] - boxes[known, 3],
        heights[known] - boxes[known, 1],
    )
    return points, boxes


def _check_sizes(path: Path, images: list[str], sizes: np.ndarray, said: np.ndarray) -> None:
    """Raise an `InputError` if an image hasn't the size (N, 2) that the annotation file gives."""
    differs = (np.isfinite(sizes) & np.isfinite(said) & (sizes != said)).any(axis=1)
    if differs.any():
        row = int(differs.argmax())
        (width, height), (other_width, other_height) = sizes[row], said[row]
        raise InputError(
            f"{path}: {shown(images[row])} has {width:g} x {height:g} pixels, annotated with "
            f"{other_width:g} x {other_height:g}"
        )


def _check_inside(
    path: Path, names: list[str], images: list[str], points: np.ndarray, sizes: np.ndarray
) -> None:
    """Raise an `InputError` if a point is beyond its image by more than a click may miss."""
    slack = np.maximum(TOLERANCE * sizes.max(axis=1), 1)[:, None, None]  # (N, 1, 1)
    beyond = (points < -slack) | (points > sizes[:, None] + slack)  # (N, A, 2); False for NaN
    if beyond.any():
        row, place, axis = np.argwhere(beyond)[0]
        (x, y), (width, height) = points[row, place], sizes[row]
        hint = "; if y runs upwards in a plain CSV, give --y_up" if axis == 1 else ""
        raise InputError(
            f"{path}: point {shown(names[place])} of {shown(images[row])} is at ({x:g}, {y:g}), "
            f"beyond its {width:g} x {height:g} pixels{hint}"
        )
