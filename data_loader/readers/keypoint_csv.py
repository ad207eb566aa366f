"""Plain CSV of points: one line an image ("wide"), or one line a point ("long").

Wide: a column that names the image, and two columns a point whose headers differ in an x and a y at
their begin or end: ``X1,Y1``, ``eye_x,eye_y``, ``beak.x,beak.y``. Long: columns ``point``, ``x``
and ``y``, and one that names the image. Both may have a column ``instance``, if an image shows
several, and one of visibility, whose 0 says that a point is missing. Letters: N instances, A
points.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from data_loader.readers.csv_files import Row, Rows, first_of_each
from data_loader.readers.keypoint_names import check_names, shown, shown_list
from data_loader.readers.keypoint_table import Parsed, parsed_points
from utils.errors import InputError

IMAGE = ("image", "image_name", "image_path", "img", "file", "filename", "file_name", "path")
INSTANCE = ("instance", "individual")
POINT = ("point", "landmark", "keypoint", "bodypart")
VISIBLE = ("visible", "visibility")
BOX = ("xmin", "ymin", "xmax", "ymax")
CONFIDENCE = ("confidence", "likelihood", "score")  # of predictions
SEPARATORS = " _-.:/(["
CLOSING = " )]"  # of "beak (x)"
INVISIBLE = ("0", "0.0", "false")


class Pair(NamedTuple):
    """The columns of one point: x, y, and visibility if there is one."""

    name: str
    places: tuple[int, int]
    visible: int | None


def parse_csv(rows: Rows) -> Parsed:
    """Read a plain CSV file, wide or long as its header tells.

    Raises:
        InputError: if it is neither, or both.
    """
    header = rows.rows[0].cells
    titles = [cell.lower() for cell in header]
    _check_columns(rows, titles)
    pairs = find_pairs(header)
    named = _column(titles, POINT)
    if named is not None and {"x", "y"} <= set(titles):
        if len(pairs) > 1:
            raise InputError(
                f"{rows.path}: its header has columns of one line a point (point, x, y) and of one "
                f"line an image ({shown(pairs[0].name)}): two formats mixed"
            )
        return _parse_long(rows, titles, named)
    if not pairs:
        raise InputError(
            f"{rows.path}: of no known format: neither COCO's JSON, DeepLabCut's CSV, .tps nor CSV "
            "with a header that pairs columns of x and y (image,eye_x,eye_y) or has the columns "
            f"image,point,x,y; it begins with '{shown(','.join(header))}'"
        )
    return _parse_wide(rows, titles, pairs)


def find_pairs(header: Sequence[str]) -> list[Pair]:
    """Return the points of a wide header: columns whose names differ in an x and a y alone."""
    cells = [cell.rstrip(CLOSING) for cell in header]
    columns = {cell.lower(): column for column, cell in reversed(list(enumerate(cells)))}
    pairs: list[Pair] = []
    taken = set[int]()
    for column, cell in enumerate(cells):
        title = cell.lower()
        for start, end, stem in ((title[:-1], "", cell[:-1]), ("", title[1:], cell[1:])):
            other = columns.get(f"{start}y{end}")
            if title != f"{start}x{end}" or other is None or title in BOX:
                continue
            if taken & {column, other}:
                continue
            seen = (columns.get(f"{start}{word}{end}") for word in ("v", *VISIBLE))
            visible = next((place for place in seen if place is not None), None)
            pairs.append(Pair(stem.strip(SEPARATORS) or "point", (column, other), visible))
            taken |= {column, other}
            break
    return pairs


def _check_columns(rows: Rows, titles: list[str]) -> None:
    """Raise an `InputError` if a column with a title is there twice."""
    seen = set[str]()
    for title in titles:
        if title and title in seen:
            line = rows.rows[0].line
            raise InputError(f"{rows.path}, line {line}: the column {shown(title)} is there twice")
        seen.add(title)


def _column(titles: list[str], names: Sequence[str]) -> int | None:
    """Return the first column with one of these names."""
    return next((titles.index(name) for name in names if name in titles), None)


def _image_column(rows: Rows, titles: list[str], taken: set[int]) -> int:
    """Return the column that names images: by its name, else the first."""
    found = _column(titles, IMAGE)
    column = 0 if found is None else found
    if column in taken:
        raise InputError(f"{rows.path}: has no column that names the image, such as 'image'")
    return column


def _cell(rows: Rows, row: Row, column: int, what: str) -> str:
    """Return a cell that may not be empty."""
    if not row.cells[column]:
        raise InputError(f"{rows.path}, line {row.line}: names no {what}")
    return row.cells[column]


def _ignored(rows: Rows, titles: list[str], used: set[int]) -> list[str]:
    """Return a line on columns that aren't used, but for the confidence of predictions."""
    others = [
        title or f"number {column + 1}"
        for column, title in enumerate(titles)
        if column not in used and not title.endswith(CONFIDENCE)
    ]
    return [f"{rows.path}: columns not used: {shown_list(others, 10)}"] if others else []


