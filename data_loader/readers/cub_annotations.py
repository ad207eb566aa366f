"""CUB's part annotations, from the Torch7 files or from those CUB itself ships [spec 6].

What is absent or doesn't fit raises an `InputError` that names the file and the line.

Letters: N images, A = 15 parts. Points are (x, y) as fractions of the image's size.
"""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torchfile
from numpy.lib.array_utils import byte_bounds

from data_loader.readers.annotation_files import (
    check_points,
    parse_number,
    read_lines,
    replace_backslashes,
)
from data_loader.readers.images import image_size
from utils.errors import InputError
from utils.files import check_is_file, reason

PARTS = 15


def read_part_annotations(
    root: Path, filenames: list[str], size_of: Callable[[Path], tuple[float, float]] = image_size
) -> tuple[np.ndarray, np.ndarray]:
    """Return the points (N, A, 2) and visibility (N, A) bool of the named images.

    Reads ``anno/train.dat`` and ``anno/val.dat`` (which holds the test images too) where they
    exist, else ``images.txt`` and ``parts/part_locs.txt``, whose points need the images' sizes;
    ``size_of`` a path returns width and height.
    """
    dat_files = [root / "anno" / name for name in ("train.dat", "val.dat")]
    if any(path.is_file() for path in dat_files):
        rows = {name: row for path in dat_files for name, row in read_dat(path).items()}
        annotated = [rows.get(Path(name).name) for name in filenames]
        source = root / "anno"
    elif (root / "parts/part_locs.txt").is_file():
        rows = read_part_locations(root, set(filenames), size_of)
        annotated = [rows.get(name) for name in filenames]
        source = root / "parts/part_locs.txt"
    else:
        raise InputError(
            f"{root}: no part annotations: expected anno/train.dat and anno/val.dat, "
            "or CUB's own images.txt and parts/part_locs.txt"
        )
    for name, row in zip(filenames, annotated, strict=True):
        if row is None:
            raise InputError(f"{source}: has no parts of {name}")
    parts = np.array(annotated)  # (N, A, 3)
    points, visible = parts[..., :2], parts[..., 2] > 0
    # Where an invisible part is said to be means nothing.
    check_points(source, filenames, np.where(visible[..., None], points, 0), (1, 1))
    return points, visible


def read_dat(path: Path) -> dict[str, np.ndarray]:
    """Return image's base name to (A, 3), x, y, visible, of a Torch7 file."""
    check_is_file(path, "no such file; CUB's layout has one there")
    try:
        table = torchfile.load(path, use_list_heuristic=False)
        return {
            name.decode(): np.array([part_numbers(parts, a) for a in range(1, PARTS + 1)])
            for name, parts in table.items()
        }
    except Exception as error:  # a value of another type raises whatever it likes
        raise InputError(
            f"{path}: expected a Torch7 table of names with parts '1' to '{PARTS}' "
            f"({reason(error)})"
        ) from None


def part_numbers(parts: dict, part: int) -> list[float]:
    """Return x, y and visibility of a part, from a table or an array, else raise anything."""
    numbers = parts[str(part).encode()]
    if isinstance(numbers, dict):
        numbers = [numbers[place] for place in range(1, len(numbers) + 1)]
    elif not (isinstance(numbers, np.ndarray) and is_whole(numbers)):
        raise ValueError(f"part {part} is no table or array that the file holds")
    x, y, visible = map(float, numbers)
    if not all(map(math.isfinite, (x, y, visible))):
        raise ValueError(f"part {part} is at ({x}, {y}), visible {visible}")
    return [x, y, visible]


def is_whole(numbers: np.ndarray) -> bool:
    """Whether an array of torchfile's is of one axis, and within the numbers that the file holds.

    torchfile takes the file's word for it: reading what lies outside would crash.
    """
    held = numbers
    while held.base is not None:
        held = held.base
    (first, end), (held_first, held_end) = byte_bounds(numbers), byte_bounds(held)
    return numbers.ndim == 1 and held_first <= first and end <= held_end


def read_part_locations(
    root: Path, wanted: set[str], size_of: Callable[[Path], tuple[float, float]]
) -> dict[str, np.ndarray]:
    """Return image's path below ``images`` to (A, 3), x, y, visible, of CUB's own files.

    CUB gives pixels, so each wanted image's size is asked for.
    """
    names = read_image_ids(root / "images.txt")
    path, rows = root / "parts/part_locs.txt", dict[str, np.ndarray]()  # NaN of parts to come
    for number, line in enumerate(read_lines(path), 1):
        words = line.split()
        try:
            image_id, part, x, y, visible = words[0], int(words[1]), *map(parse_number, words[2:])
            name = names[image_id]
            if not 1 <= part <= PARTS:
                raise ValueError
        except (IndexError, KeyError, ValueError):
            raise InputError(
                f"{path}, line {number}: expected image id, part 1 to {PARTS}, x, y, visible"
            ) from None
        row = rows.setdefault(name, np.full((PARTS, 3), np.nan))
        if not np.isnan(row[part - 1, 0]):
            raise InputError(f"{path}, line {number}: part {part} of {name} appears twice")
        row[part - 1] = x, y, visible
    sizes = {name: (*size_of(root / "images" / name), 1) for name in rows if name in wanted}
    return {name: np.nan_to_num(rows[name]) / size for name, size in sizes.items()}


def read_image_ids(path: Path) -> dict[str, str]:
    """Return the image's id to its path below ``images``, of CUB's ``images.txt``."""
    names = {}
    for number, line in enumerate(read_lines(path), 1):
        words = line.split(maxsplit=1)  # a path may hold spaces
        if len(words) != 2 or words[0] in names:
            raise InputError(f"{path}, line {number}: expected an id, not one from above, and path")
        names[words[0]] = words[1]
    folder = path.parent / "images"
    return dict(zip(names, replace_backslashes(folder, list(names.values())), strict=True))
