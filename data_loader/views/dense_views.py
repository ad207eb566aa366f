"""Random views under known maps, strongly changed in colour, a batch at a time on its device.

[spec 11, 14] Letters: B images, A landmarks, S the images' side, W the side of a view, H and W an
image's rows and columns where only colours are changed.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from data_loader.views.batch_views import to_device
from data_loader.views.similarity import Spread, is_inside, sample_maps, to_view, warp

STRENGTH = 0.4  # of brightness, contrast and saturation: factors in [1 - 0.4, 1 + 0.4]
GAIN = 0.2  # of each colour: factors in [1 - 0.2, 1 + 0.2]
GREY_FRACTION = 0.3  # of the images lose their colours
BLUR_FRACTION = 0.5  # of the images are blurred
LUMA = (0.299, 0.587, 0.114)  # of red, green and blue [ITU-R BT.601]


class MappedView(NamedTuple):
    """Views of B images, and where each of them lies.

    Args:
        images: (B, 3, W, W), standardised.
        maps: (B, 2, 3), from view to image: see `data_loader.views.similarity`.
    """

    images: Tensor
    maps: Tensor


class DenseViews:
    """Random maps and strong changes of colour.

    Args:
        side: S.
        crop: pixels cut off each side: views have W = S - 2 * crop pixels, and show as many of the
            image's at the middle of all scales.
        mean: of each colour in [0, 1], subtracted.
        std: of each colour, divided by.
        spread: of the maps.
        mirrored: half of the views show their images mirrored.
    """

    def __init__(
        self,
        side: int,
        crop: int,
        mean: Sequence[float],
        std: Sequence[float],
        spread: Spread,
        mirrored: bool = False,
    ) -> None:
        self.side, self.width, self.spread = side, side - 2 * crop, spread
        self.mirrored = mirrored
        self.mean, self.std = (torch.tensor(values)[:, None, None] for values in (mean, std))

    @torch.no_grad()
    def __call__(self, images: Tensor, generator: torch.Generator) -> MappedView:
        """Return a random view of each image.

        Args:
            images: (B, 3, S, S), uint8, on any device.
            generator: on the CPU.
        """
        maps = sample_maps(len(images), self.width / self.side, self.spread, generator)
        if self.mirrored:
            side = torch.randint(2, (len(images), 1), generator=generator) * 2.0 - 1
            maps[:, :, 0] *= side  # the view's left is its right
        changes = sample_colours(len(images), generator)
        maps, *rest = to_device(images.device, maps, *changes, self.mean, self.std)
        colours, (mean, std) = ColourChanges(*rest[:-2]), rest[-2:]
        views = change_colours(warp(images.float() / 255, maps, self.width), colours)
        return MappedView(views.sub_(mean).div_(std), maps)


def points_in_views(
    maps: Tensor, points_px: Tensor, side: int, width: int
) -> tuple[Tensor, Tensor]:
    """Return where views show points of their images, and which of these they show.

    Args:
        maps: (B, 2, 3), from view to image.
        points_px: (B, A, 2), in pixels of the images, 0 being the centre of the first one.
        side: S.
        width: W.

    Returns:
        (B, A, 2) in [-1, 1], where -1 and 1 are the *centres* of a view's first and last pixel; and
        (B, A), bool. A point beyond the borders of image or view isn't shown.
    """
    of_image = (points_px + 0.5) * 2 / side - 1  # from edge to edge, as maps take it
    of_view = to_view(maps, of_image)
    return of_view * width / (width - 1), is_inside(of_image) & is_inside(of_view)


def swap_pairs(
    maps: Tensor, points: Tensor, visible: Tensor, order: np.ndarray
) -> tuple[Tensor, Tensor]:
    """Return the points of views whose mirrored ones show a left point as the right one.

    Args:
        maps: (B, 2, 3), from view to image.
        points: (B, A, 2), in the views.
        visible: (B, A), bool.
        order: (A,), which point of a mirrored image each point is.

    Returns:
        Points and visible, of the same shapes.
    """
    a, b, c, d = maps[:, :, :2].flatten(1).unbind(dim=1)
    is_mirrored = a * d - b * c < 0  # (B,)
    swapped = torch.as_tensor(order, device=points.device)
    return (
        torch.where(is_mirrored[:, None, None], points[:, swapped], points),
        torch.where(is_mirrored[:, None], visible[:, swapped], visible),
    )


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
