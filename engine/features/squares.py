"""Annotated images before any view is cut from them, and the network's inputs made of these.

Letters: N images, B of a batch, A landmarks, S the side of a square, W that of the network input.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from data_loader.geometry import centre_crop, normalize_points
from data_loader.items import Items
from data_loader.landmark_dataset import LandmarkDataset
from data_loader.loaders import BATCH, available_cores, persistent_loader, seeded
from utils.log import progress

KEPT_BYTES = 1 << 30  # of squares that stay in memory; more are read whenever they are needed


class Batch(NamedTuple):
    """What a readout is trained and tested on.

    Args:
        features: of B images, maps (B, C, h, w), deepest first.
        points: (B, A, 2), in [-1, 1].
        visible: (B, A), bool; False where a landmark isn't annotated.
    """

    features: list[Tensor]
    points: Tensor
    visible: Tensor


class Squares(NamedTuple):
    """B images as squares.

    Args:
        images: (B, 3, S, S), uint8.
        points_px: (B, A, 2), float64, in pixels of the squares.
        visible: (B, A), bool; False where a landmark isn't annotated.
    """

    images: Tensor
    points_px: Tensor
    visible: Tensor


class AnnotatedSquares:
    """The N squares of a data set, to be asked for by number; at most 1 GiB of them stay in memory.

    Args:
        dataset: annotated.
        num_workers: processes that read, at most one a core.
    """

    def __init__(self, dataset: LandmarkDataset, num_workers: int) -> None:
        self.dataset, self.num_workers = dataset, min(num_workers, available_cores())
        chosen, self.rows = find_distinct(dataset)
        self.kept: Squares | None = None
        if len(chosen) * 3 * dataset.imwidth**2 <= KEPT_BYTES:
            parts = self._read(torch.tensor(chosen).split(BATCH))
            self.kept = Squares(*map(torch.cat, zip(*progress(parts, "reading"), strict=True)))

    def __len__(self) -> int:
        return len(self.dataset)

    def batches(self, numbers: Sequence[Tensor]) -> Iterator[Squares]:
        """Yield the squares of each batch's numbers, (B,) int64."""
        if self.kept is None:
            yield from self._read(numbers)
            return
        for places in numbers:
            yield Squares(*(values[self.rows[places]] for values in self.kept))

    def _read(self, numbers: Sequence[Tensor]) -> Iterator[Squares]:
        items = Items(self.dataset, self.dataset.base_tensors)
        batches = [places.tolist() for places in numbers]
        cpu = torch.device("cpu")
        loader = persistent_loader(items, self.num_workers, cpu, batch_sampler=batches)
        for places, (images, points_px) in zip(batches, loader, strict=True):
            visible = torch.stack([self.dataset.visible(place) for place in places])
            yield Squares(images.permute(0, 3, 1, 2).contiguous(), points_px, visible)

    def centres(self, numbers: Sequence[Tensor], device: torch.device) -> Iterator[Batch]:
        """Yield the network's inputs (B, 3, W, W), neither warped nor coloured, for each batch."""
        for images, points_px, visible in self.batches(numbers):
            cut = centre_crop(images.to(device), self.dataset.crop)
            yield self._input(cut, points_px - self.dataset.crop, visible)

    def warped(
        self, numbers: Sequence[Tensor], seeds: Sequence[Tensor], device: torch.device
    ) -> Iterator[Batch]:
        """Yield the same, warped as the data set's own items would be with these seeds, (B,) each.

        A batch is warped at a time, on the device.
        """
        warper = self.dataset.warper
        assert warper is not None
        warper.to(device)
        for (images, points_px, visible), own in zip(self.batches(numbers), seeds, strict=True):
            weights = []  # (P + 3, 2) each
            for seed in own.tolist():
                with seeded(seed):
                    weights.append(warper.sample())
            images = images.to(device).float()
            crop = self.dataset.crop
            cut, moved = warper.warp(images, points_px.numpy(), torch.stack(weights), crop)
            yield self._input(cut.to(torch.uint8), torch.from_numpy(moved), visible)

    def _input(self, pixels: Tensor, points_px: Tensor, visible: Tensor) -> Batch:
        points = normalize_points(points_px.float(), self.dataset.side).to(pixels.device)
        images = self.dataset.normalize(pixels.float() / 255)
        return Batch([images], points, visible.to(pixels.device))


def find_distinct(dataset: LandmarkDataset) -> tuple[list[int], Tensor]:
    """Return the places of a data set's M distinct images, and which of them each one is, (N,).

    Images that are repeated for training on few annotations need to be read but once.
    """
    row_of: dict[tuple, int] = {}
    rows = []
    for place, filename in enumerate(dataset.filenames):
        key = (filename, *(values[place].tobytes() for values in dataset.annotations.values()))
        rows.append(row_of.setdefault(key, len(row_of)))
    # Rows are numbered as they appear, so the first place of each is in their order.
    return np.unique(rows, return_index=True)[1].tolist(), torch.tensor(rows)
