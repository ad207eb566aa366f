"""Random views under known maps, a batch at a time on the model's device.

[spec 11, 14] Letters: B images, A landmarks, S the images' side, W the side of a view.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from data_loader.views.batch_views import to_device
from data_loader.views.colour import ColourChanges, change_colours, sample_colours
from data_loader.views.similarity import Spread, is_inside, sample_maps, to_view, warp


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
