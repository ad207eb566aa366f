"""Where the features of frozen images are kept: on the GPU, in memory or on disk.

On disk a set of features is a folder ``features-{key}`` of NumPy files. The key is a hash of all
that the features depend on, so a folder is either right or not looked at; it gets its name when it
is complete. Letters: N images.
"""

import argparse
import errno
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from data_loader.landmark_dataset import LandmarkDataset
from utils.arguments import allow_change, positive_float
from utils.errors import InputError
from utils.files import fsync

FORMAT = 2  # raised when files of an earlier version wouldn't fit any more
MEMORY_FRACTION = 0.5  # of what is free may hold features, where --cache_gb doesn't say
DISK_FRACTION = 0.9  # of what is free may be filled
SUMMARY = "summary.json"


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


class Stored(NamedTuple):
    """The features of N images, and what else their items hold.

    ``maps`` are (N, h, w, C), channels last, deepest first; ``points`` (N, A, 2) in [-1, 1];
    ``visible`` (N, A), bool.
    """

    maps: list[Tensor]
    points: Tensor
    visible: Tensor


Arrays = dict[str, np.memmap]  # by file name: map0, map1, ..., points and visible


def allocate_files(folder: Path, like: Stored) -> Arrays:
    """Make NumPy files of the shapes and types of features in a folder, mapped into memory."""
    arrays: Arrays = {}
    maps = {f"map{i}": level for i, level in enumerate(like.maps)}
    for name, tensor in {**maps, "points": like.points, "visible": like.visible}.items():
        path, dtype = folder / f"{name}.npy", torch.empty(0, dtype=tensor.dtype).numpy().dtype
        arrays[name] = np.lib.format.open_memmap(path, "w+", dtype, tuple(tensor.shape))
        # Writing into a mapped file's hole would end the process when the disk is full.
        reserve(path)
    return arrays


def commit_files(folder: Path, arrays: Arrays) -> None:
    """Wait until full files would outlive a power cut, and add their summary."""
    for name, array in arrays.items():
        array.flush()
        with (folder / f"{name}.npy").open("rb") as file:
            fsync(file)
    with (folder / SUMMARY).open("wb") as file:
        file.write(json.dumps({name: list(a.shape) for name, a in arrays.items()}).encode())
        fsync(file)


def as_stored(arrays: Arrays) -> Stored:
    """Return mapped files as features that share their memory."""
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    maps = [tensors[f"map{i}"] for i in range(len(tensors) - 2)]
    return Stored(maps, tensors["points"], tensors["visible"])


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

    def place(self, needed: int) -> str | None:
        """Return where so many bytes go: a device's type, ``disk`` or None for nowhere.

        Raises:
            InputError: if ``memory`` or ``disk`` was asked for and they don't fit there.
        """
        if self.mode == "off":
            return None
        if self.mode != "disk":
            # On a GPU without room, main memory comes next; a budget is one for both.
            for kind in dict.fromkeys([self.device.type, "cpu"]):
                if needed <= self.room(kind):
                    return kind
        free = free_disk(self.folder)
        if self.mode == "memory":
            raise InputError(
                f"--feature_cache memory: the features take {in_bytes(needed)}, "
                f"{in_bytes(self.room('cpu'))} may be used (--cache_gb)"
            )
        if needed <= DISK_FRACTION * free:
            return "disk"
        if self.mode == "disk":
            raise InputError(
                f"{self.folder}: the features take {in_bytes(needed)}, {in_bytes(free)} are free"
            )
        return None

    def room(self, kind: str) -> float:
        """Return the bytes that features may take on a kind of device."""
        if self.left is not None:
            return self.left
        free = free_memory() if kind == "cpu" else torch.cuda.mem_get_info(self.device)[0]
        return MEMORY_FRACTION * free

    def may_hold(self) -> bool:
        """Tell whether features could lie on disk already."""
        return self.mode == "disk" or (
            self.mode == "auto" and any(self.folder.glob("features-*/" + SUMMARY))
        )

    def allocate(self, like: Stored, needed: int, place: str) -> Stored:
        """Return tensors to be filled, the maps in a device's memory, and count their bytes."""
        if self.left is not None:
            self.left -= needed
        device = torch.device("cpu") if place == "cpu" else self.device
        maps = [torch.empty_like(level, device=device) for level in like.maps]
        points, visible = (torch.empty_like(part, device="cpu") for part in like[1:])
        return Stored(maps, points, visible)

    def find(self, key: str) -> Stored | None:
        """Return complete features of this key, memory-mapped, or None."""
        path = self.folder / f"features-{key}"
        try:
            shapes = json.loads((path / SUMMARY).read_text())
            # Copy-on-write: torch wants writable memory; the files are never written to.
            arrays = {name: np.load(path / f"{name}.npy", mmap_mode="c") for name in shapes}
            if any(list(arrays[name].shape) != shape for name, shape in shapes.items()):
                return None
            return as_stored(arrays)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None


def features_key(
    dataset: LandmarkDataset, chosen: Sequence[int], encoder_digest: str, **how: object
) -> str:
    """Return a hash of all that features depend on.

    The images count by their files' content: reading them costs far less than encoding them,
    and an image that changed under its old name, size or date is noticed.

    Args:
        dataset: unwarped images; their names, annotations and frame count too.
        chosen: the places of those that are encoded.
        encoder_digest: of the encoder's weights.
        how: whatever else the encoding depends on.
    """
    facts = {
        "format": FORMAT,
        "torch": torch.__version__,
        "encoder": encoder_digest,
        "class": type(dataset).__qualname__,
        "imwidth": dataset.imwidth,
        "crop": dataset.crop,
        "colours": [dataset.mean, dataset.std],
        **how,
    }

    def content(path: Path) -> bytes:
        try:
            return path.read_bytes()
        except OSError as error:
            raise InputError(f"{path}: {error.strerror}") from None

    return dataset.digest(sorted(facts.items()), chosen, content)[:32]


def reserve(path: Path) -> None:
    """Have the file system set all of a file's bytes aside, or raise an `OSError`."""
    if not hasattr(os, "posix_fallocate"):
        return
    with path.open("r+b") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise  # any other error says that this file system can't do it


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
    existing = next(
        path for path in (folder.absolute(), *folder.absolute().parents) if path.exists()
    )
    return shutil.disk_usage(existing).free
