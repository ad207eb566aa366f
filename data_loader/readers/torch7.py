"""Reading of Torch7's binary files, as far as tables, text, numbers and plain arrays go.

Each value is its type (32 bits) and its content. Tables and Torch's objects carry a number, by
which later values may refer to them; such references are refused for what isn't complete yet, so
that nothing holds itself. Of objects only tensors of a single axis are read, from their own
storage. [Torch7, File.lua and Tensor.c.]
"""

import struct
from typing import Any

import numpy as np

NUMBER, TEXT, TABLE, OBJECT, TRUTH = range(1, 6)
MAX_DEPTH = 16
DTYPES = {"Double": "<f8", "Float": "<f4", "Long": "<i8", "Int": "<i4", "Byte": "u1"}


def read_torch7(data: bytes) -> Any:
    """Return the value in a file: dict, bytes, float, bool, array (N,) or None, else raise."""
    return _Reader(data).value(depth=0)


class _Reader:
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

    def value(self, depth: int) -> Any:
        """Return the next value, which lies so many tables deep."""
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
