"""How an image, or a box of it, becomes the square that a network sees, and back.

Frames: ``_orig`` pixels of the image, ``_px`` pixels of the square. Both have 0 at the *centre* of
the first pixel, so that an image of w columns reaches from -0.5 to w - 0.5. Points are (..., 2), x
before y. Letters: S the side of the square.
"""

import math
from typing import NamedTuple

import numpy as np
from PIL import Image

from data_loader.geometry import resize_square
from utils.errors import ImageError

FITS = ("stretch", "pad", "crop")
Box = tuple[float, float, float, float]  # left, top, right, bottom, in _orig
Window = tuple[int, int, int, int]  # the same in whole pixels: the first ones, and those after


def box_or_none(box: np.ndarray) -> Box | None:
    """Return a box (4,) as plain numbers, None if it is NaN."""
    left, top, right, bottom = box.tolist()
    return None if np.isnan(box).any() else (left, top, right, bottom)


class Affine(NamedTuple):
    """A scale and then a shift along each axis: from ``_orig`` to ``_px``."""

    scale: tuple[float, float]
    shift: tuple[float, float]

    def __call__(self, points_orig: np.ndarray) -> np.ndarray:
        """Return points (..., 2) of the image in pixels of the square."""
        return points_orig * np.array(self.scale) + np.array(self.shift)

    def inverse(self, points_px: np.ndarray) -> np.ndarray:
        """Return points (..., 2) of the square in pixels of the image."""
        return (points_px - np.array(self.shift)) / np.array(self.scale)


class Framing(NamedTuple):
    """How an image, or a box of it, becomes a square.

    Args:
        fit: ``stretch`` changes proportions, as published; ``pad`` adds what lies around a box, and
            black beyond the image's edges, until the box is square; ``crop`` cuts the longer side
            off at both ends until it is.
        side: S.
        margin: added around a box on each side, as a fraction of its width and height.
    """

    fit: str
    side: int
    margin: float = 0.0

    def window(self, size: tuple[int, int], box: Box | None = None) -> Window:
        """Return which pixels of an image become the square; they may lie beyond its edges.

        Args:
            size: width and height of the image.
            box: what to show, with the margin; without one, the whole image is shown.

        Raises:
            ImageError: if the box shows nothing of the image.
        """
        window = (0, 0, *size)
        if box is not None:
            window = self._around(size, box)
        left, top, right, bottom = window
        width, height = right - left, bottom - top
        if self.fit == "stretch" or width == height:
            return window
        side = max(width, height) if self.fit == "pad" else min(width, height)
        left, top = left + (width - side) // 2, top + (height - side) // 2
        return left, top, left + side, top + side

    def _around(self, size: tuple[int, int], box: Box) -> Window:
        """Return the whole pixels of a box, cut off at the image's edges, with its margin."""
        spans = []
        for first, last, length in zip(box[:2], box[2:], size, strict=True):
            # A box further out than the image is no larger for it.
            low, high = max(first, -0.5), min(last, length - 0.5)
            if not low <= high:
                numbers = ", ".join(f"{number:g}" for number in box)
                raise ImageError(f"the box {numbers} shows nothing of {size[0]} x {size[1]} pixels")
            added = self.margin * (high - low)
            start = math.floor(low - added + 0.5)
            spans.append((start, max(math.ceil(high + added + 0.5), start + 1)))
        (left, right), (top, bottom) = spans
        return left, top, right, bottom

    def affine(self, size: tuple[int, int], box: Box | None = None) -> Affine:
        """Return the map from an image's pixels to the square's; see `window`."""
        left, top, right, bottom = self.window(size, box)
        scale = self.side / (right - left), self.side / (bottom - top)
        return Affine(scale, ((0.5 - left) * scale[0] - 0.5, (0.5 - top) * scale[1] - 0.5))

    def to_square(self, image: Image.Image, box: Box | None = None) -> tuple[Image.Image, Affine]:
        """Return an image, or a box of it, as a square (S, S), and where its pixels went.

        The resize is bilinear; stretched, a whole image gives `geometry.resize_square`'s pixels.
        See `window` for the arguments.
        """
        window = self.window(image.size, box)
        return cut_out(image, window, self.side), self.affine(image.size, box)


def cut_out(image: Image.Image, window: Window, side: int) -> Image.Image:
    """Return a window of an image resized to (S, S); black where it lies beyond the edges.

    Where there is black, one axis is resized after the other, the one with less of it first: a
    panorama that is padded to a square is never held as one.
    """
    left, top, right, bottom = window
    shown = max(left, 0), max(top, 0), min(right, image.width), min(bottom, image.height)
    if shown == window:
        return resize_square(image.crop(window), side)
    if (right - left) - (shown[2] - shown[0]) > (bottom - top) - (shown[3] - shown[1]):
        part = image.crop((shown[0], top, shown[2], bottom))
        part = part.resize((part.width, side), Image.Resampling.BILINEAR)
        part = part.crop((left - shown[0], 0, right - shown[0], side))
    else:
        part = image.crop((left, shown[1], right, shown[3]))
        part = part.resize((side, part.height), Image.Resampling.BILINEAR)
        part = part.crop((0, top - shown[1], side, bottom - shown[1]))
    return resize_square(part, side)
