"""The decoded squares of a data set in one file, read by all worker processes and later runs.

A folder ``images-KEY`` holds ``images.npy`` (N, S, S, 3), uint8, mapped into memory, and
``manifest.json``, which lists images that couldn't be read (`bad_images`), whose rows are zeros. It
is written elsewhere and renamed when whole. The key changes with all that the squares depend on, so
an old cache is never taken for a new one, and any of these folders may be deleted.

Letters: N images, S the side of a square.
"""

import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import PIL
import torch
from torch import Tensor

from data_loader.bad_images import check_few, reason_of
from data_loader.loaders import read_all
from data_loader.named_images import NamedImages
from utils.errors import ImageError
from utils.files import synced
from utils.locks import find_or_build
from utils.log import Stopwatch

FORMAT = 2  # to be raised when an image's square comes out otherwise, or the files do
IMAGES, MANIFEST = "images.npy", "manifest.json"


class ImageCache:
    """The squares (N, S, S, 3) in a folder; a copy in another process maps the same memory.

    ``bad`` maps the places of images that couldn't be read to the reason.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # As a plain array: indexing NumPy's memmap class takes longer.
        self.images = np.asarray(np.load(folder / IMAGES, mmap_mode="r"))
        noted = json.loads((folder / MANIFEST).read_text())
        self.bad = {int(place): reason for place, reason in noted.get("bad", {}).items()}

    def __reduce__(self) -> tuple:
        return ImageCache, (self.folder,)  # else the images would be pickled


def marked_square(dataset: NamedImages, index: int) -> tuple[Tensor, str]:
    """Return a square (S, S, 3), uint8, and why its image can't be read: "" if it can.

    A bad image raises, or is zeros if the data set skips them.
    """
    try:
        return torch.from_numpy(np.array(dataset.pixels(index))), ""
    except ImageError as error:
        dataset.forgive(error)
        blank = torch.zeros(dataset.imwidth, dataset.imwidth, 3, dtype=torch.uint8)
        return blank, reason_of(error, dataset, index)


def cache_images(
    dataset: NamedImages, folder: Path, num_workers: int, log_line: Callable[[str], None] = print
) -> str:
    """Let a data set read its squares from a cache, built if need be; return a line for the log.

    Args:
        dataset: its `pixels` reads the cache from now on, until `select` picks other images.
        folder: of all caches.
        num_workers: see `read_all`.
        log_line: logs, at once, that another run is building this cache.

    Raises:
        InputError: if an image can't be read (more of them than `allowed` if the data set skips
            bad ones), or the folder can't be written or is too small; nothing but a lock file is
            left there then.
    """
    dataset.image_cache = None
    path, watch = folder / f"images-{cache_key(dataset)}", Stopwatch()
    dataset.image_cache, built = find_or_build(
        path,
        "the image cache",
        len(dataset) * dataset.imwidth**2 * 3,
        lambda: open_cache(path, dataset),
        partial(write_cache, dataset, num_workers),
        log_line,
    )
    size, bad = dataset.image_cache.images.nbytes / 1e9, len(dataset.image_cache.bad)
    how, took = ("built", f", in {watch.seconds():.0f} s") if built else ("found", "")
    unread = f" ({bad:,} can't be read)" if bad else ""
    return f"image cache: {how} {len(dataset):,} images{unread}, {size:.1f} GB{took}: {path}"


def cache_key(dataset: NamedImages) -> str:
    """Return a name for all that the squares of a data set depend on.

    Of an image that is its place, size and time of change: reading 200,000 images to digest
    their content would take as long as building the cache.
    """

    def size_and_time(path: Path) -> bytes:
        try:
            file = os.stat(path)
        except OSError:
            dataset.forgive(ImageError(f"{path}: no such image"))
            return b"absent"
        return f"{file.st_size} {file.st_mtime_ns}".encode()

    facts = [FORMAT, PIL.__version__, type(dataset).__name__, dataset.split_name, dataset.imwidth]
    facts.append(str(dataset.folder.resolve()))
    return dataset.digest(facts, describe_file=size_and_time)[:20]


def open_cache(path: Path, dataset: NamedImages) -> ImageCache | None:
    """Return the cache in a folder; None if it is absent, damaged or of other images."""
    try:
        cache = ImageCache(path)
    except Exception:  # NumPy raises whatever a damaged file makes it
        return None
    fits = cache.images.shape == (len(dataset), dataset.imwidth, dataset.imwidth, 3)
    return cache if fits and cache.images.dtype == np.uint8 else None


def write_cache(dataset: NamedImages, num_workers: int, folder: Path) -> None:
    """Write the squares in their order, however many processes decode, and the manifest."""
    batches = read_all(dataset, partial(marked_square, dataset), num_workers, "image cache")
    shape = (len(dataset), dataset.imwidth, dataset.imwidth, 3)
    bad: dict[int, str] = {}
    # Not by way of a memory map: on a full disk, writing into one ends the process.
    with synced(folder / IMAGES) as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        first = 0  # place of a batch
        for images, reasons in batches:
            file.write(images.numpy().data)
            bad |= {place: reason for place, reason in enumerate(reasons, first) if reason}
            check_few([f"{dataset.path(place)}: {bad[place]}" for place in bad], len(dataset))
            first += len(images)
    with synced(folder / MANIFEST) as file:
        file.write(json.dumps({"bad": bad}).encode())
