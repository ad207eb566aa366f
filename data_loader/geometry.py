"""Every change of coordinates between an annotation file and the network.

Frames: ``_orig`` pixels of the file on disk, ``_px`` pixels of the square or cropped network
input, ``_norm`` in [-1, 1]. Points are (..., 2), x before y. A pixel's coordinate is that of its
centre; the first pixel is 0 in ``_px``; -1 and 1 in ``_norm`` are the centres of the first and
the last pixel, hence the ``side - 1`` [spec 5, 6].
"""

from typing import TypeVar

import numpy as np
from PIL import Image
from torch import Tensor

Points = TypeVar("Points", np.ndarray, Tensor)

# [spec 6] 300-W: the face box's width becomes 52 px of a 100 px window.
WINDOW_SIDE, WINDOW_FACE = 100, 52


def resize_square(image: Image.Image, side: int) -> Image.Image:
    """Resize to (side, side), bilinear."""
    return image.resize((side, side), Image.Resampling.BILINEAR)


class FaceWindow:
    """300-W's window around a face, resized to (side, side).

    The arithmetic is MATLAB's, with the roundings of the published files [spec 6]; the face box
    (xmin, ymin, xmax, ymax) and points are 1-based.
    """

    def __init__(self, face_box: np.ndarray, side: int) -> None:
        xmin, ymin, xmax, ymax = (float(v) for v in face_box)
        self.side, self.factor = side, WINDOW_FACE / (xmax - xmin + 1)
        centre_x = np.floor(self.factor * (xmin + (xmax - xmin + 2) / 2))
        centre_y = np.floor(self.factor * (ymin + (ymax - ymin + 2) / 2))
        half, margin = WINDOW_FACE / 2, (WINDOW_SIDE - WINDOW_FACE) / 2
        x0, x1 = int(centre_x - half + 1 - margin), int(centre_x + half + margin)
        y0, y1 = int(centre_y - half + 1 - margin - 2), int(centre_y + half + margin - 2)
        self.box = x0 - 1, y0 - 1, x1, y1  # of the scaled image, 0-based

    def cut_out(self, image: Image.Image) -> Image.Image:
        """Return the window of an image as a square."""
        scaled = image.resize((int(image.width * self.factor), int(image.height * self.factor)))
        # Pillow's crop fills with zeros what lies outside, as the recipe wants.
        return resize_square(scaled.crop(self.box), self.side)

    def __call__(self, points_orig: np.ndarray) -> np.ndarray:
        """Return points (A, 2) of the image in pixels of the square."""
        return (self.factor * points_orig - self.box[:2] - 1) * (self.side / WINDOW_SIDE)


def centre_crop(image: Tensor, crop: int) -> Tensor:
    """Cut ``crop`` pixels off each side of (..., H, W)."""
    return image[..., crop : image.shape[-2] - crop, crop : image.shape[-1] - crop]


def normalize_points(points_px: Points, side: int) -> Points:
    """Map pixels of a (side, side) image to [-1, 1]; array or tensor (..., 2)."""
    return 2.0 * points_px / (side - 1) - 1.0


def denormalize_points(points_norm: Points, side: int) -> Points:
    """Map [-1, 1] to pixels of a (side, side) image; array or tensor (..., 2)."""
    return (points_norm + 1.0) * (side - 1) / 2.0
