"""The random choices of views [spec 6]: of one from torch's generator, or of many from another.

Letters: B views, S the side of the images.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from data_loader.framing import Window

JPEG_QUALITY = (30, 98)
LOG_ASPECT = torch.tensor([3 / 4, 4 / 3]).log().tolist()  # of width to height [RandomResizedCrop]
TRIES = 10  # at a crop that fits, before the whole image is shown [RandomResizedCrop]
JITTER = 0.4  # brightness, contrast and saturation
BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)  # ColorJitter's numbers; hue stays as it is
PCA_ALPHA = 0.1
# Principal components of ImageNet's colours [Krizhevsky et al. 2012, Sec. 4.1].
PCA_VALUES = torch.tensor([0.2175, 0.0188, 0.0045])
PCA_VECTORS = torch.tensor(
    [[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]]
)


class OneView(NamedTuple):
    """The random choices of a view, in the order in which they are sampled."""

    jpeg_side: int  # of the square that is compressed
    jpeg_quality: int
    box: Window  # what the view shows
    order: list[int]  # of BRIGHTNESS, CONTRAST, SATURATION and HUE
    factors: list[float]  # of the first three, by their numbers
    colour: Tensor  # (3, 1, 1), added to an image in [0, 1]


def sample_view(side: int, smallest_scale: float) -> OneView:
    """Sample a view of a (side, side) image from torch's default generator."""
    scale = 1 + 0.5 * torch.randn(()).item()
    return OneView(
        jpeg_side=max(int(0.8 * side), int(side * scale)),
        jpeg_quality=int(torch.randint(JPEG_QUALITY[0], JPEG_QUALITY[1] + 1, ())),
        box=sample_box(side, smallest_scale),
        order=torch.randperm(4).tolist(),
        factors=torch.empty(3).uniform_(1 - JITTER, 1 + JITTER).tolist(),
        colour=(PCA_VECTORS @ (PCA_ALPHA * torch.randn(3) * PCA_VALUES))[:, None, None],
    )


def sample_box(side: int, smallest_scale: float) -> Window:
    """Sample which part of a (side, side) image RandomResizedCrop shows: all if no try fits."""
    for _ in range(TRIES):
        area = side * side * torch.empty(1).uniform_(smallest_scale, 1).item()
        aspect = torch.empty(1).uniform_(*LOG_ASPECT).exp_().item()
        width, height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < width <= side and 0 < height <= side:
            top = int(torch.randint(side - height + 1, ()))
            left = int(torch.randint(side - width + 1, ()))
            return left, top, left + width, top + height
    return 0, 0, side, side


class ViewParameters(NamedTuple):
    """What is random about B views, on the CPU."""

    sides: Tensor  # (B,), of the squares that are compressed
    qualities: Tensor  # (B,), of the JPEGs
    boxes: Tensor  # (B, 4), the crops' left, top, width and height in pixels
    order: Tensor  # (B, 3), of BRIGHTNESS, CONTRAST and SATURATION
    factors: Tensor  # (B, 3), of these, by their numbers
    colours: Tensor  # (B, 3), added to red, green and blue in [0, 1]

    def select(self, rows: Tensor) -> "ViewParameters":
        """Return the parameters of some of the views."""
        return ViewParameters(*(values[rows] for values in self))


def sample_views(
    count: int, side: int, smallest_scale: float, generator: torch.Generator
) -> ViewParameters:
    """Sample ``count`` views of images (side, side)."""
    normal = torch.randn(count, generator=generator, dtype=torch.float64)
    sides = (side * (1 + 0.5 * normal)).long().clamp(min=int(0.8 * side))
    lowest, highest = JPEG_QUALITY
    qualities = torch.randint(lowest, highest + 1, (count,), generator=generator)
    # Crops by the rule of `sample_box`.
    uniform = torch.rand(4, TRIES, count, generator=generator, dtype=torch.float64)
    area = side * side * (smallest_scale + (1 - smallest_scale) * uniform[0])
    aspect = (LOG_ASPECT[0] + (LOG_ASPECT[1] - LOG_ASPECT[0]) * uniform[1]).exp()
    width, height = (area * aspect).sqrt().round(), (area / aspect).sqrt().round()
    left = (uniform[2] * (side - width + 1)).floor()
    top = (uniform[3] * (side - height + 1)).floor()
    fits = (0 < width) & (width <= side) & (0 < height) & (height <= side)  # (TRIES, B)
    first = fits.byte().argmax(dim=0)  # of equals, the first
    boxes = torch.stack([left, top, width, height], dim=2).long()[first, torch.arange(count)]
    boxes = torch.where(fits.any(dim=0)[:, None], boxes, torch.tensor([0, 0, side, side]))
    order = torch.rand(count, 3, generator=generator).argsort(dim=1)
    factors = 1 + JITTER * (2 * torch.rand(count, 3, generator=generator) - 1)
    alpha = PCA_ALPHA * torch.randn(count, 1, 3, generator=generator)
    colours = (PCA_VECTORS * (alpha * PCA_VALUES)).sum(dim=2)
    return ViewParameters(sides, qualities, boxes, order, factors, colours)
