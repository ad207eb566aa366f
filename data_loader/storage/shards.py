"""Tar files of images, as the WebDataset library writes and reads them: shards.

A member is an image if its suffix is one of an image, such as ``birds/0001.jpg``. What lies before
the suffix is its key, which no other image of the shard may have. Labels and whatever else lies
beside it are passed over unread, so that nothing is ever unpickled, nor extracted to disk.

Keys may have dots: ``IMG_2019.04.12.jpg`` is an image. But WebDataset's samples may hold several
images, as ``a.seg.png`` beside ``a.jpg``. So a name with several dots is passed over if a word,
with up to two digits, lies between its last two dots; or if an image before it in the shard has
what lies before its first dot as its key.
"""

import json
import os
import re
import tarfile
from collections.abc import Container, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from braceexpand import braceexpand

from data_loader.readers.annotation_files import check_unique
from data_loader.readers.images import SUFFIXES
from utils.errors import InputError
from utils.files import check_is_file, excerpt, printable, reason

MAX_SHARDS = 1_000_000
THREADS = 32  # that wait for a disk or network while they count
# Between the last two dots of a name; and where notes on the shard lie.
SECOND_SUFFIX, NOTES = re.compile(r"[^\W\d]+\d{0,2}"), re.compile(r"__[^/]*__/")


class Shard(NamedTuple):
    """A tar file and how many images it holds."""

    path: Path  # absolute
    count: int  # type: ignore[assignment]  # shadows tuple's method


class ShardImage(NamedTuple):
    """An image as it is in a shard."""

    path: Path  # the shard's, and the member's name below it: for messages alone
    data: bytes  # of an image file, which may be damaged


def holds_shards(data_folder: str) -> bool:
    """Return whether a path is meant for shards: see `find_shards`.

    A folder is if it holds a tar but no other folder. Benchmarks consist of folders, and beside
    them may lie the tar that they came in.
    """
    if not os.path.isdir(data_folder):
        return data_folder.endswith((".tar", ".json"))
    entries = [e for e in Path(data_folder).iterdir() if not e.name.startswith(".")]
    return any(e.suffix == ".tar" for e in entries) and not any(e.is_dir() for e in entries)


def find_shards(data_folder: str) -> list[Shard]:
    """Return the shards that a path names, in its order.

    Args:
        data_folder: a tar; several, written with braces: ``birds-{000000..000099}.tar``; a folder
            of ``*.tar``; or an index of them, ``{"wids_version": 1, "shardlist": [{"url":
            "birds-000000.tar", "nsamples": 1000}, ...]}`` in a ``.json`` file, with paths that
            start from its folder. The index saves reading through all shards to count images.

    Raises:
        InputError: if there is none, or one isn't a whole plain tar with images, each with a
            key of its own; or the index isn't as described. Names the file.
    """
    if data_folder.endswith(".json") and not os.path.isdir(data_folder):
        shards = read_index(Path(data_folder))
    else:
        paths = [local_file(name) for name in listed(data_folder)]
        with ThreadPoolExecutor(THREADS) as threads:
            shards = [*map(Shard, paths, threads.map(count_images, paths))]
    if not shards:
        raise InputError(f"{data_folder}: no shard there")
    check_unique(Path(data_folder), [str(shard.path) for shard in shards])
    return shards


def listed(data_folder: str) -> list[str]:
    """Return the names that a folder holds or a pattern with braces means."""
    if os.path.isdir(data_folder):
        return sorted(str(path) for path in Path(data_folder).glob("*.tar"))
    if os.path.exists(data_folder):
        return [data_folder]  # braces and all
    try:
        # Before expanding, which would take all memory.
        for first, last in re.findall(r"\{(-?\d+)\.\.(-?\d+)", data_folder):
            if abs(int(last) - int(first)) >= MAX_SHARDS:
                raise ValueError(f"more than {MAX_SHARDS:,} shards")
        return list(islice(braceexpand(data_folder), MAX_SHARDS))
    except ValueError as error:
        raise InputError(f"{data_folder}: {reason(error)}") from None


