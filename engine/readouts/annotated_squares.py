"""Annotated images before any view is cut from them: what fine-tuning learns from [spec 14].

Letters: N images, B of a batch, A landmarks, S the side of a square, W that of the network input.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from data_loader.geometry import centre_crop, normalize_points
from data_loader.items import Items
from data_loader.landmark_dataset import LandmarkDataset
from data_loader.loaders import BATCH, available_cores
from engine.features.images import Batch
from utils.log import progress

KEPT_BYTES = 1 << 30  # of squares that stay in memory; more are read whenever they are needed


class Squares(NamedTuple):
    """B images as squares.

    Args:
        images: (B, 3, S, S), uint8.
        points_px: (B, A, 2), float32, in pixels of the squares.
        visible: (B, A), bool; False where a landmark isn't annotated.
    """

    images: Tensor
    points_px: Tensor
    visible: Tensor


class AnnotatedSquares:
    """The N squares of a data set, to be asked for by number; at most 1 GiB of them stay in memory.

    Args:
        dataset: annotated, not warped.
        num_workers: processes that read, at most one a core.
    """

    def __init__(self, dataset: LandmarkDataset, num_workers: int) -> None:
        self.dataset, self.num_workers = dataset, min(num_workers, available_cores())
        self.kept: Squares | None = None
        if len(dataset) * 3 * dataset.imwidth**2 <= KEPT_BYTES:
            parts = self._read(torch.arange(len(dataset)).split(BATCH))
            self.kept = Squares(*map(torch.cat, zip(*progress(parts, "reading"), strict=True)))

    def __len__(self) -> int:
        return len(self.dataset)

    def batches(self, numbers: Sequence[Tensor]) -> Iterator[Squares]:
        """Yield the squares of each batch's numbers, (B,) int64."""
        if self.kept is None:
            yield from self._read(numbers)
            return
        for rows in numbers:
            yield Squares(*(values[rows] for values in self.kept))

    def _read(self, numbers: Sequence[Tensor]) -> Iterator[Squares]:
        loader = DataLoader(
            Items(self.dataset, self.dataset.base_tensors),
            batch_sampler=[rows.tolist() for rows in numbers],
            num_workers=self.num_workers,
            generator=torch.Generator(),  # its own, not the training's
        )
        for rows, (images, points_px) in zip(numbers, loader, strict=True):
            visible = torch.stack([self.dataset.visible(row) for row in rows.tolist()])
            yield Squares(images.permute(0, 3, 1, 2).contiguous(), points_px.float(), visible)

    def annotations(self) -> tuple[Tensor, Tensor]:
        """Return all points (N, A, 2) in [-1, 1] and which are annotated (N, A)."""
        if self.kept is None:
            return self.dataset.annotation_tensors()
        return self._normalized(self.kept.points_px), self.kept.visible

    def centres(self, numbers: Sequence[Tensor], device: torch.device) -> Iterator[Batch]:
        """Yield the network's inputs (B, 3, W, W), neither warped nor coloured, for each batch."""
        for images, points_px, visible in self.batches(numbers):
            cut = centre_crop(images.to(device), self.dataset.crop).float() / 255
            points = self._normalized(points_px)
            yield Batch([self.dataset.normalize(cut)], points.to(device), visible.to(device))

    def _normalized(self, points_px: Tensor) -> Tensor:
        return normalize_points(points_px - self.dataset.crop, self.dataset.side)
