"""Reading of the benchmarks' lists and tables.

What is absent or doesn't fit raises an `InputError` that names the file and the line.

Letters: N images, A landmarks.
"""

import codecs
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path

import numpy as np

from data_loader.readers.images import SUFFIXES
from utils.errors import InputError
from utils.files import check_is_file, unquoted

LAYOUT = "no such file; the benchmark's layout has one there"
# What no editor leaves in a text, and a terminal may obey.
CONTROL = re.compile(r"[\0-\x08\x0e-\x1f\x7f-\x9f]")
Find = Callable[..., tuple[list[str], list[str]]]  # see `keypoint_files.locate`
AT_A_TIME = 2**20  # characters of a text, at least, that are made lines
UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
# A line's name ends with the suffix of an image, and may hold spaces; else it is the first word.
IMAGE_NAME = re.compile(rf"(?:.*?\.(?:{'|'.join(sorted(SUFFIXES))})(?!\S)|\S*)", re.IGNORECASE)


def read_lines(path: Path, blank: str | None = None, encoding: str = "utf-8-sig") -> list[str]:
    """Return a text file's lines, see `iterate_lines`."""
    return list(iterate_lines(path, blank, encoding))


def iterate_lines(
    path: Path, blank: str | None = None, encoding: str = "utf-8-sig"
) -> Iterator[str]:
    """Yield a text file's lines without their ends and without trailing blank lines.

    A byte-order mark and Windows' line ends are no part of them. The text is in an encoding, or in
    UTF-16 where the mark says so. What is taken off the lines' ends is all white space, or only the
    characters ``blank``: tabs may part empty cells.
    """
    check_is_file(path, LAYOUT)
    try:
        content = path.read_bytes()
        text = content.decode("utf-16" if content.startswith(UTF16_MARKS) else encoding)
        del content
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: not a text file in UTF-8, nor in UTF-16 with a byte-order mark (byte "
            f"{error.start} doesn't fit); save it as UTF-8"
        ) from None
    if found := CONTROL.search(text):
        guess = "; if it is UTF-16 or UTF-32, save it as UTF-8" if found[0] == "\0" else ""
        raise InputError(f"{path}: not a text file, it holds control characters{guess}")
    text = text.rstrip(blank)
    end = -1 if text else 0
    while end < len(text):
        # Some at a time: those of a million images would take a hundred bytes each.
        begin, end = end + 1, text.find("\n", end + 1 + AT_A_TIME)
        end = len(text) if end < 0 else end
        yield from (line.strip(blank) for line in f"{text[begin:end]}\n".splitlines())


def split_name(line: str) -> tuple[str, str]:
    """Return the name that a line begins with, and the rest of the line."""
    name = IMAGE_NAME.match(line)[0]  # type: ignore[index]  # it matches any text
    return name, line[len(name) :]


def read_names(path: Path, once: bool = False) -> list[str]:
    """Return the name that each line begins with, at least one; each name ``once`` if so asked."""
    lines = read_lines(path)
    if not lines:
        raise InputError(f"{path}: empty, expected one name a line")
    if "" in lines:
        raise InputError(f"{path}, line {lines.index('') + 1}: empty, expected a name")
    names = [split_name(line)[0] for line in lines]
    if once:
        check_unique(path, names)
    return names


def parse_number(word: str) -> float:
    """Return the finite number that a word writes, or raise a ValueError, also for 1_000."""
    number = float(word)
    if "_" in word or not math.isfinite(number):
        raise ValueError(word)
    return number


def parse_coordinate(word: str) -> float:
    """Return the finite number that a word writes; NaN if it is empty, "nan" or R's "NA"."""
    return math.nan if word.strip().lower() in ("", "nan", "na") else parse_number(word)


def find_annotated(points: np.ndarray) -> np.ndarray:
    """Return which points are annotated, (N, A) bool.

    Missing ones are (-1, -1) or NaN in the benchmarks' files, or all of an image's points are 0.

    Args:
        points: (N, A, 2), x before y, as in the file.
    """
    missing = np.isnan(points).all(axis=-1) | (points == -1).all(axis=-1)
    return ~(missing | (points == 0).all(axis=(1, 2))[:, None])


