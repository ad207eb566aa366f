"""Installation: bringing an item of the catalogue to where the scripts look for it.

An item is put in its place when all of it is there, and what was there before is only replaced if
the user says so.
"""

import os
import posixpath
import shutil
import tarfile
import urllib.parse
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from datasets.fetching.catalogue import ARCHIVES, Item
from datasets.fetching.transfer import RetryPolicy, fetch, verify
from utils.errors import InputError
from utils.files import reason


def plan(item: Item, root: Path, url: str | None, mirror: str | None, checksum: str | None) -> Item:
    """Return an item as it is to be fetched: from an address, with a checksum, below a folder.

    Args:
        item: of the catalogue.
        root: folder that the catalogue's folders start from.
        url: address of the user's own choice; then only the user's own checksum is checked.
        mirror: address below which the file lies under the catalogue's name.
        checksum: replaces the catalogue's.
    """
    checksum = checksum or ("" if url else item.checksum)
    if mirror:
        url = f"{mirror.rstrip('/')}/{urllib.parse.quote(item.file)}"
    folder = root / item.folder
    file = (root / ARCHIVES if item.packed else folder) / item.file
    return replace(item, url=url or item.url, checksum=checksum, folder=str(folder), file=str(file))


def is_in_place(item: Item) -> bool:
    """Tell whether an item is in its folder.

    Raises:
        InputError: if it holds just some of it.
    """
    folder = Path(item.folder)
    if not item.holds:
        return folder.is_dir() and any(folder.iterdir())
    there = [name for name in item.holds if (folder / name).exists()]
    missing = [name for name in item.holds if name not in there]
    if there and missing:
        raise InputError(
            f"{folder} holds {there[0]} but not {missing[0]}: move it away, or give --overwrite"
        )
    return bool(there)


def install(item: Item, policy: RetryPolicy, *, overwrite: bool, keep_archive: bool) -> None:
    """Fetch one item, check it, unpack it and move it to its place.

    Args:
        item: see `plan`.
        policy: how long to wait for the server.
        overwrite: replace what is there.
        keep_archive: do not delete the archive when all is done.

    Raises:
        InputError: if any of it fails; what was there before is as it was.
    """
    folder, file = Path(item.folder), Path(item.file)
    is_given = item.packed and file.exists()
    if not is_given:
        fetch(item.url, file, item.checksum, policy)
    if not item.packed:
        return
    # A folder that exists may be a link to another disk, and a move must stay on one disk.
    beside = folder.resolve() if folder.is_dir() else folder.parent
    staging = beside / f".{item.name}.new"
    shutil.rmtree(staging, ignore_errors=True)  # of a run that was killed
    try:
        if is_given:
            print(f"using {file}, which is there already")
            verify(file, item.checksum)
        staging.mkdir(parents=True)
        unpack(file, staging, item.only)
        root = find_root(staging, item)
        if root != staging:
            left_out = sorted(child.name for child in root.parent.iterdir() if child != root)
            if left_out:
                print(f"left out, as the scripts do not need it: {', '.join(left_out)}")
        place(root, folder, overwrite)
    except InputError as error:
        raise InputError(f"{error}; {file} is kept: delete it to fetch it anew") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    if not (keep_archive or is_given):
        file.unlink()


def unpack(archive: Path, folder: Path, only: str = "") -> None:
    """Unpack a tar, tar.gz or zip file into a folder; the content tells which it is.

    Nothing is written outside of the folder: `zipfile` and the filter of `tarfile` see to that.

    Args:
        archive: the file.
        folder: where to; keeps what is there when something goes wrong.
        only: write just what lies below this folder of the archive, like ``images/birds``.

    Raises:
        InputError: if the archive is none or damaged, or leads out of the folder; or the disk
            fails.
    """
    try:
        for name, extract in tqdm(_entries(archive), "unpacking", unit=" entries", disable=None):
            if f"{posixpath.normpath(name)}/".startswith(only and f"{only}/"):
                extract(path=folder)
    except (OSError, tarfile.FilterError) as error:
        raise InputError(f"{archive}: cannot unpack: {reason(error)}") from error
    except Exception as error:  # the libraries raise whatever a damaged header makes them
        raise InputError(
            f"{archive}: not a whole tar, tar.gz or zip file ({reason(error)})"
        ) from error


def _entries(archive: Path) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Yield the names of the entries, and what writes each of them."""
    if not tarfile.is_tarfile(archive):
        with zipfile.ZipFile(archive) as packed:  # a link becomes a file that names its target
            for entry in packed.infolist():
                yield entry.filename, partial(packed.extract, entry)
        return
    with tarfile.open(archive) as tar:
        while (member := tar.next()) is not None:
            # Else it keeps a kilobyte for each of a million entries.
            tar.members.clear()  # type: ignore[attr-defined]
            yield member.name, partial(tar.extract, member, filter="data")
        file: Any = tar.fileobj
        file.seek(tar.offset)  # tarfile takes a damaged header, too, for the end
        if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError("damaged or cut off")


def find_root(tree: Path, item: Item) -> Path:
    """Return the folder of what was unpacked that is the item's, without those wrapped around it.

    It is the shallowest that has all the names in ``item.holds``, down to three levels; failing
    that, of an item that isn't exact, the first that doesn't hold a single folder and no more.

    Raises:
        InputError: if there is none.
    """
    for depth in range(4 if item.holds else 0):
        for first in sorted(tree.glob("*/" * depth + item.holds[0])):
            if all((first.parent / name).exists() for name in item.holds):
                return first.parent
    if item.is_exact:
        missing = ", ".join(item.holds)
        raise InputError(f"this is not {item.name}: no folder holds all of {missing}")
    while len(inside := list(tree.iterdir())) == 1 and inside[0].is_dir():
        tree = inside[0]
    return tree


def place(tree: Path, folder: Path, overwrite: bool) -> None:
    """Move what ``tree`` holds into ``folder``, which may exist, on the same file system.

    An emptied ``tree`` may be left, and in it (``.old``) what was replaced: delete it afterwards.

    Raises:
        InputError: if ``folder`` has one of the names already and is not to be overwritten; then
            nothing has moved.
    """
    if not os.path.lexists(folder):
        tree.rename(folder)
        return
    if not folder.is_dir():
        raise InputError(f"{folder} exists already and is not a folder")
    names = sorted(child.name for child in tree.iterdir())
    clashes = [name for name in names if os.path.lexists(folder / name)]
    if clashes and not overwrite:
        raise InputError(f"{folder / clashes[0]} exists already; --overwrite replaces it")
    (tree / ".old").mkdir()
    for name in names:
        if name in clashes:
            (folder / name).rename(tree / ".old" / name)
        (tree / name).rename(folder / name)
