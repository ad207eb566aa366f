"""Tar files of images, as the WebDataset library writes and reads them: shards.

A sample is the members of a tar that share a key: their name up to the first dot of its last
part. Here it is a key's one image, such as ``birds/0001.jpg``; labels and whatever else lies
beside it is passed over unread, so that nothing is ever unpickled, nor extracted to disk.
"""

import io
import json
import os
import re
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import webdataset
from braceexpand import braceexpand
from webdataset.tariterators import base_plus_ext, group_by_keys, tar_file_expander

from data_loader.readers.images import SUFFIXES
from utils.errors import InputError
from utils.files import check_is_file, printable, reason

MAX_MEMBER = 2**28  # bytes; no image of `images.MAX_PIXELS` needs as many in its file
MAX_NAME = 1000  # characters; to take a name apart, WebDataset needs their square
READS_AT_END = 8  # more than it takes to notice the end
MAX_SHARDS = 1_000_000
BLOCK = 512  # bytes; a tar consists of such blocks, a member of at least one
THREADS = 32  # that wait for a disk or network while they count
# By which tarfile, as WebDataset opens it, would take a stream for a compressed one.
COMPRESSED = re.compile(rb"\x1f\x8b|BZh.1AY&SY|\xfd7zXZ|\x5d\0\0|\x28\xb5\x2f\xfd", re.DOTALL)


class Shard(NamedTuple):
    """A tar file and how many images it holds."""

    path: Path  # absolute
    count: int


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
    try:
        with os.scandir(data_folder) as entries:
            is_folder = {e.name: e.is_dir() for e in entries if not e.name.startswith(".")}
    except OSError as error:
        raise InputError(f"{data_folder}: {error.strerror}") from None
    return any(name.endswith(".tar") for name in is_folder) and not any(is_folder.values())


def find_shards(data_folder: str) -> list[Shard]:
    """Return the shards that a path stands for, in its order.

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
    seen: set[Path] = set()
    for path, _ in shards:
        if path in seen:
            raise InputError(f"{data_folder}: lists {path} twice")
        seen.add(path)
    return shards


def listed(data_folder: str) -> list[str]:
    """Return the names that a folder holds or a pattern with braces stands for."""
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
    anywhere, so that only files are let through, and `images` opens them itself.

    Raises:
        InputError: if there is no such file.
    """
    if re.match(r"[\w+.-]+:", name):
        raise InputError(
            f"{printable(name)[:200]}: shards are files; mount, or copy, what lies elsewhere"
        )
    path = os.path.abspath(os.path.join(folder, name))
    if not path.isprintable():  # it will stand in messages
        raise InputError(f"{printable(path)[:200]}: not a name for a shard")
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
        url, count = (
            (entry.get("url"), entry.get("nsamples")) if isinstance(entry, dict) else ("", 0)
        )
        if not (isinstance(url, str) and url and type(count) is int and count > 0):
            raise InputError(f"{path}, shard {number}: expected a url and nsamples of at least 1")
        shard = Shard(local_file(url, str(path.parent)), count)
        most = shard.path.stat().st_size // BLOCK
        if count > most:
            raise InputError(f"{path}: more than {most} samples don't fit into {shard.path}")
        shards.append(shard)
    return shards


def count_images(path: Path) -> int:
    """Return how many images a shard holds, by its headers.

    Raises:
        InputError: if it isn't a whole plain tar with images, each with a key of its own.
    """
    count = sum(1 for _ in image_offsets(path))
    if not count:
        raise InputError(f"{path}: holds no image (none of *.{', *.'.join(sorted(SUFFIXES))})")
    return count


def image_key(name: str) -> str | None:
    """Return the key of a member that is an image by its name, None for others."""
    key, suffix = base_plus_ext(name)
    # WebDataset passes over folders with such names, which are for notes on the shard.
    meta = re.match("__[^/]*__/", name)
    return key if key is not None and suffix.lower() in SUFFIXES and not meta else None


