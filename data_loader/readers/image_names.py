"""Which images lie below a folder, and where those of a list are.

Letters: N images.
"""

import os
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import accumulate, islice
from pathlib import Path

from data_loader.readers.annotation_files import iterate_lines
from data_loader.readers.images import HEIC_SUFFIXES, NO_HEIC, OWN_SUFFIXES, SUFFIXES
from utils.errors import InputError
from utils.files import unquoted

JOINED = 2**12  # names that make a block


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
        return os.fsdecode(name)


def find_images(root: Path, own: bool = False) -> tuple[Names, list[str]]:
    """Return the sorted paths of the images below a folder, and a line on other files, if any.

    Links are followed, to each folder once. Folders below it that can't be read are passed over,
    and so are hidden ones and macOS's. Those of one's ``own`` may be of more formats than a
    benchmark's.

    Raises:
        InputError: if there is no image.
        OSError: if the folder can't be read.
    """
    left_out, seen = Counter[str](), set[str]()
    suffixes = OWN_SUFFIXES - (HEIC_SUFFIXES if NO_HEIC else set()) if own else SUFFIXES

    def in_order() -> Iterator[str]:
        left = [""]  # the last one comes next
        while left:
            path = left.pop()
            if path and not path.endswith(os.sep):
                yield path
            elif (real := os.path.realpath(root / path)) not in seen:
                seen.add(real)
                left += sorted(
                    (path + name for name in _inside(root / path, suffixes, left_out)), reverse=True
                )

    os.scandir(root).close()
    found = Names(in_order())
    how = NO_HEIC if own and any(left_out[f"*.{suffix}"] for suffix in HEIC_SUFFIXES) else ""
    if not len(found):
        raise InputError(
            f"{root}: holds no image, at any depth, named *.{', *.'.join(sorted(suffixes))}{how}"
        )
    if not left_out:
        return found, []
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in left_out.most_common(9))
    return found, [f"{root}: {left_out.total():,} files or folders left out: {kinds}{how}"]


def _inside(folder: Path, suffixes: set[str], left_out: Counter[str]) -> Iterator[str]:
    """Yield a folder's images, and subfolders with a separator at their end; count the rest."""
    walk = os.walk(folder, onerror=lambda _: left_out.update(["folders that can't be read"]))
    _, subfolders, files = next(walk, ("", [], []))
    for name in (*(name + os.sep for name in subfolders), *files):
        suffix = os.path.splitext(name)[1].lower()
        if name.startswith(".") or name == "__MACOSX" + os.sep:
            left_out["hidden"] += 1
        elif name.endswith(os.sep) or suffix[1:] in suffixes:
            yield name
        else:
            left_out[f"*{suffix}" if suffix else "without suffix"] += 1


def resolve_listed(imagelist: Path, root: Path, may_be_absent: bool) -> Names:
    """Return the absolute paths of a list's images.

    Each line is tried as given, then below ``root``, then beside the list, then up to two folders
    above either. Windows' separators are replaced where that finds an image.

    Args:
        imagelist: a text file with one path a line.
        root: a folder.
        may_be_absent: an image that is nowhere gets its path below ``root``; else it is an error.
    """
    # Lists are often relative to a folder above the one that holds them.
    near = [root, imagelist.parent]
    above = [folder for path in near for folder in path.absolute().parents[:2]]
    places = list(dict.fromkeys(str(folder.absolute()) for folder in (Path(), *near, *above)))
    is_in = lru_cache(2**12)(_subfolder)  # few, of many lines, most of which most places lack

    def resolved() -> Iterator[str]:
        for number, line in enumerate(iterate_lines(imagelist), 1):
            names = dict.fromkeys([line, line.replace("\\", "/"), unquoted(line)] if line else [])
            parts = [os.path.split(name.rstrip("/")) for name in names]
            folders_in = ((is_in(place, below), name) for below, name in parts for place in places)
            tried = (os.path.join(folder, name) for folder, name in folders_in if folder)
            # os.path.isfile is False, where Path.is_file raises, for a line too long to be a path.
            if found := next(filter(os.path.isfile, tried), None):
                yield found
            elif line and may_be_absent:
                yield str((root / line).absolute())
            else:
                sought = ", ".join(dict.fromkeys(map(str, (Path(), *near, *above))))
                raise InputError(f"{imagelist}, line {number}: no image {line[:200]!r} in {sought}")

    paths = Names(resolved())
    if not len(paths):
        raise InputError(f"{imagelist}: empty, expected one image a line")
    return paths


def _subfolder(place: str, below: str) -> str | None:
    """Return the path of a folder below another, without needless dots; None if there is none."""
    path = os.path.join(place, below)
    return str(Path(path)) if os.path.isdir(path) else None
