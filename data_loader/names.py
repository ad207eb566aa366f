"""Names of a million images in little memory."""

import os
from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, islice

JOINED = 2**12  # as many make a block


class Names(Sequence[str]):
    """Strings that aren't changed: a few bytes more than their letters, where a list takes a 100.

    They are no Python objects until they are asked for, so that forked processes, which count
    references to objects, go on sharing their memory.

    Args:
        names: in their order; of files, also those whose bytes aren't UTF-8 (see `os.fsdecode`).
    """

    def __init__(self, names: Iterable[str]) -> None:
        # In blocks, which are never grown: what that frees would stay the process's.
        # Of each: how all names begin, such as with a folder; the rests joined; where each ends.
        self._blocks: list[tuple[bytes, bytes, array[int]]] = []
        left, self._length = iter(names), 0
        while block := [name.encode("utf-8", "surrogateescape") for name in islice(left, JOINED)]:
            begin = os.path.commonprefix(block) or b""
            rests = [name[len(begin) :] for name in block]
            self._blocks.append((begin, b"".join(rests), array("I", accumulate(map(len, rests)))))
            self._length += len(block)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> str:  # type: ignore[override]  # no slices
        number, place = divmod(range(self._length)[index], JOINED)  # or an IndexError
        begin, joined, ends = self._blocks[number]
        name = begin + joined[ends[place - 1] if place else 0 : ends[place]]
        return name.decode("utf-8", "surrogateescape")

    def __iter__(self) -> Iterator[str]:
        return (self[place] for place in range(len(self)))
