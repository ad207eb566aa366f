"""Reading of the MATLAB-born files of AFLW and 300-W [spec 6].

What is absent or doesn't fit raises an `InputError` that names the file.

Of ``.mat`` files, numbers, text, cells and structs are read. SciPy's reader is for files that one
trusts: of some damaged ones it ends the process, and it makes room for as many entries as a header
claims. This one reads just the variables that are wanted, and nothing is larger than the bytes
that hold it.

[MAT-File Format, level 5, which MATLAB 5 to 7 write.] Each element is a tag, type and length in
bytes, and its content, filled up to whole eights; the tag itself may hold up to four bytes.
"""

import math
import struct
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from data_loader.geometry import WINDOW_FACE
from data_loader.readers.annotation_files import LAYOUT, check_unique, parse_coordinate, read_lines
from data_loader.readers.images import MAX_PIXELS
from utils.errors import InputError
from utils.files import check_is_file, reason

MAX_BYTES = 2**26  # AFLW's have one MB, the face boxes of 300-W less
MAX_DEPTH = 8
HEADER, TAG = 128, 8  # bytes
TYPE_NAMES, TYPE_DIMENSIONS, TYPE_FLAGS, TYPE_MATRIX, TYPE_PACKED = 1, 5, 6, 14, 15
NUMBER_TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8"}
NUMBER_TYPES |= {12: "i8", 13: "u8"}
TEXT_TYPES = {1: "latin-1", 2: "latin-1", 4: "utf-16", 16: "utf-8", 17: "utf-16"}
CELL, STRUCT, TEXT = 1, 2, 4  # classes of matrices
NUMBERS, COMPLEX = range(6, 16), 0x800
ORDERS = {b"IM": "<", b"MI": ">"}


def load_mat(path: Path, names: set[str]) -> dict:
    """Return some variables of a ``.mat`` file, those of them that it holds."""
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
        absent: those of them that may hold NaN; the others must be finite.
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
    """Return image name to ground-truth face box (xmin, ymin, xmax, ymax), 1-based, not empty.

    The file holds ``bounding_boxes``, a 1xN cell of structs with ``imgName`` and
    ``bb_ground_truth``.
    """
    mat = load_mat(path, {"bounding_boxes"})
    try:
        cells = [cell for (cell,) in mat["bounding_boxes"]]
        names = [cell["imgName"] for cell in cells]
        found = [cell["bb_ground_truth"].astype(np.float64).reshape(4) for cell in cells]
        if not all(name.isprintable() for name in names):
            raise ValueError("a name")
    except Exception:  # what lies where an array belongs raises whatever it likes
        raise InputError(
            f"{path}: expected bounding_boxes, a cell of structs with imgName and bb_ground_truth"
        ) from None
    check_unique(path, names)
    for name, (xmin, ymin, xmax, ymax) in zip(names, found, strict=True):
        if not (np.isfinite([xmin, ymin, xmax, ymax]).all() and xmax > xmin and ymax > ymin):
            raise InputError(f"{path}: the face box of {name} is empty or not finite")
    return dict(zip(names, found, strict=True))


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
    """Return the points (count, 2) of a ``.pts`` file, 1-based, x before y, NaN if absent."""
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


def read_variables(data: bytes, names: set[str]) -> dict:
    """Return those of the named variables that a file has; raise anything if it is damaged.

    Numbers are arrays, text is a string, a cell the list of its values, and a struct a list of
    dicts, column by column where they have several axes.
    """
    order = ORDERS.get(data[HEADER - 2 : HEADER])
    if order is None or struct.unpack_from(f"{order}H", data, HEADER - 4)[0] != 0x0100:
        raise ValueError("not of MATLAB 5 to 7")
    elements, variables = _Elements(data[HEADER:], order), {}
    while elements:
        kind, content = elements.next(fill=False)
        if kind == TYPE_PACKED:
            unpacker = zlib.decompressobj()
            unpacked = unpacker.decompress(content, MAX_BYTES)
            if not unpacker.eof:
                raise ValueError("a packed variable is cut short or too large")
            kind, content = _Elements(unpacked, order).next(fill=False)
        if kind != TYPE_MATRIX:
            raise ValueError(f"a variable of type {kind}")
        name = variable_name(content, order)
        if name in variables:
            raise ValueError(f"{name} appears twice")
        if name in names:
            variables[name] = matrix(content, order, depth=1)
    return variables


