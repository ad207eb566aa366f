"""Reading of MATLAB files, as far as numbers, text, cells and structs go.

SciPy's reader is for files that one trusts: of some damaged ones it ends the process, and it makes
room for as many entries as a header claims. This one reads just the variables that are wanted, and
nothing is larger than the bytes that it stands for.

[MAT-File Format, level 5, which MATLAB 5 to 7 write.] Each element is a tag, type and length in
bytes, and its content, filled up to whole eights; up to four bytes may stand in the tag itself.
"""

import math
import struct
import zlib
from typing import Any

import numpy as np

MAX_BYTES = 2**26  # AFLW's have one MB, the face boxes of 300-W less
MAX_DEPTH = 8
HEADER, TAG = 128, 8
TYPE_NAMES, TYPE_DIMENSIONS, TYPE_FLAGS, TYPE_MATRIX, TYPE_PACKED = 1, 5, 6, 14, 15
NUMBER_TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8"}
NUMBER_TYPES |= {12: "i8", 13: "u8"}
TEXT_TYPES = {1: "latin-1", 2: "latin-1", 4: "utf-16", 16: "utf-8", 17: "utf-16"}
CELL, STRUCT, TEXT = 1, 2, 4  # classes of matrices
NUMBERS, COMPLEX = range(6, 16), 0x800
ORDERS = {b"IM": "<", b"MI": ">"}


def read_variables(data: bytes, names: set[str]) -> dict:
    """Return those of the named variables that a file has.

    Numbers are arrays, text is a string, a cell the list of its values, and a struct a list of
    dicts, column by column where they have several axes.

    Raises:
        ValueError, struct.error or zlib.error: if the file is damaged, or holds in these
            variables something else, or nests them more than `MAX_DEPTH` deep.
    """
    order = ORDERS.get(data[HEADER - 2 : HEADER])
    if order is None or struct.unpack_from(f"{order}H", data, HEADER - 4)[0] != 0x0100:
        raise ValueError("not of MATLAB 5 to 7")
    elements, variables = _Elements(data[HEADER:], order), {}
    while elements:
        kind, content = elements.next(fill=False)
        if kind == TYPE_PACKED:
            unpacker = zlib.decompressobj()
            content = unpacker.decompress(content, MAX_BYTES)
            if not unpacker.eof:
                raise ValueError("a packed variable is cut short or too large")
            kind, content = _Elements(content, order).next(fill=False)
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
        """Return the next element's type and content."""
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
