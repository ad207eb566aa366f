"""Where the features of frozen images are kept: on the GPU, in memory or on disk.

On disk a set of features is a folder ``features-{key}`` of NumPy files. The key is a hash of all
that the features depend on, so a folder is either right or not looked at; it gets its name when it
is complete.
"""

import argparse
import json
import os
import shutil
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch

from data_loader.landmark_dataset import LandmarkDataset
from engine.features.images import Encoding, Stored
from models.timm_encoder import timm_encoders
from utils.arguments import allow_change, positive_float
from utils.errors import InputError
from utils.files import synced

FORMAT = 2  # raised when files of an earlier version wouldn't fit any more
MEMORY_FRACTION = 0.5  # of what is free may hold features, where --cache_gb doesn't say
DISK_FRACTION = 0.9  # of what is free may be filled where memory is too small
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

    def may_hold(self) -> bool:
        """Tell whether features could lie on disk already."""
        return self.mode == "disk" or (
            self.mode == "auto" and any(self.folder.glob("features-*/" + SUMMARY))
        )

    def hold(self, like: Stored, batches: Iterable[Stored], place: str) -> Stored:
        """Return features, given batch by batch, in the memory of a device's type.

        ``like`` has their shapes and types.
        """
        device = torch.device("cpu") if place == "cpu" else self.device
        stored, first = [torch.empty_like(part, device=device) for part in like], 0
        if self.left is not None:
            self.left -= sum(part.nbytes for part in stored)
        for batch in batches:
            for tensor, part in zip(stored, batch, strict=True):
                tensor[first : first + len(part)] = part
            first += len(batch[0])
        return stored


def read_features(folder: Path) -> Stored | None:
    """Return a folder's features, memory-mapped; None if it is absent or damaged."""
    try:
        shapes = json.loads((folder / SUMMARY).read_text())
        # Copy-on-write: torch wants writable memory; the files are never written to.
        arrays = [np.load(folder / f"{name}.npy", mmap_mode="c") for name in shapes]
        whole = [list(array.shape) for array in arrays] == list(shapes.values())
        return [torch.from_numpy(array) for array in arrays] if whole else None
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def write_features(like: Stored, batches: Iterable[Stored], folder: Path) -> None:
    """Write features, given as to `FeatureCache.hold`, so that they would outlive a power cut."""
    names = [*(f"map{place}" for place in range(len(like) - 2)), "points", "visible"]
    # Not by way of memory maps: on a full disk, writing into one ends the process.
    with ExitStack() as stack:
        files = [stack.enter_context(synced(folder / f"{name}.npy")) for name in names]
        for file, part in zip(files, like, strict=True):
            dtype = np.lib.format.dtype_to_descr(torch.empty(0, dtype=part.dtype).numpy().dtype)
            header = {"descr": dtype, "fortran_order": False, "shape": tuple(part.shape)}
            np.lib.format.write_array_header_1_0(file, header)
        for batch in batches:
            for file, part in zip(files, batch, strict=True):
                file.write(part.contiguous().numpy(force=True).data)
    shapes = {name: list(part.shape) for name, part in zip(names, like, strict=True)}
    with synced(folder / SUMMARY) as file:
        file.write(json.dumps(shapes).encode())


def features_key(dataset: LandmarkDataset, chosen: Sequence[int], encoding: Encoding) -> str:
    """Return a hash of all that features depend on.

    The images count by their files' content: reading them costs far less than encoding them,
    and an image that changed under its old name, size or date is noticed.

    Args:
        dataset: unwarped images; their names, annotations and frame count too.
        chosen: the places of those that are encoded.
        encoding: makes the features.
    """
    numbers, shape = encoding.levels
    facts: dict[str, object] = {
        "format": FORMAT,
        "torch": torch.__version__,
        "device": encoding.device.type,
        "encoder": encoding.digest,
        # As the flags say it, by which features on disk have always been found.
        "layer": numbers[0] if shape is None else len(numbers),
        "use_hypercol": shape is not None,
        "class": type(dataset).__qualname__,
        "imwidth": dataset.imwidth,
        "crop": dataset.crop,
        "colours": [dataset.mean, dataset.std],
    }
    for network in timm_encoders(encoding.encoder):
        facts["timm"] = network.version

    def content(path: Path) -> bytes:
        try:
            return path.read_bytes()
        except OSError as error:
            raise InputError(f"{path}: {error.strerror}") from None

    return dataset.digest(sorted(facts.items()), chosen, content)[:32]


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
