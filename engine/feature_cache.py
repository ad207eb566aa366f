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
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from data_loader.landmark_dataset import LandmarkDataset
from utils.arguments import allow_change, positive_float
from utils.errors import InputError
from utils.files import fsync
from utils.locks import find_or_build

FORMAT = 2  # raised when files of an earlier version wouldn't fit any more
MEMORY_FRACTION = 0.5  # of what is free may hold features, where --cache_gb doesn't say
DISK_FRACTION = 0.9  # of what is free may be filled
SUMMARY = "summary.json"


def add_feature_cache_arguments(
    parser: argparse.ArgumentParser,
) -> argparse._ArgumentGroup:
    """Declare where features are kept; return the group."""
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
    return group


class Stored(NamedTuple):
    """The features of N images, and what else their items hold.

    ``maps`` are (N, h, w, C), channels last, deepest first; ``points`` (N, A, 2) in [-1, 1];
    ``visible`` (N, A), bool.
    """

    maps: list[Tensor]
    points: Tensor
    visible: Tensor


class Storage:
    """Tensors in memory that features are written into: map0, map1, …, points and visible.

    Args:
        device: of the maps; points and visible stay on the CPU.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.tensors: dict[str, Tensor] = {}

    def allocate(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        """Make an uninitialised tensor."""
        device = self.device if name.startswith("map") else torch.device("cpu")
        self.tensors[name] = torch.empty(shape, dtype=dtype, device=device)

    def commit(self) -> Stored:
        """Return the tensors, which are full now."""
        return in_order(self.tensors)


class DiskStorage(Storage):
    """Tensors that are NumPy files of a folder, mapped into memory.

    Args:
        folder: exists and is empty.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(torch.device("cpu"))
        self.folder = folder
        self.files: dict[str, np.memmap] = {}

    def allocate(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        """Make a file and set its bytes aside."""
        path, numpy_dtype = self.folder / f"{name}.npy", torch.empty(0, dtype=dtype).numpy().dtype
        self.files[name] = np.lib.format.open_memmap(path, "w+", numpy_dtype, shape)
        # Writing into a mapped file's hole would end the process when the disk is full.
        reserve(path)
        self.tensors[name] = torch.from_numpy(self.files[name])

    def commit(self) -> Stored:
        """Wait until the files would outlive a power cut, and add their summary."""
        for name, array in self.files.items():
            array.flush()
            with (self.folder / f"{name}.npy").open("rb") as file:
                fsync(file)
        with (self.folder / SUMMARY).open("wb") as file:
            shapes = {name: list(array.shape) for name, array in self.files.items()}
            file.write(json.dumps(shapes).encode())
            fsync(file)
        return super().commit()


def in_order(tensors: dict[str, Tensor]) -> Stored:
    """Return tensors by their names in a `Storage`."""
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
        return MEMORY_FRACTION * (free_memory() if kind == "cpu" else free_gpu_memory(self.device))

    def may_hold(self) -> bool:
        """Tell whether features could lie on disk already."""
        return self.mode == "disk" or (
            self.mode == "auto" and any(self.folder.glob("features-*/" + SUMMARY))
        )

    def find(self, key: str) -> Stored | None:
        """Return complete features of this key, memory-mapped, or None."""
        path = self.folder / f"features-{key}"
        try:
            shapes = json.loads((path / SUMMARY).read_text())
            # Copy-on-write: torch wants writable memory; the files are never written to.
            arrays = {name: np.load(path / f"{name}.npy", mmap_mode="c") for name in shapes}
            if any(list(arrays[name].shape) != shape for name, shape in shapes.items()):
                return None
            return in_order({name: torch.from_numpy(array) for name, array in arrays.items()})
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def keep(
        self, place: str, needed: int, key: str, encode_into: Callable[[Storage], None]
    ) -> tuple[Stored, bool]:
        """Return features, and whether they were encoded: another run may have been quicker.

        Args:
            place: a device's type or ``disk``, as `place` returned it.
            needed: bytes of the features.
            key: of the features on disk.
            encode_into: allocates the tensors of a storage and fills them.

        Raises:
            InputError: if the folder can't be written, or is full.
        """
        if place != "disk":
            storage = Storage(self.device if place != "cpu" else torch.device("cpu"))
            encode_into(storage)
            if self.left is not None:
                self.left -= needed
            return storage.commit(), True

        def write(folder: Path) -> None:
            storage = DiskStorage(folder)
            encode_into(storage)
            storage.commit()

        path = self.folder / f"features-{key}"
        return find_or_build(path, "features", needed, lambda: self.find(key), write)


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
    """Have the file system set all of a file's bytes aside.

    Raises:
        OSError: if it has no room for them.
    """
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


def free_gpu_memory(device: torch.device) -> int:
    """Return the bytes of a GPU's memory that nothing uses."""
    return torch.cuda.mem_get_info(device)[0]


def free_disk(folder: Path) -> int:
    """Return the free bytes of the disk that a folder, made or not, is on."""
    existing = next(
        path for path in (folder.absolute(), *folder.absolute().parents) if path.exists()
    )
    return shutil.disk_usage(existing).free
