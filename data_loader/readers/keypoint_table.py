"""What the readers of annotation files return: named points of images, and what names tell.

Letters: N annotated instances, A named points.
"""

import math
import re
from collections.abc import Mapping, Sequence
from itertools import compress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data_loader.readers.annotation_files import Find, repeated
from utils.errors import InputError
from utils.files import printable

Point = tuple[float, float]  # x and y in pixels, NaN of one that is missing
MISSING, NO_BOX = (math.nan,) * 2, (math.nan,) * 4
MOST_NAMES = 10_000  # an object has fewer points; a wrong column has more
# A table of more cells, of which fewer than one in so many is given, has a file too small for it.
MOST_EMPTY, MOST_EMPTY_EACH = 4_000_000, 20
LONGEST_SHOWN = 200  # characters
WORDS = {"left": "right", "Left": "Right", "LEFT": "RIGHT"}
# An l or L that stands for left: no letter beside it ("l_eye", "L1"), or only a word's other case
# ("eyeL", "wingL2", "LEye").
LETTER = re.compile(
    r"(?<![^\W\d_])[lL](?![^\W\d_])|(?<=[a-z])L(?![a-z])|(?<![^\W\d_])[lL](?=[A-Z])"
)
# Standard deviation of annotators' clicks, as a fraction of the square root of the instance's area
# [cocodataset.org, keypoints evaluation].
COCO_SIGMAS = {
    **{"nose": 0.026, "left_eye": 0.025, "right_eye": 0.025, "left_ear": 0.035},
    **{"right_ear": 0.035, "left_shoulder": 0.079, "right_shoulder": 0.079},
    **{"left_elbow": 0.072, "right_elbow": 0.072, "left_wrist": 0.062, "right_wrist": 0.062},
    **{"left_hip": 0.107, "right_hip": 0.107, "left_knee": 0.087, "right_knee": 0.087},
    **{"left_ankle": 0.089, "right_ankle": 0.089},
}


class KeypointTable(NamedTuple):
    """N annotated instances of A named points.

    Pixels are those of the image as it is shown, a note of its orientation (EXIF) applied; the
    centre of the first one is 0, y runs downwards. The reader of one format doesn't look at the
    images: in its table they have the names and sizes that the file says, and y may run upwards.

    Attributes:
        names: of the A points, each once.
        images: N names, relative to the data folder; an image with several instances is there
            several times.
        points: (N, A, 2) float64, x before y, in pixels; NaN where a point is missing.
        boxes: (N, 4) float64: left, top, right and bottom in pixels; NaN where there is none.
        areas: (N,) float64, in square pixels, of the instance, for OKS; NaN where unknown.
        ids: N names of the instances, each once, none empty.
        notices: lines for the log: what was left out.
        sizes: (N, 2) float64, width and height of the images, NaN of those that can't be read.
        turned: (N,), bool, which images a note of their orientation turns; empty in a reader's.
        flip_pairs: names that a mirror swaps, where the file or the names tell.
        sigmas: (A,) float64, COCO's for OKS, where they apply.
        y_up: y runs upwards from the images' lower edge: row = height - y; of all, or of each (N,).
            None in a reader's table if its format leaves that open.
        scales: units per pixel, by the names of the images of which the file says it.
    """

    names: list[str]
    images: list[str]
    points: np.ndarray
    boxes: np.ndarray
    areas: np.ndarray
    ids: list[str]
    notices: list[str]
    sizes: np.ndarray
    turned: np.ndarray = np.zeros(0, dtype=bool)
    flip_pairs: Sequence[tuple[str, str]] = ()
    sigmas: np.ndarray | None = None
    y_up: bool | np.ndarray | None = False
    scales: Mapping[str, float] = {}


def select(table: KeypointTable, rows: np.ndarray) -> KeypointTable:
    """Return some instances of a table, bool (N,); what it notes stays with all of them."""
    arrays = ("points", "boxes", "areas", "sizes", "turned")
    kept: dict[str, Any] = {name: getattr(table, name)[rows] for name in arrays}
    kept |= {name: list(compress(getattr(table, name), rows)) for name in ("images", "ids")}
    return table._replace(**kept)


class Row(NamedTuple):
    """What one line, or record, of a file says.

    Attributes:
        line: its number in the file, from 1.
        image: its name.
        instance: which of those that the image shows; empty if it shows one.
        points: by their names, some or all of the instance's.
        box: left, top, right and bottom in pixels, NaN if there is none.
        scale: units per pixel, if it says them.
    """

    line: int
    image: str
    instance: str
    points: dict[str, Point]
    box: Sequence[float] = NO_BOX
    scale: float | None = None


def point_of(path: Path, line: int, name: str, x: float, y: float) -> Point:
    """Return a point as a line has it: -1 -1 is a missing one; one NaN alone is an `InputError`."""
    if math.isnan(x) != math.isnan(y):
        raise InputError(f"{path}, line {line}: point {shown(name)} has one coordinate alone")
    return MISSING if x == y == -1 else (x, y)


