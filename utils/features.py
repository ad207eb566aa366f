"""Features of a data set: encoded once and stored where they fit, else batch by batch.

Letters: N pictures, B of a batch, A landmarks.
"""

import os
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from data_loader.landmark_dataset import LandmarkDataset
from data_loader.loaders import build_loader
from models.encoders import Features, as_maps, encode
from utils.log import RunLog, Stopwatch, progress

MEMORY_SHARE = 0.5  # of what is free may hold features

# What a regressor is trained and tested on: features, points (B, A, 2) in [-1, 1], and what
# stands second in an item.
Batch = tuple[Features, Tensor, Tensor]


class EncodedImages:
    """The pictures of a loader as batches of features on the encoder's device.

    Args:
        encoder: frozen.
        loader: yields a data set's items.
        layer: see `models.resnet`.
        use_hypercol: see `models.resnet`.
        device: of the encoder.
        stored: encode all pictures now, in the data set's order, and keep the features.
    """

    def __init__(
        self,
        encoder: nn.Module,
        loader: DataLoader,
        layer: int,
        use_hypercol: bool,
        device: torch.device,
        stored: bool,
    ) -> None:
        self.encoder, self.loader, self.device = encoder, loader, device
        self.layer, self.use_hypercol = layer, use_hypercol
        self.maps: list[Tensor] | None = None
        self.is_dense = False
        if stored:
            self._store()

    def __len__(self) -> int:
        return len(self.loader)

    def batches(self, epoch: int) -> Iterator[Batch]:
        """Yield the batches of an epoch, in the order of the loader's sampler."""
        self.loader.sampler.set_epoch(epoch)
        if self.maps is None:
            for features, points, second, _ in self._encoded():
                yield features, points.to(self.device), second.to(self.device)
            return
        order = torch.tensor([index for index, _ in self.loader.sampler])
        for rows in order.split(self.loader.batch_size):
            maps = tuple(m[rows].to(self.device).permute(0, 3, 1, 2) for m in self.maps)
            features = maps[0] if self.is_dense else maps
            yield features, self.points[rows].to(self.device), self.second[rows].to(self.device)

    def _encoded(self) -> Iterator[tuple[Features, Tensor, Tensor, Tensor]]:
        """Yield features, points, seconds and places; all but the features as they were loaded."""
        for images, second, points, indices in self.loader:
            images = images.to(self.device, non_blocking=True)  # (B, 3, H, W)
            features = encode(self.encoder, images, self.layer, self.use_hypercol)
            yield features, points, second, indices

    def _store(self) -> None:
        count = len(self.loader.sampler)
        batches = progress(self._encoded(), "encoding", total=len(self.loader))
        for features, points, second, indices in batches:
            if self.maps is None:
                self.is_dense = isinstance(features, Tensor)
                # Channels last, as the regressor's products want them: (N, h, w, C).
                shapes = [m.permute(0, 2, 3, 1).shape[1:] for m in as_maps(features)]
                self.maps = [torch.empty(count, *shape) for shape in shapes]
                self.points = points.new_empty(count, *points.shape[1:])
                self.second = second.new_empty(count, *second.shape[1:])
            for stored, m in zip(self.maps, as_maps(features), strict=True):
                stored[indices] = m.permute(0, 2, 3, 1).cpu()
            self.points[indices], self.second[indices] = points, second

    def annotations(self) -> tuple[Tensor, Tensor]:
        """Return the unwarped points (N, A, 2) and what stands second, for all pictures."""
        if self.maps is not None:
            return self.points, self.second
        return self.loader.dataset.dataset.annotation_tensors()


def encode_dataset(
    encoder: nn.Module,
    dataset: LandmarkDataset,
    *,
    layer: int,
    use_hypercol: bool,
    batch_size: int,
    num_workers: int,
    seed: int,
    shuffle: bool,
    device: torch.device,
    log: RunLog,
) -> EncodedImages:
    """Return a data set as batches of features; stored if they are always the same and fit.

    Pictures that are warped at random, and features that take more than half of the free memory,
    are encoded anew each epoch.
    """
    loader = build_loader(
        dataset,
        batch_size=batch_size,
        num_workers=num_workers,
        seed=seed,
        shuffle=shuffle,
        device=device,
    )
    needed = len(dataset) * feature_bytes(encoder, dataset.side, layer, use_hypercol)
    stored = dataset.warper is None and needed < MEMORY_SHARE * free_memory()
    watch = Stopwatch()
    images = EncodedImages(encoder, loader, layer, use_hypercol, device, stored)
    if stored:
        log.line(
            f"{len(dataset)} pictures encoded in {watch.seconds():.0f} s, "
            f"their features take {needed / 1e6:.0f} MB of memory"
        )
    elif dataset.warper is None:
        log.line(
            f"the features of {len(dataset)} pictures would take {needed / 1e9:.1f} GB: "
            "encoded anew each epoch"
        )
    return images


def feature_bytes(encoder: nn.Module, side: int, layer: int, use_hypercol: bool) -> int:
    """Return the bytes of one picture's features; encodes a blank one."""
    device = next(encoder.parameters()).device
    blank = torch.zeros(1, 3, side, side, device=device)
    return sum(m.nbytes for m in as_maps(encode(encoder, blank, layer, use_hypercol)))


def free_memory() -> int:
    """Return the bytes of main memory that nothing uses."""
    try:
        with open("/proc/meminfo") as file:
            fields = dict(line.split(":") for line in file)
        return int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
