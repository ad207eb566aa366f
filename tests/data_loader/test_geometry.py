"""Coordinates: 300-W's window against MATLAB's own loops, and the other frames by hand."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from data_loader.geometry import (
    FaceWindow,
    centre_crop,
    denormalize_points,
    normalize_points,
    resize_square,
)


def source_image(width, height, seed=0) -> Image.Image:
    values = np.random.RandomState(seed).randint(1, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


# ---- [-1, 1] ----


@pytest.mark.parametrize("side", [2, 70, 96])
def test_centres_of_the_first_and_last_pixel_are_minus_one_and_one(side):
    pixels = torch.tensor([[0.0, side - 1], [(side - 1) / 2, (side - 1) / 4]])
    wanted = torch.tensor([[-1.0, 1.0], [0.0, -0.5]])
    assert torch.allclose(normalize_points(pixels, side), wanted)
    assert torch.allclose(denormalize_points(wanted, side), pixels)
    assert np.allclose(denormalize_points(wanted.numpy(), side), pixels)


def test_centre_crop_cuts_each_side():
    image = torch.arange(6 * 9).view(1, 6, 9)
    rows = [[9 * y + x for x in range(2, 7)] for y in range(2, 4)]
    assert centre_crop(image, 2).tolist() == [rows]
    assert torch.equal(centre_crop(image, 0), image)


def test_resizes_are_bilinear_to_a_square():
    values = np.zeros((4, 8, 3), np.uint8)
    values[0, 3] = 160  # the only lit pixel
    small = np.asarray(resize_square(Image.fromarray(values), 4))[..., 0]
    # Of columns that are halved, 1/8, 3/8, 3/8 and 1/8 of four make one; rows stay as they are.
    assert small.tolist() == [[0, 60, 20, 0], *[[0] * 4] * 3]
    large = np.asarray(resize_square(Image.fromarray(values[:2, 2:4]), 4))
    assert large[0, :, 0].tolist() == [0, 40, 120, 160]  # 1/4 and 3/4 of the way


# ---- 300-W ----


def matlab_window(image, points, box):
    """Cut the 100 x 100 window by loops over MATLAB's 1-based pixels; zeros outside."""
    xmin, ymin, xmax, ymax = box
    bw, bh = xmax - xmin + 1, ymax - ymin + 1
    bcx, bcy = xmin + (bw + 1) / 2, ymin + (bh + 1) / 2
    fac = 52 / bw
    width, height = int(image.width * fac), int(image.height * fac)
    scaled = np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))
    bcx, bcy = math.floor(fac * bcx), math.floor(fac * bcy)
    pp = (100 - 52) / 2
    x0, x1 = int(bcx - 26 + 1 - pp), int(bcx + 26 + pp)
    y0, y1 = int(bcy - 26 + 1 - pp - 2), int(bcy + 26 + pp - 2)
    window = np.zeros((100, 100, 3), dtype=np.uint8)
    for row in range(y0, y1 + 1):
        for column in range(x0, x1 + 1):
            if 1 <= row <= height and 1 <= column <= width:
                window[row - y0, column - x0] = scaled[row - 1, column - 1]
    moved = []
    for x, y in points:
        moved.append([fac * x - (x0 - 1) - 1, fac * y - (y0 - 1) - 1])
    return window, np.array(moved)


BOXES = {
    "inside": (80, 70, 131, 119),
    "fractions": (80.4, 70.7, 152.1, 139.9),
    "left": (-30.5, 40, 39, 110),
    "top": (60, -25.3, 120.8, 33),
    "right": (150, 40, 260.5, 140),
    "bottom": (60, 120, 110, 199.2),
    "left and top, centre below zero": (-61.25, -70.5, 20.5, 10.25),
    "all sides": (-40, -30, 220, 190),
    "one pixel off the image": (400, 300, 480, 380),
    "wide and low": (50, 80, 149, 99),
}


@pytest.mark.parametrize("box", BOXES.values(), ids=BOXES)
def test_face_windows_are_matlabs(box):
    image = source_image(180, 150)
    points = np.array([[1.0, 1.0], [90.5, 77.25], [180.0, 150.0], [box[0], box[1]]])
    wanted, moved = matlab_window(image, points, box)
    window = FaceWindow(np.array(box), 100)  # at 100 px nothing is resized
    assert np.array_equal(np.asarray(window.cut_out(image)), wanted)
    assert np.abs(window(points) - moved).max() < 1e-9
    window = FaceWindow(np.array(box), 136)
    resized = Image.fromarray(wanted).resize((136, 136), Image.Resampling.BILINEAR)
    assert np.array_equal(np.asarray(window.cut_out(image)), np.asarray(resized))
    assert np.abs(window(points) - moved * 1.36).max() < 1e-9
