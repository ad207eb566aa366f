"""A page to look through landmarks with: one folder of files that a browser opens, no server.

The folder holds ``index.html`` with its style and script (those of ``engine/pages/files``), the
records as ``data/*.js``, `PAGE_SIZE` a file, and the images as JPEGs whose names are numbers.
Letters: N records, A named points.
"""

import argparse
import json
import math
import shutil
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from data_loader.framing import Window
from data_loader.readers.images import FULL_RANGE, Levels, open_image
from utils.drawing import part_colours
from utils.errors import ImageError, InputError
from utils.files import UNFINISHED, printable, write_text, writing

FILES = Path(__file__).parent / "files"
PAGE_SIZE = 500  # records of a data file: few enough to be read while the page is alive
FOLDER_SIZE = 1000  # images of a folder: file managers show more only slowly
THUMBNAIL, ENLARGED = 240, 960  # longer sides of an image, in pixels
QUALITY = 85  # of the JPEGs
NO_IMAGE, ONE_SIZE, TWO_SIZES = range(3)  # what there is of a record's image


def add_page_argument(group: argparse._ActionsContainer) -> None:
    """Declare the folder of a page."""
    group.add_argument(
        "--page",
        type=Path,
        metavar="DIR",
        help="write a page to look through predicted landmarks with, beside true ones where they "
        "are known, as a new folder: open its index.html in a browser",
    )


class PageRecord(NamedTuple):
    """One image, or one instance in it, with what was found there.

    Attributes:
        name: to show; any text.
        image: a file, which is opened with its note of orientation heeded, or an image in memory.
        points: (A, 2) float, x before y, in original pixels: the centre of the first is 0. NaN
            where nothing was found.
        confidence: (A,) in [0, 1]; NaN where it isn't known.
        truth: (A, 2) as ``points``, NaN where a point isn't annotated; None if none is.
        size: width and height of the original image, in pixels.
        label: to show beside the name, such as a split.
        window: the part of the image to show, which may lie beyond its edges; None for all of it.
        levels: of a file of 16 bits, see `open_image`.
    """

    name: str
    image: Path | Image.Image
    points: np.ndarray
    confidence: np.ndarray
    truth: np.ndarray | None
    size: tuple[int, int]
    label: str = ""
    window: Window | None = None
    levels: Levels = FULL_RANGE