def parse_table(
    path: Path,
    lines: list[str],
    columns: int,
    first_line: int,
    parse: Callable[[str], float] = parse_number,
) -> tuple[list[str], np.ndarray]:
    """Parse lines of one name and ``columns`` numbers.

    Args:
        path: named in errors.
        lines: some of the file's lines; words after the numbers are ignored.
        columns: as many numbers follow each name.
        first_line: number in the file of the first of the lines.
        parse: a word to its number.

    Returns:
        Names, of which none appears twice, and numbers (lines, columns).
    """
    names, rows = [], np.empty((len(lines), columns))
    for place, line in enumerate(lines):
        name, rest = split_name(line)
        try:
            numbers = [parse(word) for word in rest.split()[:columns]]
        except ValueError:
            numbers = []
        if len(numbers) != columns:
            raise InputError(
                f"{path}, line {first_line + place}: expected a name and {columns} finite "
                f"numbers, found {line[:60]!r}"
            )
        rows[place] = numbers
        names.append(name)
    check_unique(path, names)
    return names, rows


def check_unique(path: Path, names: list[str]) -> None:
    """Raise an `InputError` that names the first name which appears twice in a file."""
    twice = repeated(names)
    if twice is not None:
        raise InputError(f"{path}: {twice} appears twice")


def repeated(names: Iterable[str]) -> str | None:
    """Return the first name that is there a second time, None if all differ."""
    seen = set[str]()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def check_points(
    path: Path, names: list[str], points: np.ndarray, sizes: np.ndarray | Sequence[float]
) -> None:
    """Raise an `InputError` if a point can't belong to its image.

    Published points may lie outside their image: of a face that is cut off, an annotator
    guesses the rest. None is further out than the image is large, as a digit too many or a
    shifted column makes it. Missing points (`find_annotated`) pass.

    Args:
        path: named in the error.
        names: of the N images.
        points: (N, A, 2), x before y.
        sizes: width and height of all images (2,) or of each (N, 2), in the points' unit.
    """
    half = np.isnan(points).any(axis=-1) & ~np.isnan(points).all(axis=-1)  # (N, A)
    if half.any():
        row, place = np.argwhere(half)[0]
        raise InputError(f"{path}: point {place + 1} of {names[row]} has one coordinate alone")
    sizes = np.broadcast_to(np.asarray(sizes, dtype=np.float64), (len(points), 2))
    far = (points < -sizes[:, None]) | (points > 2 * sizes[:, None])  # (N, A, 2)
    if far.any():
        row, place, _ = np.argwhere(far)[0]
        (x, y), (width, height) = points[row, place], sizes[row]
        raise InputError(
            f"{path}: point {place + 1} of {names[row]} is at ({x:g}, {y:g}), further outside "
            f"the image than its size of {width:g} x {height:g}"
        )


def replace_backslashes(folder: Path, filenames: list[str]) -> list[str]:
    """Return listed names with Windows' separators replaced, but for files that have such names.

    Names that `quoted` made are those of the files again.
    """
    return [_on_disk(folder, name) if "\\" in name or "%" in name else name for name in filenames]


def _on_disk(folder: Path, name: str) -> str:
    forms = name, name.replace("\\", "/"), unquoted(name)
    return next((form for form in forms if os.path.isfile(folder / form)), forms[1])


def check_images(folder: Path, filenames: list[str], source: Path) -> None:
    """Raise an `InputError` if a listed image isn't there; one listing of each folder."""
    listed = cache(lambda parent: set(os.listdir(parent)))
    for path in (folder / name for name in filenames):
        try:
            found = path.name in listed(path.parent)
        except (OSError, ValueError) as error:  # the latter for a name that can't be one
            why = error.strerror if isinstance(error, PermissionError) else "no such folder"
            raise InputError(f"{path.parent}: {why}; {source} names images in it") from None
        if not found:
            raise InputError(f"{path}: no such image; {source} names it")
