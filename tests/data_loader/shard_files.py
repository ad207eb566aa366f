"""Small shards that tests write for themselves."""

import io
import json
import tarfile

import numpy as np
from PIL import Image


def image(number: int, size=(24, 20)) -> bytes:
    """Return the file of an image that tells its number, up to 16 million, by its colour."""
    colour = (number & 255, number >> 8 & 255, number >> 16)
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, format="PNG")
    return buffer.getvalue()


def number_of(image) -> int:
    """Return an image's number; array or tensor (3, H, W)."""
    return sum(int(v) << 8 * i for i, v in enumerate(np.asarray(image)[:, 0, 0]))


def write_tar(path, members, **options):
    """Write a tar of (name or TarInfo, bytes); return its path."""
    with tarfile.open(path, "w", **options) as tar:
        for member, data in members:
            if isinstance(member, str):
                member = tarfile.TarInfo(member)
                member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def write_shards(folder, counts) -> str:
    """Write shards of so many numbered images, and labels beside them; return their pattern."""
    number = 0
    for i, count in enumerate(counts):
        members = []
        for _ in range(count):
            members += [(f"{number:06}.jpg", image(number)), (f"{number:06}.cls", b"3")]
            number += 1
        write_tar(folder / f"birds-{i:03}.tar", members)
    return str(folder / f"birds-{{000..{len(counts) - 1:03}}}.tar")


def write_index(path, *entries):
    """Write an index of (url, nsamples) as WebDataset's tool does; return its path as a string."""
    shardlist = [
        {"url": url, "md5sum": "0" * 32, "nsamples": count, "filesize": 10240}
        for url, count in entries
    ]
    index = {"__kind__": "wids-shard-index-v1", "wids_version": 1, "name": "x"}
    path.write_text(json.dumps(index | {"shardlist": shardlist}))
    return str(path)
