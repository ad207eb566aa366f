"""Where the features of frozen images are kept: on the GPU, in memory or on disk.

On disk a set of features is a folder ``features-{key}`` of NumPy files. The key is a hash of all
that the features depend on, so a folder is either right or not looked at; it gets its name when it
is complete. Letters: M images; C channels, h and w rows and columns of a map.
"""

import argparse
import math
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from utils.arguments import allow_change, positive_float
from utils.collectives import broadcast_from_first
from utils.errors import InputError
from utils.files import synced
from utils.locks import find_or_build
from utils.log import RunLog, Stopwatch
from utils.process_group import world_size

MEMORY_FRACTION = 0.5  # of what is free may hold features, where --cache_gb doesn't say
DISK_FRACTION = 0.9  # of what is free may be filled where memory is too small
Shapes = list[tuple[int, ...]]
Batches = Iterable[Sequence[Tensor]]


def add_feature_cache_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare where features are kept."""
    group = parser.add_argument_group("feature cache")
    group.add_argument(
        "--feature_cache",
        choices=["auto", "memory", "disk", "off"],
        default="auto",
        help="where the features of images that aren't warped are kept: auto takes the GPU or "
        "main memory where they fit and the disk where they don't, or where they are already; "
        "disk lets later runs on the same encoder and images start at once; off encodes anew "
        "every epoch",
    )
    group.add_argument(
        "--cache_gb",
        type=positive_float,
        metavar="GB",
        help="memory, or memory of the GPU, that features may take; half of what is free if not "
        "given",
    )
    group.add_argument(
        "--cache_folder",
        type=Path,
        metavar="DIR",
        help="holds features on disk; {model_path}_cache if not given. Can be deleted at any time",
    )
    allow_change("feature_cache", "cache_gb", "cache_folder")


class FeatureCache:
    """The place of a run's features.

    Args:
        mode: ``auto``, ``memory``, ``disk`` or ``off``.
        folder: of the features on disk; made when it is needed.
        gigabytes: memory that all data sets of the run may take; None for half of what is free.
        device: of the encoder.
    """

    def __init__(
        self, mode: str, folder: Path, gigabytes: float | None, device: torch.device
    ) -> None:
        self.mode, self.folder, self.device = mode, folder, device
        self.left = None if gigabytes is None else gigabytes * 1e9

    def keep(
        self, shapes: Shapes, batches: Batches, make_key: Callable[[], str], log: RunLog
    ) -> list[Tensor] | None:
        """Return features that were found on disk or are made, None where there is no room.

        Called in the first rank; the others wait to hear whether they are to help with the batches,
        which say so when they begin.

        Args:
            shapes: of the features' maps, float32, (M, h, w, C) each.
            batches: make them, some images at a time.
            make_key: names them on disk; called only where they may be there, since it reads all
                images.
            log: receives where they are.
        """
        needed, watch = 4 * sum(map(math.prod, shapes)), Stopwatch()
        what = f"features of {shapes[0][0]} images, {in_bytes(needed)}"
        place, path, find = self.place(needed), Path(), partial(read_features, shapes)
        if place == "disk" or (self.mode == "auto" and any(self.folder.glob("features-*"))):
            path = self.folder / f"features-{make_key()}"
            place = place if find(path) is None else "disk"
        stored, is_made = None, place is not None
        if place == "disk":
            find, write = partial(find, path), partial(write_features, shapes, batches)
            stored, is_made = find_or_build(path, "features", needed, find, write, log.line)
        elif place is not None:
            stored = self.hold(shapes, batches, place)
        if is_made:
            where = f"on disk, in {self.folder}" if place == "disk" else f"in memory ({place})"
            log.line(f"{what}: encoded in {watch.seconds():.1f} s, kept {where}")
            return stored
        broadcast_from_first(lambda: False)
        if stored is not None:
            log.line(f"{what}: found in {self.folder}")
        elif self.mode != "off" or world_size() > 1:
            why = "" if self.mode == "off" else "more than memory and disk have room for; "
            alone = " by the first process alone" if world_size() > 1 else ""
            log.line(f"{what}: {why}encoded anew each epoch{alone}")
        return stored

    def place(self, needed: int) -> str | None:
        """Return where so many bytes go: a device's type, ``disk`` or None for nowhere.

        Raises:
            InputError: if ``memory`` was asked for and they don't fit there.
        """
        if self.mode in ("off", "disk"):
            return None if self.mode == "off" else "disk"
        # On a GPU without room, main memory comes next; a budget is one for both.
        for kind in dict.fromkeys([self.device.type, "cpu"]):
            if needed <= self.room(kind):
                return kind
        if self.mode == "memory":
            raise InputError(
                f"--feature_cache memory: the features take {in_bytes(needed)}, "
                f"{in_bytes(self.room('cpu'))} may be used (--cache_gb)"
            )
        return "disk" if needed <= DISK_FRACTION * free_disk(self.folder) else None

    def room(self, kind: str) -> float:
        """Return the bytes that features may take on a kind of device."""
        if self.left is not None:
            return self.left
        free = free_memory() if kind == "cpu" else torch.cuda.mem_get_info(self.device)[0]
        return MEMORY_FRACTION * free

    def hold(self, shapes: Shapes, batches: Batches, place: str) -> list[Tensor]:
        """Return features in the memory of a device's type; see `keep`."""
        device = torch.device("cpu") if place == "cpu" else self.device
        stored, first = [torch.empty(shape, device=device) for shape in shapes], 0
        if self.left is not None:
            self.left -= sum(part.nbytes for part in stored)
        for batch in batches:
            for tensor, part in zip(stored, batch, strict=True):
                tensor[first : first + len(part)] = part
            first += len(batch[0])
        return stored


def read_features(shapes: Shapes, folder: Path) -> list[Tensor] | None:
    """Return a folder's features, memory-mapped; None if it is absent or damaged."""
    try:
        # Copy-on-write: torch wants writable memory; the files are never written to.
        arrays = [np.load(folder / f"map{i}.npy", mmap_mode="c") for i in range(len(shapes))]
        whole = [array.shape for array in arrays] == shapes
        return [torch.from_numpy(array) for array in arrays] if whole else None
    except (OSError, ValueError, AttributeError, EOFError):
        return None


def write_features(shapes: Shapes, batches: Batches, folder: Path) -> None:
    """Write features, see `FeatureCache.keep`, so that they would outlive a power cut."""
    # Not by way of memory maps: on a full disk, writing into one ends the process.
    with ExitStack() as stack:
        paths = [folder / f"map{place}.npy" for place in range(len(shapes))]
        files = [stack.enter_context(synced(path)) for path in paths]
        for file, shape in zip(files, shapes, strict=True):
            header = {"descr": "<f4", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
        for batch in batches:
            for file, part in zip(files, batch, strict=True):
                file.write(part.contiguous().numpy(force=True).data)


def in_bytes(count: float) -> str:
    """Return bytes in words."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def free_memory() -> int:
    """Return the bytes of main memory that nothing uses."""
    try:
        with open("/proc/meminfo") as file:
            fields = dict(line.split(":") for line in file)
        return int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def free_disk(folder: Path) -> int:
    """Return the free bytes of the disk that a folder, made or not, is on."""
    paths = (folder.absolute(), *folder.absolute().parents)
    return shutil.disk_usage(next(path for path in paths if path.exists())).free
