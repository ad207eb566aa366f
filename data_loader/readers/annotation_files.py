"""Reading of the benchmarks' lists and tables, with errors that name the file and the line."""

import math
import os
import re
from pathlib import Path

import numpy as np

from utils.errors import InputError
from utils.files import check_is_file

LAYOUT = "no such file; the benchmark's layout has one there"
# What no editor leaves in a text, and a terminal may obey.
CONTROL = re.compile(r"[\0-\x08\x0e-\x1f\x7f-\x9f]")


def read_lines(path: Path) -> list[str]:
    """Return a text file's lines without their ends and without trailing blank lines.

    A byte-order mark and Windows' line ends are no part of them.

    Raises:
        InputError: if the file is absent or not text.
    """
    check_is_file(path, LAYOUT)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{path}: not a text file") from None
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    lines = [line.strip() for line in text.splitlines()]
    if CONTROL.search(text):
        raise InputError(f"{path}: not a text file, it holds control characters")
    while lines and not lines[-1]:
        lines.pop()
    return lines


def read_names(path: Path, once: bool = False) -> list[str]:
    """Return the first word of each line, at least one.

    Args:
        path: the file.
        once: no name may stand there twice.

    Raises:
        InputError: if the file is absent, or has an empty line or none.
    """
    lines = read_lines(path)
    if not lines:
        raise InputError(f"{path}: empty, expected one name a line")
    for number, line in enumerate(lines, 1):
        if not line:
            raise InputError(f"{path}, line {number}: empty, expected a name")
    names = [line.split()[0] for line in lines]
    if once:
        check_unique(path, names)
    return names


def parse_number(word: str) -> float:
    """Return the finite number that a word writes.

    Raises:
        ValueError: if it writes none; Python's digit groups, as in 1_000, are none.
    """
    number = float(word)
    if "_" in word or not math.isfinite(number):
        raise ValueError(word)
    return number


def parse_table(
    path: Path, lines: list[str], columns: int, first_line: int, separator: str | None = None
) -> tuple[list[str], np.ndarray]:
    """Parse lines of one name and ``columns`` finite numbers.

    Args:
        path: named in errors.
        lines: the lines to parse.
        columns: numbers that follow the name; further words are ignored.
        first_line: number in the file of the first of the lines.
        separator: between words; white space if None.

    Returns:
        Names, and numbers (lines, columns).

    Raises:
        InputError: naming the first line that doesn't fit, or a name that stands twice.
    """
    names, rows = [], np.empty((len(lines), columns))
    for place, line in enumerate(lines):
        words = line.split(separator)
        try:
            numbers = [parse_number(word) for word in words[1 : columns + 1]]
        except ValueError:
            numbers = []
        if len(numbers) != columns:
            raise InputError(
                f"{path}, line {first_line + place}: expected a name and {columns} finite "
                f"numbers, found {line[:60]!r}"
            )
        rows[place] = numbers
        names.append(words[0])
    check_unique(path, names)
    return names, rows


def check_unique(path: Path, names: list[str]) -> None:
    """Raise an `InputError` that names the first name which stands twice in a file."""
    if len(set(names)) < len(names):
        seen: set[str] = set()
        twice = next(name for name in names if name in seen or seen.add(name))
        raise InputError(f"{path}: {twice} stands there twice")


def check_points(path: Path, names: list[str], points: np.ndarray, sizes) -> None:
    """Raise an `InputError` if a point can't belong to its image.

    Published points may lie outside their image: of a face that is cut off, an annotator
    guesses the rest. None is further out than the image is large, as a digit too many or a
    shifted column makes it.

    Args:
        path: of the points, named in the error.
        names: of the N images.
        points: (N, A, 2), x before y.
        sizes: width and height of all images (2,) or of each (N, 2), in the points' unit.
    """
    sizes = np.broadcast_to(np.asarray(sizes, dtype=np.float64), (len(points), 2))
    far = (points < -sizes[:, None]) | (points > 2 * sizes[:, None])  # (N, A, 2)
    if far.any():
        row, place, _ = np.argwhere(far)[0]
        (x, y), (width, height) = points[row, place], sizes[row]
        raise InputError(
            f"{path}: point {place + 1} of {names[row]} is at ({x:g}, {y:g}), further outside "
            f"the image than its size of {width:g} x {height:g}"
        )


def check_images(folder: Path, filenames: list[str], source: Path) -> None:
    """Raise an `InputError` if a listed image isn't there; one listing of each folder."""
    present: dict[Path, set[str]] = {}
    for name in filenames:
        path = folder / name
        if path.parent not in present:
            # os.path.isdir is False, where Path.is_dir raises, for a name too long to be one.
            if not os.path.isdir(path.parent):
                raise InputError(f"{path.parent}: no such folder; {source} names images in it")
            try:
                present[path.parent] = set(os.listdir(path.parent))
            except OSError as error:
                raise InputError(f"{path.parent}: {error.strerror}") from None
        if path.name not in present[path.parent]:
            raise InputError(f"{path}: no such image; {source} names it")