class _Elements:
    """Reads one element after the other."""

    def __init__(self, data: bytes, order: str) -> None:
        self.data, self.order, self.at = data, order, 0

    def __bool__(self) -> bool:
        return self.at < len(self.data)

    def next(self, fill: bool = True) -> tuple[int, bytes]:
        """Return the next element's type and content, and pass over its padding if it has one."""
        kind, size = struct.unpack_from(f"{self.order}II", self.data, self.at)
        start = self.at + TAG
        if kind >> 16:  # both in four bytes, the content in the other four
            kind, size, start = kind & 0xFFFF, kind >> 16, self.at + TAG // 2
            if size > TAG // 2:
                raise ValueError("an element is larger than its place")
            self.at += TAG
        else:
            self.at = start + size + (-size % TAG if fill else 0)
        if start + size > len(self.data):
            raise ValueError("cut short")
        return kind, self.data[start : start + size]

    def next_of(self, wanted: int) -> bytes:
        """Return the content of the next element, which must be of this type."""
        kind, content = self.next()
        if kind != wanted:
            raise ValueError(f"an element of type {kind} where type {wanted} belongs")
        return content

    def next_integers(self, wanted: int) -> tuple[int, ...]:
        """Return the 32-bit integers of the next element, which must be of this type."""
        content = self.next_of(wanted)
        return struct.unpack(f"{self.order}{len(content) // 4}i", content)


def variable_name(content: bytes, order: str) -> str:
    """Return the name of the variable in a matrix element."""
    elements = _Elements(content, order)
    for _ in range(2):  # flags and dimensions; odd kinds of variables have others, and no name
        if elements.next()[0] not in (TYPE_FLAGS, TYPE_DIMENSIONS):
            return ""
    return elements.next()[1].decode("latin-1")


def matrix(content: bytes, order: str, depth: int) -> Any:
    """Return the value of a matrix element; see `read_variables`."""
    if not content:
        return np.empty((0, 0))
    elements = _Elements(content, order)
    flags, *_ = elements.next_integers(TYPE_FLAGS)
    sizes = elements.next_integers(TYPE_DIMENSIONS)
    elements.next()  # the name
    kind, count = flags & 0xFF, math.prod(sizes)
    if min(sizes, default=-1) < 0 or count > len(content):
        raise ValueError(f"a variable of {len(content)} bytes claims a size of {sizes[:9]}")
    if depth > MAX_DEPTH:
        raise ValueError("variables too deep in each other")
    if kind == CELL:
        return [matrix(elements.next_of(TYPE_MATRIX), order, depth + 1) for _ in range(count)]
    if kind == STRUCT:
        width, fields = elements.next_integers(TYPE_DIMENSIONS)[0], elements.next_of(TYPE_NAMES)
        names = [fields[at : at + width].rstrip(b"\0") for at in range(0, len(fields), width)]
        return [
            {n.decode(): matrix(elements.next_of(TYPE_MATRIX), order, depth + 1) for n in names}
            for _ in range(count)
        ]
    element_type, values = elements.next()
    if kind == TEXT and max(sizes) in (0, count) and element_type in TEXT_TYPES:
        code = TEXT_TYPES[element_type]
        byte_order = {"<": "-le", ">": "-be"}[order] if code == "utf-16" else ""
        return values.decode(code + byte_order)
    if kind not in NUMBERS or flags & COMPLEX or element_type not in NUMBER_TYPES:
        raise ValueError("a variable that is neither real numbers nor text, cell or struct")
    numbers = np.frombuffer(values, order + NUMBER_TYPES[element_type])
    return numbers.reshape(sizes, order="F")