def local_file(name: str, folder: str = "") -> Path:
    """Return the absolute path of a shard.

    WebDataset takes a name such as ``pipe:rm -r /`` for a command to run. An index may come from
    anywhere, so that only files are let through.
    """
    if re.match(r"[\w+.-]+:", name):
        raise InputError(f"{excerpt(name)}: shards are files; mount, or copy, what lies elsewhere")
    path = os.path.abspath(os.path.join(folder, name))
    if not path.isprintable():  # it will appear in messages
        raise InputError(f"{excerpt(path)}: not a name for a shard")
    check_is_file(path, "no such shard")
    return Path(path)


def read_index(path: Path) -> list[Shard]:
    """Return the shards of an index: see `find_shards`."""
    check_is_file(path)
    try:
        index = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: not an index of shards ({reason(error)})") from None
    entries = index.get("shardlist") if isinstance(index, dict) else None
    if not isinstance(entries, list) or index.get("wids_version") != 1:
        raise InputError(f"{path}: expected wids_version 1 and a shardlist")
    shards = []
    for number, entry in enumerate(entries, 1):
        facts = entry if isinstance(entry, dict) else {}
        url, count = facts.get("url"), facts.get("nsamples")
        if not (isinstance(url, str) and url and type(count) is int and count > 0):
            raise InputError(f"{path}, shard {number}: expected a url and nsamples of at least 1")
        shard = Shard(local_file(url, str(path.parent)), count)
        if count > (most := shard.path.stat().st_size // tarfile.BLOCKSIZE):
            raise InputError(f"{path}: more than {most} samples don't fit into {shard.path}")
        shards.append(shard)
    return shards


def count_images(path: Path) -> int:
    """Return how many images a shard holds, by its headers; see `find_shards`."""
    count = sum(1 for _ in read_images(path))
    if not count:
        raise InputError(f"{path}: holds no image (none of *.{', *.'.join(sorted(SUFFIXES))})")
    return count


def image_key(name: str, earlier: Container[str] = ()) -> str | None:
    """Return the key of a member that is an image by its name, given those of earlier images."""
    stem, _, suffix = name.rpartition(".")
    folder, slash, file = stem.rpartition("/")
    if suffix.lower() not in SUFFIXES or NOTES.match(name) or not file or file.startswith("."):
        return None
    first, *others = file.split(".")
    if others and (SECOND_SUFFIX.fullmatch(others[-1]) or f"{folder}{slash}{first}" in earlier):
        return None
    return stem


def read_images(path: Path, first: int | None = None) -> Iterator[ShardImage]:
    """Yield a shard's images in their order, seeking over what lies between.

    Those before place ``first`` have no data. None reads only the headers, and checks that the
    shard ends as a tar does.
    """
    keys: set[str] = set()
    try:
        with path.open("rb") as file:
            tar = tarfile.open(fileobj=file, mode="r:")
            while (member := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]  # else it keeps them all
                if member.size < 0:  # it would be read again and again
                    raise ValueError(f"a member of {member.size} bytes")
                key = image_key(member.name, keys)
                if member.isdir() or key is None:
                    continue
                if key in keys:
                    raise ValueError(f"two images with the key {key!r}")
                content = tar.extractfile(member) if member.isreg() else None
                if content is None:
                    raise ValueError(f"{member.name!r} is a link or device")
                data = b"" if first is None or len(keys) < first else content.read()
                keys.add(key)
                yield ShardImage(path / printable(member.name).lstrip("/"), data)
            # tarfile takes a damaged header, too, for the end.
            file.seek(tar.offset)
            if first is None and file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise ValueError("cut short or damaged")
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or type(error).__name__}") from None
    except Exception as error:  # tarfile raises whatever a damaged file makes it
        said = reason(error) if error.args else type(error).__name__
        raise InputError(f"{path}: unusable shard ({said}), expected a plain tar") from None


def images(shard: Shard, first: int, stop: int) -> Iterator[ShardImage]:
    """Yield a shard's images from place ``first`` to before ``stop``, in their order."""
    check_is_file(shard.path, "no such shard")
    found = read_images(shard.path, first)
    for place in range(stop):
        image = next(found, None)
        if image is None:
            raise InputError(f"{shard.path}: {place} images, {shard.count} were to be there")
        if place == shard.count - 1 and next(found, None) is not None:
            raise InputError(f"{shard.path}: more images than the {shard.count} to be there")
        if place >= first:
            yield image
