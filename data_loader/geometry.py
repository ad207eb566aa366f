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
Square = tuple[Image.Image, np.ndarray]  # an (S, S) image, and its points (A, 2) in its pixels

# [spec 6] CelebA's rows above and below this square show background.
CELEBA_TOP, CELEBA_SIDE = 30, 178
# [spec 6] 300-W: the face box's width becomes 52 px of a 100 px window.
WINDOW_SIDE, WINDOW_FACE = 100, 52


def resize_square(image: Image.Image, side: int) -> Image.Image:
    """Resize to (side, side), bilinear."""
    return image.resize((side, side), Image.Resampling.BILINEAR)


def celeba_square(image: Image.Image, points_orig: np.ndarray, side: int) -> Square:
    """Cut CelebA's rows 30 to 208 and resize the 178x178 square and its points (A, 2)."""
    box = (0, CELEBA_TOP, CELEBA_SIDE, CELEBA_TOP + CELEBA_SIDE)
    points = (points_orig - (0, CELEBA_TOP)) * (side / CELEBA_SIDE)
    return resize_square(image.crop(box), side), points


def face_window(
    image: Image.Image, points_orig: np.ndarray, face_box: np.ndarray, side: int
) -> Square:
    """Cut 300-W's window around the face and resize it to (side, side).

    The arithmetic is MATLAB's, with the roundings of the published files [spec 6]; the points
    (A, 2) and the face box (xmin, ymin, xmax, ymax) are 1-based.
    """
    xmin, ymin, xmax, ymax = (float(v) for v in face_box)
    factor = WINDOW_FACE / (xmax - xmin + 1)
    centre_x = np.floor(factor * (xmin + (xmax - xmin + 2) / 2))
    centre_y = np.floor(factor * (ymin + (ymax - ymin + 2) / 2))
    half, margin = WINDOW_FACE / 2, (WINDOW_SIDE - WINDOW_FACE) / 2
    x0, x1 = int(centre_x - half + 1 - margin), int(centre_x + half + margin)
    y0, y1 = int(centre_y - half + 1 - margin - 2), int(centre_y + half + margin - 2)
    scaled = image.resize((int(image.width * factor), int(image.height * factor)))
    # Pillow's crop fills with zeros what lies outside, as the recipe wants.
    window = scaled.crop((x0 - 1, y0 - 1, x1, y1))
    points = (factor * points_orig - (x0 - 1, y0 - 1) - 1) * (side / WINDOW_SIDE)
    return resize_square(window, side), points


def centre_crop(image: Tensor, crop: int) -> Tensor:
    """Cut ``crop`` pixels off each side of (..., H, W)."""
    return image[..., crop : image.shape[-2] - crop, crop : image.shape[-1] - crop]


def normalize_points(points_px: Points, side: int) -> Points:
    """Map pixels of a (side, side) image to [-1, 1]; array or tensor (..., 2)."""
    return 2.0 * points_px / (side - 1) - 1.0


def denormalize_points(points_norm: Points, side: int) -> Points:
    """Map [-1, 1] to pixels of a (side, side) image; array or tensor (..., 2)."""
    return (points_norm + 1.0) * (side - 1) / 2.0
