"""CUB's part annotations, from the Torch7 files or from those CUB itself ships [spec 6].

What is absent or doesn't fit raises an `InputError` that names the file and the line.

Of Torch7's binary files, tables, text, numbers and plain arrays are read. Each value is its type
(32 bits) and its content. Tables and Torch's objects carry a number, by which later values may
refer to them; such references are refused for what isn't complete yet, so that nothing holds
itself. Of objects only tensors of a single axis are read, from their own storage. [Torch7, File.lua
and Tensor.c.]

Letters: N images, A = 15 parts. Points are (x, y) as fractions of the image's size.
"""

import math
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

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
NUMBER, TEXT, TABLE, OBJECT, TRUTH = range(1, 6)  # Torch7's types of values
MAX_DEPTH = 16
DTYPES = {"Double": "<f8", "Float": "<f4", "Long": "<i8", "Int": "<i4", "Byte": "u1"}


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
        return {
            name.decode(): np.array([part_numbers(parts, a) for a in range(1, PARTS + 1)])
            for name, parts in Torch7(path.read_bytes()).value().items()
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
    x, y, visible = map(float, numbers)
    if not all(map(math.isfinite, (x, y, visible))):
        raise ValueError(f"part {part} is at ({x}, {y}), visible {visible}")
    return [x, y, visible]


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


class Torch7:
    """Reads a Torch7 file, given its bytes; raises anything if it is damaged."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0
        self.known: dict[int, Any] = {}

    def numbers(self, code: str) -> tuple:
        """Return the next numbers of a `struct` format."""
        found = struct.unpack_from(f"<{code}", self.data, self.at)
        self.at += struct.calcsize(f"<{code}")
        return found

    def text(self) -> bytes:
        """Return the next text, which its length precedes."""
        (size,) = self.numbers("i")
        return self.take(size)

    def take(self, size: int) -> bytes:
        """Return so many bytes."""
        if not 0 <= size <= len(self.data) - self.at:
            raise ValueError(f"cut short, or damaged before byte {self.at}")
        self.at += size
        return self.data[self.at - size : self.at]

    def value(self, depth: int = 0) -> Any:
        """Return the next value, which lies so many tables deep.

        It is a dict, bytes, float, bool, array (N,) or None.
        """
        (kind,) = self.numbers("i")
        if kind == 0:
            return None
        if kind == NUMBER:
            return self.numbers("d")[0]
        if kind == TRUTH:
            return self.numbers("i")[0] == 1
        if kind == TEXT:
            return self.text()
        if kind not in (TABLE, OBJECT):
            raise ValueError(f"a value of type {kind} before byte {self.at}")
        (number,) = self.numbers("i")
        if number not in self.known:
            if depth > MAX_DEPTH:
                raise ValueError("tables too deep in each other")
            self.known[number] = ValueError("a table that holds itself")
            read = self.table if kind == TABLE else self.object
            self.known[number] = read(depth + 1)
        if isinstance(self.known[number], Exception):
            raise self.known[number]
        return self.known[number]

    def table(self, depth: int) -> dict:
        """Return the rest of a table."""
        (size,) = self.numbers("i")
        table = {}
        for _ in range(size):
            key, value = self.value(depth), self.value(depth)
            if isinstance(key, (dict, np.ndarray)) or key in table:
                raise ValueError(f"a key that is no text or number, or twice: {key!r:.60}")
            table[key] = value
        return table

    def object(self, depth: int) -> np.ndarray:
        """Return the rest of a storage or of a tensor of one axis."""
        name = self.text()
        if name.startswith(b"V "):
            name = self.text()
        kind = name.decode("latin-1").removeprefix("torch.")
        dtype = DTYPES.get(kind.removesuffix("Storage").removesuffix("Tensor"))
        if dtype is not None and kind.endswith("Storage"):
            (count,) = self.numbers("q")
            return np.frombuffer(self.take(count * np.dtype(dtype).itemsize), dtype)
        if dtype is None or not kind.endswith("Tensor") or self.numbers("i") != (1,):
            raise ValueError(f"an object of class {name!r:.60}, or of more than one axis")
        count, stride, offset = self.numbers("3q")
        storage = self.value(depth)
        if not isinstance(storage, np.ndarray) or stride < 1 or offset < 1 or count < 0:
            raise ValueError("a tensor without storage")
        elements = storage[offset - 1 :: stride][:count]
        if len(elements) < count:
            raise ValueError("a tensor larger than its storage")
        return elements
