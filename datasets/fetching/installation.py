"""Installation: bringing an item of the catalogue to where the scripts look for it.

All of an item is put in its place or nothing is, and what was there before is only replaced if the
user says so.
"""

import contextlib
import os
import shutil
import urllib.parse
from dataclasses import dataclass
from pathlib import Path

from datasets.fetching.archives import unpack
from datasets.fetching.catalogue import ARCHIVES, Item
from datasets.fetching.integrity import verify
from datasets.fetching.transfer import RetryPolicy, fetch
from utils.errors import InputError


@dataclass(frozen=True)
class Job:
    """One item on its way: from where, to where.

    Attributes:
        item: what is fetched.
        url: address of its file, empty if it has none.
        checksum: MD5, SHA-1 or SHA-256 of the file in hexadecimal, None if not known.
        size: of the file in bytes, None if not known.
        folder: where it lands.
        file: where its file is downloaded to: the archive, or the final place of a single file.
    """

    item: Item
    url: str
    checksum: str | None
    size: int | None
    folder: Path
    file: Path


def plan(
    item: Item,
    root: Path,
    url: str | None = None,
    mirror: str | None = None,
    checksum: str | None = None,
) -> Job:
    """Return the job for an item.

    Args:
        item: what to fetch.
        root: folder that the catalogue's folders start from.
        url: address of the user's own choice; then only the user's own checksum is checked.
        mirror: address below which the file lies under the catalogue's name.
        checksum: replaces the catalogue's.
    """
    size = None if url or checksum else item.size
    checksum = checksum or (None if url else item.checksum)
    if mirror:
        url = f"{mirror.rstrip('/')}/{urllib.parse.quote(item.file)}"
    folder = root / item.folder
    file = (root / ARCHIVES if item.packed else folder) / item.file
    return Job(item, url or item.url or "", checksum, size, folder, file)


def is_in_place(item: Item, folder: Path) -> bool:
    """Tell whether a folder holds an item.

    Raises:
        InputError: if it holds just some of it.
    """
    if not item.holds:
        return folder.is_dir() and any(folder.iterdir())
    there = [name for name in item.holds if (folder / name).exists()]
    missing = [name for name in item.holds if name not in there]
    if there and missing:
        raise InputError(
            f"{folder} holds {there[0]} but not {missing[0]}: move it away, or give --overwrite"
        )
    return bool(there)


def install(job: Job, policy: RetryPolicy, *, overwrite: bool, keep_archive: bool) -> None:
    """Fetch one item, check it, unpack it and move it to its place.

    Args:
        job: what, from where, to where.
        policy: how long to wait for the server.
        overwrite: replace what is there.
        keep_archive: do not delete the archive when all is done.

    Raises:
        InputError: if any of it fails; what was there before is as it was.
    """
    is_given = job.item.packed and job.file.exists()
    if not is_given:
        fetch(job.url, job.file, size=job.size, checksum=job.checksum, policy=policy)
    if not job.item.packed:
        return
    try:
        if is_given:
            print(f"using {job.file}, which is there already")
            verify(job.file, size=job.size, checksum=job.checksum)
        _unpack_into_place(job, overwrite)
    except InputError as error:
        raise InputError(f"{error}; {job.file} is kept: delete it to fetch it anew") from error
    if not (keep_archive or is_given):
        job.file.unlink()


def _unpack_into_place(job: Job, overwrite: bool) -> None:
    # A folder that exists may be a link to another disk, and a move must stay on one disk.
    beside = job.folder.resolve() if job.folder.is_dir() else job.folder.parent
    staging = beside / f".{job.item.name}.new"
    shutil.rmtree(staging, ignore_errors=True)  # of a run that was killed
    try:
        staging.mkdir(parents=True)
        unpack(job.file, staging, job.item.only)
        root = find_root(staging, job.item.holds) if job.item.holds else None
        if root is None:
            if job.item.is_exact:
                missing = ", ".join(job.item.holds)
                raise InputError(f"this is not {job.item.name}: no folder holds all of {missing}")
            root = staging
            while len(inside := list(root.iterdir())) == 1 and inside[0].is_dir():
                root = inside[0]
        if root != staging:
            left_out = sorted(child.name for child in root.parent.iterdir() if child != root)
            if left_out:
                print(f"left out, as the scripts do not need it: {', '.join(left_out)}")
        place(root, job.folder, overwrite=overwrite)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def find_root(tree: Path, holds: tuple[str, ...], depth: int = 3) -> Path | None:
    """Return the shallowest folder of ``tree`` that has all the names in ``holds``, if any."""
    level = [tree]
    for _ in range(depth + 1):
        for folder in level:
            if all((folder / name).exists() for name in holds):
                return folder
        level = [child for folder in level for child in sorted(folder.iterdir()) if child.is_dir()]
    return None


def place(tree: Path, folder: Path, *, overwrite: bool = False) -> None:
    """Move what ``tree`` holds into ``folder``, which may exist; on an error nothing has moved.

    Both must lie on one file system. An emptied ``tree`` may be left, and in it (``.old``) what was
    replaced: delete it afterwards.

    Raises:
        InputError: if ``folder`` has one of the names already and ``overwrite`` is not set.
    """
    if not os.path.lexists(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        tree.rename(folder)
        return
    if not folder.is_dir():
        raise InputError(f"{folder} exists already and is not a folder")
    names = sorted(child.name for child in tree.iterdir())
    clashes = [name for name in names if os.path.lexists(folder / name)]
    if clashes and not overwrite:
        raise InputError(f"{folder / clashes[0]} exists already; --overwrite replaces it")
    old = tree / ".old"
    old.mkdir()
    with contextlib.ExitStack() as undo:
        for name in names:
            if name in clashes:
                (folder / name).rename(old / name)
                undo.callback((old / name).rename, folder / name)
            (tree / name).rename(folder / name)
            undo.callback((folder / name).rename, tree / name)
        undo.pop_all()
