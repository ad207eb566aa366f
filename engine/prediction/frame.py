"""What a readout is to be shown of an image: as its checkpoint notes it, or by default.

Letters: A landmarks, W the side of the network input.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from data_loader.framing import FITS, Box, Framing
from data_loader.geometry import centre_crop
from data_loader.image_set import Colours, as_colours
from data_loader.views.random_view import channels
from utils.errors import InputError


class Seen(NamedTuple):
    """What a readout was trained on, in pixels of the images.

    Attributes:
        boxed: fraction of the instances that were cut out by boxes.
        box_sides: longer side of these boxes: between them are 80 % of all; None without boxes.
        span: how far the points of an instance reach along x or y: nine of ten reach no further.
    """

    boxed: float
    box_sides: tuple[float, float] | None
    span: float


class Frame(NamedTuple):
    """What the network is shown of an image.

    Args:
        names: of the A points.
        framing: how an image, or a box of it, becomes a square.
        crop: pixels cut off each side of the square.
        mean: of each colour, in [0, 1], which is taken from it.
        std: of each colour, by which it is divided.
        seen: what its training images were like, if that is noted.
    """

    names: list[str]
    framing: Framing
    crop: int
    mean: Colours
    std: Colours
    seen: Seen | None = None

    @property
    def side(self) -> int:
        """W."""
        return self.framing.side - 2 * self.crop

    def normalize(self, images: Tensor) -> Tensor:
        """Return images (..., 3, h, w) in [0, 1] with standardised colours."""
        mean, std = (torch.tensor(colours)[:, None, None] for colours in (self.mean, self.std))
        return (images - mean) / std

    def prepare(self, image: Image.Image, box: Box | None) -> tuple[Tensor, Tensor]:
        """Return the input (3, W, W) and the map (2, 2) of `InputItem`."""
        square, affine = self.framing.to_square(image, box)
        pixels = centre_crop(channels(square).float() / 255, self.crop)
        return self.normalize(pixels), torch.tensor(affine, dtype=torch.float64)


def read_frame(path: str, entry: Any, side: int, crop: int, landmarks: int) -> Frame:
    """Return the frame that a checkpoint notes.

    Raises:
        InputError: if it is damaged.
    """
    try:
        names = [str(name) for name in entry["names"]]
        if len(names) != landmarks or len(set(names)) != landmarks or not all(names):
            raise ValueError("not a name for each point")
        noted = entry["framing"]
        framing = Framing(str(noted["fit"]), side, float(noted["margin"]))
        mean, std = as_colours(entry["mean"]), as_colours(entry["std"])
        numbers, seen = [*mean, *std], None
        if "span" in noted:
            sides = noted["box_sides"]
            if sides is not None:
                low, high = map(float, sides)
                sides = low, high
            seen = Seen(float(noted["boxed"]), sides, float(noted["span"]))
            numbers += [seen.boxed, seen.span, *(sides or ())]
        if framing.fit not in FITS or not 0 <= framing.margin <= 1e6:
            raise ValueError("no such framing")
        if not np.isfinite(numbers).all():
            raise ValueError("not finite")
        return Frame(names, framing, crop, mean, std, seen)
    except (KeyError, TypeError, ValueError):
        raise InputError(f"{path}: its entry landmarks is damaged") from None
