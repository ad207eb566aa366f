"""Encoder and readout as one network of plain operations, for other runtimes [spec 18].

What depends on weights alone is worked out beforehand, since such runtimes have no matrix inverse.
Letters: B images, A landmarks, S the side of the square of an image, W that of the network input,
C channels of all maps together.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.calibration import Calibration
from models.ridge import Inference, RidgeReadout
from models.shape_prior import GRID


def pool_matrix(size: int) -> Tensor:
    """Return (6, size), by which adaptive average pooling to 6 parts multiplies an axis."""
    rows = []
    for part in range(GRID):
        first, last = part * size // GRID, -(-(part + 1) * size // GRID)
        rows.append([(first <= place < last) / (last - first) for place in range(size)])
    return torch.tensor(rows)


class ExportedRidge(nn.Module):
    """`RidgeReadout` with its prior's constants worked out."""

    def __init__(self, readout: RidgeReadout) -> None:
        super().__init__()
        self.readout = readout
        for name, value in readout.inference()._asdict().items():
            self.register_buffer(name, value)

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return landmarks (B, A, 2) in [-1, 1] and confidence (B, A) of maps, deepest first."""
        heat, places = self.readout.heatmaps(maps)
        # int(): what is traced is a constant then, and not how it is made.
        pools = [[pool_matrix(int(size)) for size in m.shape[2:]] for m in maps]
        looks = [
            (down @ m @ across.t()).flatten(1)
            for m, (down, across) in zip(maps, pools, strict=True)
        ]
        expected = self.readout.prior.expected(torch.cat(looks, dim=1))
        inference = Inference(*(getattr(self, name) for name in Inference._fields))
        return self.readout.infer(heat, expected, places, inference)


class ExportedNetwork(nn.Module):
    """Squares of images, (B, 3, S, S) in [0, 1], to landmarks and confidence.

    Landmarks are (B, A, 2), x before y, in pixels of the square; the centre of its first pixel is
    0.

    Args:
        encoder: frozen, in eval mode.
        readout: maps to landmarks and confidence, of plain operations.
        levels: numbers of the maps that the readout takes, deepest first.
        crop: pixels that the network input lacks of the square on each side.
        mean: of each colour, in [0, 1].
        std: of each colour.
        calibration: of the confidence, if there is one.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        encoder: nn.Module,
        readout: nn.Module,
        levels: Sequence[int],
        crop: int,
        mean: Sequence[float],
        std: Sequence[float],
        calibration: Calibration | None,
    ) -> None:
        super().__init__()
        self.encoder, self.levels = encoder, levels
        self.readout, self.crop, self.calibration = readout, crop, calibration
        self.register_buffer("mean", torch.tensor(mean)[:, None, None])
        self.register_buffer("std", torch.tensor(std)[:, None, None])

    def forward(self, squares: Tensor) -> tuple[Tensor, Tensor]:
        """Return landmarks (B, A, 2) in pixels and confidence (B, A)."""
        side = squares.shape[3]
        inside = slice(self.crop, side - self.crop)
        images = (squares[:, :, inside, inside] - self.mean) / self.std
        points, confidence = self.readout(self.encoder(images, levels=self.levels))
        if self.calibration is not None:
            confidence = self.calibration(confidence)
        return (points + 1) * ((side - 2 * self.crop - 1) / 2) + self.crop, confidence
