"""Images of results, drawn with Pillow.

Images are (3, H, W) tensors in [0, 1]; points (A, 2) in pixels of the image, x before y.
"""

import colorsys
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from utils.files import write_file, writing

ZOOM = 4  # of an image with points, so that a dot is smaller than what it marks
TRUTH, PREDICTION, WHITE = (40, 200, 60), (50, 90, 255), (255, 255, 255)
GAP = 4  # pixels between the images of a sheet
HEADER = 24  # pixels above a sheet for its title
LONGEST = 50  # characters of a name that are drawn
MOST_NAMES = 1000  # that are drawn


def to_pil(image: Tensor, zoom: int = 1) -> Image.Image:
    """Return (3, H, W) in [0, 1] as an RGB image, enlarged ``zoom`` times."""
    array = (image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
    drawing = Image.fromarray(array)
    return drawing.resize((drawing.width * zoom, drawing.height * zoom), Image.Resampling.BICUBIC)


def enlarged(points: np.ndarray, zoom: float) -> np.ndarray:
    """Return where points (A, 2) lie in an image enlarged ``zoom`` times, in its pixels.

    The centre of pixel 0 lies half an enlarged pixel inside the image.
    """
    return (np.asarray(points) + 0.5) * zoom - 0.5


def draw_points(
    drawing: Image.Image, points: np.ndarray, colours: list[tuple[int, int, int]]
) -> None:
    """Dot points (A, 2), in pixels of an image, onto what is the image enlarged `ZOOM` times."""
    draw = ImageDraw.Draw(drawing)
    radius = max(2, drawing.width // (70 if len(points) <= 20 else 130))
    for (x, y), colour in zip(enlarged(points, ZOOM), colours, strict=True):
        box = (x - radius, y - radius, x + radius, y + radius)
        draw.ellipse(box, fill=colour, outline=(255, 255, 255))


def draw_predictions(image: Tensor, predicted: np.ndarray, truth: np.ndarray) -> Image.Image:
    """Return an image with true points in green and predicted ones in blue, joined by lines."""
    drawing = to_pil(image, ZOOM)
    draw = ImageDraw.Draw(drawing)
    for p, t in zip(enlarged(predicted, ZOOM), enlarged(truth, ZOOM), strict=True):
        draw.line([tuple(p), tuple(t)], fill=(255, 255, 255), width=1)
    draw_points(drawing, truth, [TRUTH] * len(truth))
    draw_points(drawing, predicted, [PREDICTION] * len(predicted))
    return drawing


def part_colours(count: int) -> list[tuple[int, int, int]]:
    """Return a colour for each part, (red, green, blue) of 0 to 255, evenly spaced in hue."""
    hues = (colorsys.hsv_to_rgb(part / count, 0.9, 1.0) for part in range(count))
    return [(round(255 * r), round(255 * g), round(255 * b)) for r, g, b in hues]


def draw_parts(
    image: Tensor, points: np.ndarray, visible: np.ndarray, numbers: bool = False
) -> Image.Image:
    """Return an image with the visible parts as dots, a colour a part, and their ``numbers``."""
    drawing = to_pil(image, ZOOM)
    colours = part_colours(len(points))
    shown = np.flatnonzero(visible)
    draw_points(drawing, points[shown], [colours[i] for i in shown])
    if numbers:
        draw, size = ImageDraw.Draw(drawing), drawing.width // 25
        font = ImageFont.load_default(size)
        for place, (x, y) in zip(shown.tolist(), enlarged(points[shown], ZOOM), strict=True):
            where, name, edge = (x + size, y - 1.4 * size), str(place + 1), max(1, size // 12)
            draw.text(where, name, "white", font, stroke_width=edge, stroke_fill="black")
    return drawing


def draw_names(names: Sequence[str]) -> Image.Image:
    """Return the names of parts, each beside a dot of the colour that `draw_parts` gives it."""
    font = ImageFont.load_default(15)
    names = [name if len(name) <= LONGEST else f"{name[:LONGEST]}..." for name in names]
    colours = part_colours(len(names))
    if (more := len(names) - MOST_NAMES) > 0:
        names, colours = [*names[:MOST_NAMES], f"and {more:,} more"], [*colours[:MOST_NAMES], WHITE]
    width = max(math.ceil(font.getlength(name)) for name in names)
    page = Image.new("RGB", (width + HEADER + GAP, HEADER * len(names)), "white")
    draw = ImageDraw.Draw(page)
    for row, (name, colour) in enumerate(zip(names, colours, strict=True)):
        top = row * HEADER
        draw.ellipse((6, top + 6, HEADER - 6, top + HEADER - 6), fill=colour)
        draw.text((HEADER, top + 3), name, fill="black", font=font)
    return page


def sheet(drawings: list[Image.Image], columns: int, title: str) -> Image.Image:
    """Return images of one size in a grid, row by row, below a title."""
    width, height = drawings[0].size
    columns = min(columns, len(drawings))
    rows = math.ceil(len(drawings) / columns)
    font = ImageFont.load_default(15)
    across = max(columns * (width + GAP), math.ceil(font.getlength(title)) + GAP)
    page = Image.new("RGB", (across + GAP, rows * (height + GAP) + GAP + HEADER), "white")
    ImageDraw.Draw(page).text((GAP, 3), title, fill="black", font=font)
    for place, drawing in enumerate(drawings):
        row, column = divmod(place, columns)
        page.paste(drawing, (GAP + column * (width + GAP), HEADER + GAP + row * (height + GAP)))
    return page


def render_heatmap(values: np.ndarray, low: float, high: float, side: int) -> Image.Image:
    """Return a map (h, w) as a grey image of ``side`` pixels: black at low, white at high."""
    scaled = np.clip((values - low) / max(high - low, 1e-12), 0, 1)
    drawing = Image.fromarray((255 * scaled).round().astype(np.uint8))
    return drawing.resize((side, side), Image.Resampling.BILINEAR)


def save_png(drawing: Image.Image, path: Path) -> None:
    """Write an image as PNG, making its folder."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, lambda file: drawing.save(file, "PNG"))


def draw_named(
    image: Image.Image,
    points: np.ndarray,
    names: Sequence[str],
    confidence: Iterable[float],
    longer: tuple[int, int] = (480, 960),
) -> Image.Image:
    """Return an image with points, each beside its name and confidence, a colour a point.

    Args:
        image: in its own pixels.
        points: (A, 2), in these.
        names: A.
        confidence: A; a point below one half is a ring.
        longer: the least and the largest longer side that the drawing has.
    """
    side = max(image.size)
    zoom = min(max(longer[0] / side, 1), longer[1] / side)
    size = max(1, round(image.width * zoom)), max(1, round(image.height * zoom))
    drawing = image.resize(size, Image.Resampling.BICUBIC)
    draw, font = ImageDraw.Draw(drawing), ImageFont.load_default(12)
    found = zip(enlarged(points, zoom), names, confidence, part_colours(len(names)), strict=True)
    for (x, y), name, sure, colour in found:
        fill = colour if sure >= 0.5 else None
        draw.ellipse((x - 3, y - 3, x + 3, y + 3), fill=fill, outline=colour)
        text = f"{name} {sure:.2f}"
        is_cut = x + 6 + font.getlength(text) > size[0]  # if it began right of the point
        place, anchor = ((x - 6, y), "rm") if is_cut else ((x + 6, y), "lm")
        draw.text(place, text, colour, font, anchor, stroke_width=1, stroke_fill="black")
    return drawing
