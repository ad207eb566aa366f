"""Strong random changes of colour for whole batches: the appearance of dense contrast's views.

[spec 11] Letters: B images, H and W their rows and columns.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

STRENGTH = 0.4  # of brightness, contrast and saturation: factors in [1 - 0.4, 1 + 0.4]
GAIN = 0.2  # of each colour: factors in [1 - 0.2, 1 + 0.2]
GREY_FRACTION = 0.3  # of the images lose their colours
BLUR_FRACTION = 0.5  # of the images are blurred
LUMA = (0.299, 0.587, 0.114)  # of red, green and blue [ITU-R BT.601]


class ColourChanges(NamedTuple):
    """What is random about the colours of B views.

    Args:
        brightness: (B,), factors.
        contrast: (B,), factors of the distance to an image's mean.
        saturation: (B,), factors of the distance to each pixel's grey; 0 leaves no colour.
        gains: (B, 3), factors of red, green and blue.
        blurred: (B,), 1 where a view is averaged over 3x3 pixels, else 0.
    """

    brightness: Tensor
    contrast: Tensor
    saturation: Tensor
    gains: Tensor
    blurred: Tensor


def sample_colours(count: int, generator: torch.Generator) -> ColourChanges:
    """Return random changes for ``count`` views, from a generator on the CPU."""
    factors = 1 + STRENGTH * (2 * torch.rand(3, count, generator=generator) - 1)
    gains = 1 + GAIN * (2 * torch.rand(count, 3, generator=generator) - 1)
    grey, blurred = torch.rand(2, count, generator=generator)
    saturation = factors[2] * (grey >= GREY_FRACTION)
    return ColourChanges(
        factors[0], factors[1], saturation, gains, (blurred < BLUR_FRACTION).to(gains)
    )


def change_colours(images: Tensor, changes: ColourChanges) -> Tensor:
    """Return changed images (B, 3, H, W), in [0, 1].

    Brightness, contrast, saturation and gains are linear, so all four make one 3x3 matrix and one
    offset for each image.

    Args:
        images: (B, 3, H, W), in [0, 1].
        changes: on the images' device.
    """
    luma = images.new_tensor(LUMA)
    # saturation * identity + (1 - saturation) * grey, then the gains of each colour
    saturation = changes.saturation[:, None, None]
    matrix = saturation * torch.eye(3).to(images) + (1 - saturation) * luma  # (B, 3, 3)
    matrix = changes.gains[:, :, None] * matrix
    mean = changes.brightness * images.mean(dim=(1, 2, 3))  # (B,)
    offset = matrix.sum(dim=2) * ((1 - changes.contrast) * mean)[:, None]  # (B, 3)
    matrix = matrix * (changes.brightness * changes.contrast)[:, None, None]
    changed = torch.baddbmm(offset[:, :, None], matrix, images.flatten(2)).view_as(images)
    smooth = F.avg_pool2d(F.pad(changed, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    return torch.lerp(changed, smooth, changes.blurred[:, None, None, None]).clamp_(0, 1)