def write_page(
    folder: Path,
    records: Iterable[PageRecord],
    *,
    names: Sequence[str],
    title: str,
    about: str = "",
    overwrite: bool = False,
) -> Path:
    """Write a page of records, which are taken one by one; return the file to open in a browser.

    The page appears as a whole when all is written; a killed run leaves ``.NAME.unfinished``
    beside its place, which the next one removes.

    Args:
        folder: of the page; its parents are made.
        records: N.
        names: of the A points.
        title: of the page.
        about: a line below it.
        overwrite: replace a page that is there.

    Raises:
        InputError: if something is there already, or it can't be written.
    """
    check_page(folder, overwrite)
    partial = folder.with_name(f".{folder.name}{UNFINISHED}")
    with writing(folder):
        shutil.rmtree(partial, ignore_errors=True)
        (partial / "data").mkdir(parents=True)
    try:
        _fill(partial, records, list(names), {"title": title, "about": about})
        with writing(folder):
            if folder.exists():
                shutil.rmtree(folder)
            partial.replace(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder / "index.html"


def check_page(folder: Path, overwrite: bool = False) -> None:
    """Raise an `InputError` unless a page may be written, so that none is lost after hours.

    Even with ``overwrite``, only an empty folder or a page is replaced.
    """
    if not folder.name:
        raise InputError(f"{folder}: expected the name of a folder for the page")
    if not folder.exists() and not folder.is_symlink():
        return
    if not folder.is_dir():
        raise InputError(f"{folder}: is there already, and no folder")
    if not any(folder.iterdir()):
        return
    is_page = (folder / "data" / "summary.js").is_file() and (folder / "page.js").is_file()
    if not (overwrite and is_page):
        what = "holds a page already" if is_page else "isn't empty, and no page"
        raise InputError(f"{folder}: {what}; name another folder for the page")


def _fill(
    folder: Path, records: Iterable[PageRecord], names: list[str], heading: dict[str, str]
) -> None:
    """Write all files of a page."""
    for path in FILES.iterdir():
        if path.is_file():
            write_text(folder / path.name, path.read_text(encoding="utf-8"))
    count, left = 0, iter(records)
    while rows := [
        _row(folder / "images", number, record)
        for number, record in zip(range(count, count + PAGE_SIZE), left, strict=False)
    ]:
        columns = {name: list(chain.from_iterable(row[name] for row in rows)) for name in rows[0]}
        content = _call("addRecords", {"first": count, **columns})
        write_text(folder / "data" / f"{count // PAGE_SIZE:04d}.js", content)
        count += len(rows)
    summary = {
        **{name: printable(text) for name, text in heading.items()},
        "points": [printable(name) for name in names],
        "colours": [f"#{bytes(colour).hex()}" for colour in part_colours(len(names))],
        "count": count,
        "pageSize": PAGE_SIZE,
        "folderSize": FOLDER_SIZE,
    }
    write_text(folder / "data" / "summary.js", _call("setSummary", summary))


def _row(folder: Path, number: int, record: PageRecord) -> dict[str, Sequence[Any]]:
    """Write a record's images; return its numbers and texts by column of a data file."""
    left, top, right, bottom = window = _window(record)
    truth = np.full_like(record.points, np.nan) if record.truth is None else record.truth
    return {
        "names": [printable(record.name)],
        "labels": [printable(record.label)],
        "images": [_save_images(folder, number, record, window)],
        "frames": (left, top, right - left, bottom - top),
        "points": _numbers(record.points, 2),
        "confidence": _numbers(record.confidence, 4),
        "truth": _numbers(truth, 2),
    }


def _numbers(values: np.ndarray, digits: int) -> list[float | None]:
    """Return all numbers of an array, rounded; None, which JSON has, for those that aren't one."""
    flat = np.asarray(values, dtype=np.float64).ravel().tolist()
    return [round(value, digits) if math.isfinite(value) else None for value in flat]


def _call(function: str, value: object) -> str:
    """Return a script that hands a value to one of the page's functions.

    It is ASCII, and has no character that HTML knows: no text can end the script.
    """
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return f"{function}({text});\n"


def _save_images(folder: Path, number: int, record: PageRecord, window: Window) -> int:
    """Write the JPEGs of a window of a record's image; return which there are."""
    image = record.image
    try:
        if isinstance(image, Path):
            image = open_image(image, oriented=True, levels=record.levels)
    except ImageError:
        return NO_IMAGE
    image = image.convert("RGB").crop(window)
    place = folder / f"{number // FOLDER_SIZE:03d}"
    with writing(place):
        place.mkdir(parents=True, exist_ok=True)
        _shrink(image, THUMBNAIL).save(place / f"{number}.jpg", quality=QUALITY)
        if max(image.size) <= THUMBNAIL:
            return ONE_SIZE
        _shrink(image, ENLARGED).save(place / f"{number}_large.jpg", quality=QUALITY)
    return TWO_SIZES


def _window(record: PageRecord) -> Window:
    """Return which pixels to show: a record's window, cut off at the image's edges, or all."""
    whole = 0, 0, *record.size
    left, top, right, bottom = np.clip(record.window or whole, 0, record.size * 2).tolist()
    return (left, top, right, bottom) if right > left and bottom > top else whole


def _shrink(image: Image.Image, longer: int) -> Image.Image:
    """Return an image whose longer side has at most so many pixels; each side has at least one."""
    scale = longer / max(image.size)
    if scale >= 1:
        return image
    width, height = (max(1, round(length * scale)) for length in image.size)
    return image.resize(
        (width, height),
        Image.Resampling.BOX if scale < 0.1 else Image.Resampling.BICUBIC,
        reducing_gap=2.0,
    )