def _parse_wide(rows: Rows, titles: list[str], pairs: list[Pair]) -> Parsed:
    """Read a table of one line an image, or one line an instance."""
    names = [pair.name for pair in pairs]
    check_names(f"{rows.path}, line {rows.rows[0].line}", names)
    used = {place for pair in pairs for place in (*pair.places, pair.visible) if place is not None}
    image, instance = _image_column(rows, titles, used), _column(titles, INSTANCE)
    corners = [titles.index(title) for title in BOX if title in titles]
    boxed = len(corners) == len(BOX)
    used |= {image, *([] if instance is None else [instance]), *(corners if boxed else [])}
    images, ids, lines, points, boxes = [], [], [], [], []
    for row in rows.below(1):
        images.append(_cell(rows, row, image, "image"))
        kind = "" if instance is None else row.cells[instance]
        ids.append(f"{images[-1]}#{kind}" if kind else images[-1])
        lines.append(row.line)
        points.append([_wide_point(rows, row, pair) for pair in pairs])
        boxes.append([rows.number(row, column) for column in corners] if boxed else [np.nan] * 4)
    stacked = np.array(points)
    kept, notices = first_of_each(rows.path, ids, stacked, lines)
    images, ids = ([values[place] for place in kept] for values in (images, ids))
    parsed = parsed_points(names, images, stacked[kept], ids, notices)
    return parsed._replace(
        boxes=np.array(boxes)[kept], notices=notices + _ignored(rows, titles, used)
    )


def _wide_point(rows: Rows, row: Row, pair: Pair) -> tuple[float, float]:
    """Return a point of a line, NaN if it is missing or said to be invisible."""
    if pair.visible is not None and row.cells[pair.visible].lower() in INVISIBLE:
        return np.nan, np.nan
    return rows.point(row, pair.places, pair.name)


def _parse_long(rows: Rows, titles: list[str], named: int) -> Parsed:
    """Read a table of one line a point."""
    places = titles.index("x"), titles.index("y")
    visible, instance = _column(titles, VISIBLE), _column(titles, INSTANCE)
    image = _image_column(rows, titles, {named, *places})
    used = {named, image, *places} | {c for c in (visible, instance) if c is not None}
    found: dict[str, dict[str, tuple[float, float]]] = {}  # by instance, then by point
    images: dict[str, str] = {}
    for row in rows.below(1):
        name, kind = (
            _cell(rows, row, named, "point"),
            "" if instance is None else row.cells[instance],
        )
        key = file = _cell(rows, row, image, "image")
        if kind:
            key = f"{file}#{kind}"
        seen = visible is None or row.cells[visible].lower() not in INVISIBLE
        point = rows.point(row, places, name) if seen else (np.nan, np.nan)
        images[key] = file
        known = found.setdefault(key, {}).setdefault(name, point)
        if not np.array_equal(known, point, equal_nan=True):
            raise InputError(
                f"{rows.path}, line {row.line}: point {shown(name)} of {shown(key)} is there "
                "twice, at other places"
            )
    names = list(dict.fromkeys(name for points in found.values() for name in points))
    check_names(str(rows.path), names)
    stacked = np.full((len(found), len(names), 2), np.nan)
    numbers = {name: number for number, name in enumerate(names)}
    for table, points in zip(stacked, found.values(), strict=True):
        for name, point in points.items():
            table[numbers[name]] = point
    notices = _ignored(rows, titles, used)
    return parsed_points(names, list(images.values()), stacked, list(found), notices)