def table_of_rows(
    path: Path, rows: Sequence[Row], find: Find, names: Sequence[str] | None = None
) -> KeypointTable:
    """Gather instances of the rows that say something of each; what repeats is left out.

    Args:
        path: the file, for errors.
        rows: in the order of the file.
        find: the images that they name.
        names: of the points; those of the rows in their order, if not given.

    Raises:
        InputError: if the names can't be those of points (`check_names`), a point of an instance
            is there twice, at other places, or the rows say too little of a large table.
    """
    if names is not None:
        check_names(str(path), names)
    images, notices = find([row.image for row in rows])
    found, again = dict[str, Row](), 0
    for row in (row._replace(image=image) for row, image in zip(rows, images, strict=True)):
        key = f"{row.image}#{row.instance}" if row.instance else row.image
        first = found.setdefault(key, row)
        again += first is not row and row.points.keys() <= first.points.keys()
        for name, point in row.points.items():
            known = first.points.setdefault(name, point)
            if known is not point and not np.array_equal(known, point, equal_nan=True):
                raise InputError(
                    f"{path}, line {row.line}: point {shown(name)} of {shown(key)} is there twice, "
                    f"at other places; {shown(key)} is first on line {first.line}"
                )
    kept, nothing = list(found.values()), np.full((len(found), 4), np.nan)
    if names is None:
        names = list(dict.fromkeys(name for row in kept for name in row.points))
        check_names(str(path), names)
    if again:
        notices.append(f"{path}: {again:,} lines that repeat another one left out")
    cells, given = len(kept) * len(names), sum(len(row.points) for row in kept)
    if cells > max(MOST_EMPTY, MOST_EMPTY_EACH * given):
        raise InputError(
            f"{path}: has {given:,} points of {len(names):,} names in {len(kept):,} images or "
            "instances, expected most names in most of them; are points' names in that column?"
        )
    columns = {name: column for column, name in enumerate(names)}
    points = np.full((len(kept), len(names), 2), np.nan)
    for place, row in enumerate(kept):
        points[place, [columns[name] for name in row.points]] = list(row.points.values())
    return KeypointTable(
        names=list(names),
        images=[row.image for row in kept],
        points=points,
        boxes=np.array([row.box for row in kept]),
        areas=nothing[:, 0],
        ids=list(found),
        notices=notices,
        sizes=nothing[:, :2],
        scales={row.image: row.scale for row in kept if row.scale is not None},
    )


# ---- names ----


def named(files: Sequence[object]) -> str:
    """Return what errors call some files: the first of them, and how many more."""
    more = f" and {len(files) - 1:,} more" if len(files) > 1 else ""
    return f"{files[0]}{more}"


def check_same_names(
    file: object, names: Sequence[str], other: object, others: Sequence[str]
) -> None:
    """Raise an `InputError` unless a file names the same points as another one, in any order."""
    if odd := sorted(set(names) ^ set(others)):
        raise InputError(
            f"{file}: its points aren't those of {other}: {shown_list(odd)} "
            f"{'is' if len(odd) == 1 else 'are'} in one of them alone"
        )


def places_of(wanted: Sequence[str], names: Sequence[str]) -> list[int]:
    """Return where each of some names stands among all, which differ."""
    places = {name: place for place, name in enumerate(names)}
    return [places[name] for name in wanted]


def shown(name: str) -> str:
    """Return a name as an error's one line may hold it."""
    name = printable(name)
    return name if len(name) <= LONGEST_SHOWN else f"{name[:LONGEST_SHOWN]}..."


def shown_list(names: Sequence[str], most: int = 3) -> str:
    """Return the first of some names, and that there are more."""
    return ", ".join(shown(name) for name in names[:most]) + (", ..." if len(names) > most else "")


def check_names(place: str, names: Sequence[str]) -> None:
    """Raise an `InputError` unless there are points, and each name is there once.

    Args:
        place: file, and line if there is one, for the error.
        names: of the points.
    """
    if not names:
        raise InputError(f"{place}: names no point")
    if len(names) > MOST_NAMES:
        raise InputError(f"{place}: names {len(names):,} points, more than {MOST_NAMES:,}")
    if "" in names:
        raise InputError(f"{place}: a point has no name")
    if twice := repeated(names):
        raise InputError(f"{place}: the point {shown(twice)} is named twice")


def find_flip_pairs(names: Sequence[str]) -> list[tuple[str, str]]:
    """Return which points a mirror swaps: names that differ by left and right, or by L and R.

    "left_eye" and "right_eye", "eyeL" and "eyeR", "l_ear" and "r_ear", "LeftPaw" and "RightPaw".
    """
    left = set(names)  # those that are in no pair
    pairs = []
    for name in names:
        others = [name.replace(word, WORDS[word]) for word in WORDS if word in name]
        for match in LETTER.finditer(name):
            right = "r" if match[0] == "l" else "R"
            others.append(name[: match.start()] + right + name[match.end() :])
        found = next((other for other in others if other in left), None)
        if found is not None and name in left:
            pairs.append((name, found))
            left -= {name, found}
    return pairs
