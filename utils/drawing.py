"""Pictures of results, drawn with Pillow.

Images are (3, H, W) tensors in [0, 1]; points (A, 2) in pixels of the image, x before y.
"""

import colorsys
import math
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from utils.whole_file import write_file_whole, writing

ZOOM = 4  # of a picture with points, so that a dot is smaller than what it marks
TRUTH, PREDICTION = (40, 200, 60), (50, 90, 255)
GAP = 4  # pixels between the pictures of a sheet
HEADER = 24  # pixels above a sheet for its title


def to_picture(image: Tensor, zoom: int = 1) -> Image.Image:
    """Return (3, H, W) in [0, 1] as an RGB picture, enlarged ``zoom`` times."""
    array = (image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
    picture = Image.fromarray(array)
    return picture.resize((picture.width * zoom, picture.height * zoom), Image.Resampling.BICUBIC)


def enlarged(points: np.ndarray, zoom: int) -> np.ndarray:
    """Return where points (A, 2) lie in a picture enlarged ``zoom`` times, in its pixels.

    The centre of pixel 0 lies half an enlarged pixel inside the picture.
    """
    return (np.asarray(points) + 0.5) * zoom - 0.5


def draw_points(
    picture: Image.Image, points: np.ndarray, colours: list[tuple[int, int, int]], zoom: int = ZOOM
) -> None:
    """Dot points (A, 2), given in pixels before the enlargement, onto a picture."""
    draw = ImageDraw.Draw(picture)
    radius = max(2, picture.width // (70 if len(points) <= 20 else 130))
    for (x, y), colour in zip(enlarged(points, zoom), colours, strict=True):
        box = (x - radius, y - radius, x + radius, y + radius)
        draw.ellipse(box, fill=colour, outline=(255, 255, 255))


def prediction_picture(image: Tensor, predicted: np.ndarray, truth: np.ndarray) -> Image.Image:
    """Return a picture with true points in green and predicted ones in blue, joined by lines."""
    picture = to_picture(image, ZOOM)
    draw = ImageDraw.Draw(picture)
    for p, t in zip(enlarged(predicted, ZOOM), enlarged(truth, ZOOM), strict=True):
        draw.line([tuple(p), tuple(t)], fill=(255, 255, 255), width=1)
    draw_points(picture, truth, [TRUTH] * len(truth))
    draw_points(picture, predicted, [PREDICTION] * len(predicted))
    return picture


def part_colours(count: int) -> list[tuple[int, int, int]]:
    """Return a colour for each part, evenly spaced in hue."""
    return [
        tuple(round(255 * c) for c in colorsys.hsv_to_rgb(part / count, 0.9, 1.0))
        for part in range(count)
    ]


def parts_picture(image: Tensor, points: np.ndarray, visible: np.ndarray) -> Image.Image:
    """Return a picture with the visible parts as dots, a colour a part."""
    picture = to_picture(image, ZOOM)
    colours = part_colours(len(points))
    shown = np.flatnonzero(visible)
    draw_points(picture, points[shown], [colours[i] for i in shown])
    return picture


def sheet(pictures: list[Image.Image], columns: int, title: str) -> Image.Image:
    """Return pictures of one size in a grid, row by row, below a title."""
    width, height = pictures[0].size
    columns = min(columns, len(pictures))
    rows = math.ceil(len(pictures) / columns)
    size = (columns * (width + GAP) + GAP, rows * (height + GAP) + GAP + HEADER)
    page = Image.new("RGB", size, "white")
    font = ImageFont.load_default(15)
    ImageDraw.Draw(page).text((GAP, 3), title, fill="black", font=font)
    for place, picture in enumerate(pictures):
        row, column = divmod(place, columns)
        page.paste(picture, (GAP + column * (width + GAP), HEADER + GAP + row * (height + GAP)))
    return page


def heat_picture(values: np.ndarray, low: float, high: float, side: int) -> Image.Image:
    """Return a map (h, w) as a grey picture of ``side`` pixels: black at low, white at high."""
    scaled = np.clip((values - low) / max(high - low, 1e-12), 0, 1)
    picture = Image.fromarray((255 * scaled).round().astype(np.uint8))
    return picture.resize((side, side), Image.Resampling.BILINEAR)


def rgb_picture(values: np.ndarray, low: np.ndarray, high: np.ndarray, side: int) -> Image.Image:
    """Return maps (3, h, w) as the channels of a colour picture; see `heat_picture`."""
    channels = [heat_picture(v, a, b, side) for v, a, b in zip(values, low, high, strict=True)]
    return Image.merge("RGB", channels)


def save_picture(picture: Image.Image, path: Path) -> None:
    """Write a picture as PNG, making its folder."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_file_whole(path, lambda file: picture.save(file, "PNG"))
