"""Features of a data set, batch by batch: kept, made anew each epoch, or of warped images.

All three kinds have the same members: ``len(images)`` batches an epoch, ``images.batches(epoch)``,
``images.order(epoch)`` and ``images.annotations()``. Letters: N images, M distinct ones among
them, B of a batch, A landmarks.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

from data_loader.geometry import normalize_points
from data_loader.items import Items
from data_loader.landmark_dataset import LandmarkDataset
from data_loader.loaders import SeededSampler, available_cores, seeded, set_epoch
from models.encoders import Levels, encode
from utils.log import progress
from utils.tps import WarperSingle


class Batch(NamedTuple):
    """What a regressor is trained and tested on.

    Args:
        features: of B images, maps (B, C, h, w), deepest first.
        points: (B, A, 2), in [-1, 1].
        visible: (B, A), bool; False where a landmark isn't annotated.
    """

    features: list[Tensor]
    points: Tensor
    visible: Tensor


@dataclass(frozen=True)
class Encoding:
    """A frozen encoder in eval mode, the digest of its weights, and which maps are wanted.

    Of an encoder that is still in training, these are the pixels, which depend on no weights.
    """

    encoder: nn.Module
    digest: str
    levels: Levels

    @property
    def device(self) -> torch.device:
        """Of the encoder."""
        return next(self.encoder.parameters()).device

    def __call__(self, images: Tensor) -> list[Tensor]:
        """Return the maps of images (B, 3, H, W), deepest first, on the encoder's device."""
        images = images.to(self.device, non_blocking=True)
        return encode(self.encoder, images, self.levels.numbers)


@dataclass(eq=False)
class SampledImages:
    """N images that a sampler picks by number, B at a time."""

    sampler: SeededSampler
    batch_size: int

    def __len__(self) -> int:
        return -(-len(self.sampler) // self.batch_size)

    def order(self, epoch: int) -> Tensor:
        """Return the places of an epoch's images in the data set, in their order, (N,)."""
        self.sampler.set_epoch(epoch)
        return self.sampler.keys()[0]

    def split(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield each batch's images (B,), and the seeds of their random samples (B,)."""
        self.sampler.set_epoch(epoch)
        order, seeds = self.sampler.keys()
        yield from zip(order.split(self.batch_size), seeds.split(self.batch_size), strict=True)


@dataclass(eq=False)
class StreamedImages(SampledImages):
    """The images of a loader with this order, encoded whenever they are asked for."""

    encoding: Encoding
    dataset: LandmarkDataset
    loader: DataLoader

    def batches(self, epoch: int) -> Iterator[Batch]:
        """Yield the batches of an epoch, in the order of the sampler."""
        set_epoch(self.loader, epoch)
        device = self.encoding.device
        for item in self.loader:
            features = self.encoding(item.image)
            yield Batch(features, item.points_norm.to(device), item.visible.to(device))

    def annotations(self) -> tuple[Tensor, Tensor]:
        """Return the unwarped points (N, A, 2) and which are annotated (N, A), for all images."""
        return self.dataset.annotation_tensors()


Stored = list[Tensor]
"""Of M images: their maps (M, h, w, C), channels last, as a regressor's products want them, deepest
first; then points (M, A, 2) in [-1, 1], and visible (M, A), bool."""


@dataclass(eq=False)
class StoredImages(SampledImages):
    """Images whose features are kept."""

    stored: Stored  # of M images
    rows: Tensor  # (N,), the one of them that each image of the data set is
    device: torch.device  # of the regressor

    def batches(self, epoch: int) -> Iterator[Batch]:
        """Yield the batches of an epoch, in the order of the sampler."""
        for indices, _ in self.split(epoch):
            rows = self.rows[indices]
            parts = [
                part[rows.to(part.device)].to(self.device, non_blocking=True)
                for part in self.stored
            ]
            maps = [level.permute(0, 3, 1, 2) for level in parts[:-2]]
            yield Batch(maps, *parts[-2:])

    def annotations(self) -> tuple[Tensor, Tensor]:
        """Return the points (N, A, 2) and which are annotated (N, A), for all images."""
        points, visible = (part.cpu()[self.rows] for part in self.stored[-2:])
        return points, visible


@dataclass(eq=False)
class WarpedImages(SampledImages):
    """Images warped anew each epoch, a batch at a time on the encoder's device.

    The random warps are those that the data set's own items would make. The images are read once,
    and held as they are before the warp.
    """

    encoding: Encoding
    dataset: LandmarkDataset
    warper: WarperSingle
    num_workers: int

    def __post_init__(self) -> None:
        chosen, self.rows = find_distinct(self.dataset)
        loader = DataLoader(
            Subset(Items(self.dataset, self.dataset.base_tensors), chosen),
            batch_size=None,
            num_workers=min(self.num_workers, available_cores()),
            generator=torch.Generator(),  # its own, not the training's
        )
        images, points = zip(*progress(loader, "reading"), strict=True)
        pixels = torch.stack(images).permute(0, 3, 1, 2)  # (M, 3, S, S) uint8
        self.images = pixels.contiguous().to(self.encoding.device)
        self.points_px = torch.stack(points)  # (M, A, 2) float64

    def batches(self, epoch: int) -> Iterator[Batch]:
        """Yield the batches of an epoch, in the order of the sampler."""
        device = self.encoding.device
        for indices, seeds in self.split(epoch):
            rows = self.rows[indices]
            weights = torch.stack([self._sample(seed) for seed in seeds.tolist()])  # (B, P + 3, 2)
            images, warped = self.warper.warp(
                self.images[rows.to(device)].float(),
                self.points_px[rows].numpy(),
                weights,
                self.dataset.crop,
            )
            images = self.dataset.normalize(images.to(torch.uint8).float() / 255)
            points_px = torch.as_tensor(warped, dtype=torch.float32)  # (B, A, 2)
            points = normalize_points(points_px, self.dataset.side)
            visible = torch.stack([self.dataset.visible(index) for index in indices.tolist()])
            yield Batch(self.encoding(images), points.to(device), visible.to(device))

    def _sample(self, seed: int) -> Tensor:
        with seeded(seed):
            return self.warper.sample()

    def annotations(self) -> tuple[Tensor, Tensor]:
        """Return the unwarped points (N, A, 2) and which are annotated (N, A), for all images."""
        return self.dataset.annotation_tensors()


EncodedImages = StreamedImages | StoredImages | WarpedImages


def find_distinct(dataset: LandmarkDataset) -> tuple[list[int], Tensor]:
    """Return the places of a data set's M distinct images, and which of them each one is, (N,).

    Images that are repeated for training on few annotations need to be encoded but once.
    """
    annotations = list(dataset.annotations.values())
    keys = [
        (filename, *(values[place].tobytes() for values in annotations))
        for place, filename in enumerate(dataset.filenames)
    ]
    first: dict[tuple, int] = {}
    for place, key in enumerate(keys):
        first.setdefault(key, place)
    rows = {key: row for row, key in enumerate(first)}
    return list(first.values()), torch.tensor([rows[key] for key in keys])
