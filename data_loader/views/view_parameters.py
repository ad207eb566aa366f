"""The random choices of many views at once [spec 6], from a generator of the caller's, on the CPU.

Letters: B views, S the side of the images.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from data_loader.views.random_view import (
    JITTER,
    JPEG_QUALITY,
    LOG_ASPECT,
    PCA_ALPHA,
    PCA_VALUES,
    PCA_VECTORS,
)

TRIES = 10  # at a crop that fits, before the whole image is shown [RandomResizedCrop]


class ViewParameters(NamedTuple):
    """What is random about B views, on the CPU.

    Args:
        sides: (B,), of the squares that are compressed.
        qualities: (B,), of the JPEGs.
        boxes: (B, 4), the crops' left, top, width and height in pixels.
        order: (B, 3), of `data_loader.views.random_view`'s BRIGHTNESS, CONTRAST and SATURATION.
        factors: (B, 3), of brightness, contrast and saturation.
        colours: (B, 3), added to red, green and blue in [0, 1].
    """

    sides: Tensor
    qualities: Tensor
    boxes: Tensor
    order: Tensor
    factors: Tensor
    colours: Tensor

    def select(self, rows: Tensor) -> "ViewParameters":
        """Return the parameters of some of the views."""
        return ViewParameters(*(values[rows] for values in self))


def draw_views(
    count: int, side: int, smallest_scale: float, generator: torch.Generator
) -> ViewParameters:
    """Draw the parameters of ``count`` views of images (side, side)."""
    normal = torch.randn(count, generator=generator, dtype=torch.float64)
    sides = (side * (1 + 0.5 * normal)).long().clamp(min=int(0.8 * side))
    lowest, highest = JPEG_QUALITY
    qualities = torch.randint(lowest, highest + 1, (count,), generator=generator)
    boxes = draw_boxes(count, side, smallest_scale, generator)
    order = torch.rand(count, 3, generator=generator).argsort(dim=1)
    factors = 1 + JITTER * (2 * torch.rand(count, 3, generator=generator) - 1)
    alpha = PCA_ALPHA * torch.randn(count, 1, 3, generator=generator)
    colours = (PCA_VECTORS * (alpha * PCA_VALUES)).sum(dim=2)
    return ViewParameters(sides, qualities, boxes, order, factors, colours)


def draw_boxes(count: int, side: int, smallest_scale: float, generator: torch.Generator) -> Tensor:
    """Draw crops (count, 4) by the rule of torchvision's RandomResizedCrop."""
    uniform = torch.rand(4, TRIES, count, generator=generator, dtype=torch.float64)
    area = side * side * (smallest_scale + (1 - smallest_scale) * uniform[0])
    aspect = (LOG_ASPECT[0] + (LOG_ASPECT[1] - LOG_ASPECT[0]) * uniform[1]).exp()
    width, height = (area * aspect).sqrt().round(), (area / aspect).sqrt().round()
    left = (uniform[2] * (side - width + 1)).floor()
    top = (uniform[3] * (side - height + 1)).floor()
    fits = (0 < width) & (width <= side) & (0 < height) & (height <= side)  # (TRIES, B)
    first = fits.byte().argmax(dim=0)  # of equals, the first
    boxes = torch.stack([left, top, width, height], dim=2).long()[first, torch.arange(count)]
    return torch.where(fits.any(dim=0)[:, None], boxes, torch.tensor([0, 0, side, side]))
