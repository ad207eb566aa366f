"""Random views under known maps, a batch at a time on the model's device, for dense contrast.

[spec 11] Letters: B images, S their side, W the side of a view.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from data_loader.views.batch_views import to_device
from data_loader.views.colour import ColourChanges, change_colours, sample_colours
from data_loader.views.similarity import Spread, sample_maps, warp


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
    """

    def __init__(
        self, side: int, crop: int, mean: Sequence[float], std: Sequence[float], spread: Spread
    ) -> None:
        self.side, self.width, self.spread = side, side - 2 * crop, spread
        self.mean, self.std = (torch.tensor(values)[:, None, None] for values in (mean, std))

    @torch.no_grad()
    def __call__(self, images: Tensor, generator: torch.Generator) -> MappedView:
        """Return a random view of each image.

        Args:
            images: (B, 3, S, S), uint8, on any device.
            generator: on the CPU.
        """
        maps = sample_maps(len(images), self.width / self.side, self.spread, generator)
        changes = sample_colours(len(images), generator)
        maps, *rest = to_device(images.device, maps, *changes, self.mean, self.std)
        colours, (mean, std) = ColourChanges(*rest[:-2]), rest[-2:]
        views = change_colours(warp(images.float() / 255, maps, self.width), colours)
        return MappedView(views.sub_(mean).div_(std), maps)