class ShardFile(io.BufferedReader):
    """A shard that fails to give more than `MAX_MEMBER` bytes from one member to the next.

    A header may lie about sizes. All readers of tars read a member, or a long name, at once; and
    tarfile's streams, to pass over a member, go on reading at the end of the file, too.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path))
        self.keys: set[str] = set()
        self.left = MAX_MEMBER
        self.reads_at_end = 0

    def read(self, size: int | None = -1) -> bytes:
        """See `io.BufferedReader.read`."""
        if size is None or not 0 <= size <= self.left:
            raise ValueError(f"a member of more than {MAX_MEMBER} bytes")
        data = super().read(size)
        self.left -= len(data)
        self.reads_at_end += not data
        if self.reads_at_end > READS_AT_END:
            raise ValueError("cut short or damaged")
        return data

    def next_member(self, name: str) -> bool:
        """Return whether a member, whose header was read, is an image by its name."""
        self.left = MAX_MEMBER
        if len(name) > MAX_NAME:
            raise ValueError(f"a name of {len(name)} characters")
        key = image_key(name)
        if key in self.keys:
            raise ValueError(f"two images with the key {key!r}")
        if key is not None:
            self.keys.add(key)
        return key is not None

    def go_to(self, offset: int) -> None:
        """Continue there, which is no compressed file's beginning."""
        self.seek(offset)
        if COMPRESSED.match(self.read(BLOCK)):
            raise ValueError("compressed, a shard is a plain tar")
        self.seek(offset)


def image_offsets(path: Path) -> Iterator[int]:
    """Yield where in a shard each image's header begins, seeking over what lies between.

    Raises:
        InputError: as `count_images`, as soon as it is found out.
    """
    try:
        with ShardFile(path) as file:
            file.go_to(0)
            tar = tarfile.open(fileobj=file, mode="r:")
            while (member := tar.next()) is not None:
                tar.members.clear()  # else it keeps them all
                if not 0 <= member.size <= MAX_MEMBER:
                    raise ValueError(f"a member of {member.size} bytes")
                if member.isdir() or not file.next_member(member.name):
                    continue
                if not member.isreg():
                    raise ValueError(f"{member.name!r} is a link or device")
                yield member.offset
            # tarfile takes a damaged header, too, for the end.
            file.seek(tar.offset)
            if file.read(BLOCK) != bytes(BLOCK):
                raise ValueError("cut short or damaged")
    except Exception as error:  # tarfile raises whatever a damaged file makes it
        raise unusable(path, error) from None


def unusable(path: Path, error: Exception) -> InputError:
    """Return the complaint about a shard."""
    if isinstance(error, OSError):
        return InputError(f"{path}: {error.strerror or type(error).__name__}")
    # WebDataset appends where it was, after a "@" and as further arguments.
    words = str(error.args[0]).split(" @ ")[0] if error.args else ""
    said = reason(ValueError(words)) if words else type(error).__name__
    return InputError(f"{path}: unusable shard ({said})")


def images(shard: Shard, first: int, stop: int) -> Iterator[ShardImage]:
    """Yield a shard's images from place ``first`` to before ``stop``, in their order.

    Raises:
        InputError: as `count_images`, and if there turn out to be more or fewer than counted.
    """
    samples = read_samples(shard.path, first)
    for place in range(first, stop):
        sample = next(samples, None)
        if sample is None:
            raise InputError(f"{shard.path}: {place} images, {shard.count} were to be there")
        if place == shard.count - 1 and next(samples, None) is not None:
            raise InputError(f"{shard.path}: more images than the {shard.count} to be there")
        ((suffix, data),) = (f for f in sample.items() if f[0].lower() in SUFFIXES)
        name = printable(f"{sample['__key__']}.{suffix}")[:200].lstrip("/")
        yield ShardImage(shard.path / name, data)


def read_samples(path: Path, first: int) -> Iterator[dict]:
    """Yield WebDataset's samples of a shard, from an image on: a key and an image each."""
    check_is_file(path, "no such shard")
    offset = next(islice(image_offsets(path), first, None), None)
    if offset is None:
        return
    try:
        with ShardFile(path) as file:
            file.go_to(offset)
            # Not tarfile_to_samples, which opens what its names say: see `local_file`.
            yield from webdataset.DataPipeline(
                webdataset.SimpleShardList([str(path)]),
                lambda sources: ({**source, "stream": file} for source in sources),
                partial(tar_file_expander, select_files=file.next_member),
                partial(group_by_keys, lcase=False),
            )
    except Exception as error:  # as above
        raise unusable(path, error) from None
