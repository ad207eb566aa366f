"""Names of a million images in little memory."""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, islice
from typing import overload

BLOCK = 2**12  # names that are joined


class Names(Sequence[str]):
    """Strings that aren't changed: a few bytes more than their letters, where a list takes a 100.

    They are no Python objects until they are asked for, so that forked processes, which count
    references to objects, go on sharing their memory.

    Args:
        names: in their order; of files, also those whose bytes aren't UTF-8 (see `os.fsdecode`).
    """

    def __init__(self, names: Iterable[str]) -> None:
        # In blocks, which are never grown: what that frees would stay the process's.
        self._blocks: list[tuple[bytes, array[int]]] = []  # names joined, and where each ends
        left, self._length = iter(names), 0
        while block := [name.encode("utf-8", "surrogateescape") for name in islice(left, BLOCK)]:
            self._blocks.append((b"".join(block), array("I", accumulate(map(len, block)))))
            self._length += len(block)

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> list[str]: ...

    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        number, place = divmod(range(self._length)[index], BLOCK)  # or an IndexError
        joined, ends = self._blocks[number]
        name = joined[ends[place - 1] if place else 0 : ends[place]]
        return name.decode("utf-8", "surrogateescape")

    def __iter__(self) -> Iterator[str]:
        return (self[place] for place in range(len(self)))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str | bytes):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]  # as of a list

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self[:]!r})"
