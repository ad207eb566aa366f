"""Plain CSV of points: one line an image ("wide"), or one line a point ("long").

Wide: a column that names the image, and two columns a point whose headers differ in an x and a y at
their begin or end: ``X1,Y1``, ``eye_x,eye_y``, ``beak.x,beak.y``. Long: columns ``point``, ``x``
and ``y``, and one that names the image. Both may have a column ``instance``, if an image shows
several, and one of visibility, whose 0 says that a point is missing. Letters: N instances, A
points.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from data_loader.readers.annotation_files import repeated
from data_loader.readers.csv_files import CsvRow, CsvTable
from data_loader.readers.keypoint_names import check_names, shown, shown_list
from data_loader.readers.keypoint_table import KeypointTable, table_of_points
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

    @property
    def columns(self) -> set[int]:
        """All of them."""
        return {*self.places, *([] if self.visible is None else [self.visible])}

    def read(self, csv: CsvTable, row: CsvRow, name: str) -> tuple[float, float]:
        """Return a row's x and y, NaN if the point is missing or said to be invisible."""
        if self.visible is not None and row.cells[self.visible].lower() in INVISIBLE:
            return np.nan, np.nan
        return csv.point(row, self.places, name)


def parse_csv(csv: CsvTable) -> KeypointTable:
    """Read a plain CSV file, wide or long as its header tells.

    Raises:
        InputError: if it is neither, or both.
    """
    header = csv.rows[0].cells
    titles = [cell.lower() for cell in header]
    if twice := repeated(filter(None, titles)):
        raise csv.error(csv.rows[0], f"the column {shown(twice)} is there twice")
    pairs = find_pairs(header)
    named = _column(titles, POINT)
    if named is not None and {"x", "y"} <= set(titles):
        if len(pairs) > 1:
            raise InputError(
                f"{csv.path}: its header has columns of one line a point (point, x, y) and of one "
                f"line an image ({shown(pairs[0].name)}): two formats mixed"
            )
        return _parse_long(csv, titles, named)
    if not pairs:
        raise InputError(
            f"{csv.path}: of no known format: neither COCO's JSON, DeepLabCut's CSV, .tps nor CSV "
            "with a header that pairs columns of x and y (image,eye_x,eye_y) or has the columns "
            f"image,point,x,y; it begins with '{shown(','.join(header))}'"
        )
    return _parse_wide(csv, titles, pairs)


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


def _column(titles: list[str], names: Sequence[str]) -> int | None:
    """Return the first column with one of these names."""
    return next((titles.index(name) for name in names if name in titles), None)


def _cell(csv: CsvTable, row: CsvRow, column: int, what: str) -> str:
    """Return a cell that may not be empty."""
    if not row.cells[column]:
        raise csv.error(row, f"names no {what}")
    return row.cells[column]


def _instances(
    csv: CsvTable, titles: list[str], used: set[int]
) -> tuple[Iterator[tuple[CsvRow, str, str]], list[str]]:
    """Return each row with its image and its instance, and a line on columns not used, if any.

    The column that names the image is told by its name, else it is the first.
    """
    image, instance = _column(titles, IMAGE) or 0, _column(titles, INSTANCE)
    if image in used:
        raise InputError(f"{csv.path}: has no column that names the image, such as 'image'")
    used = used | {image, *([] if instance is None else [instance])}

    def rows() -> Iterator[tuple[CsvRow, str, str]]:
        for row in csv.below(1):
            name = _cell(csv, row, image, "image")
            kind = "" if instance is None else row.cells[instance]
            yield row, name, f"{name}#{kind}" if kind else name

    others = [
        title or f"number {column + 1}"
        for column, title in enumerate(titles)
        if column not in used and not title.endswith(CONFIDENCE)
    ]
    notice = [f"{csv.path}: columns not used: {shown_list(others, 10)}"] if others else []
    return rows(), notice


def _parse_wide(csv: CsvTable, titles: list[str], pairs: list[Pair]) -> KeypointTable:
    """Read a table of one line an image, or one line an instance."""
    names = [pair.name for pair in pairs]
    check_names(f"{csv.path}, line {csv.rows[0].line}", names)
    used = set[int]().union(*(pair.columns for pair in pairs))
    corners = [titles.index(title) for title in BOX if title in titles]
    boxed = len(corners) == len(BOX)
    rows, notice = _instances(csv, titles, used | set(corners if boxed else []))
    images, ids, lines, points, boxes = [], [], [], [], []
    for row, image, key in rows:
        images.append(image)
        ids.append(key)
        lines.append(row.line)
        points.append([pair.read(csv, row, pair.name) for pair in pairs])
        boxes.append([csv.number(row, column) for column in corners] if boxed else [np.nan] * 4)
    stacked = np.array(points)
    table = table_of_points(csv.path, names, images, ids, stacked, lines, np.array(boxes))
    table.notices.extend(notice)
    return table


def _parse_long(csv: CsvTable, titles: list[str], named: int) -> KeypointTable:
    """Read a table of one line a point."""
    columns = Pair("", (titles.index("x"), titles.index("y")), _column(titles, VISIBLE))
    rows, notice = _instances(csv, titles, {named, *columns.columns})
    found: dict[str, dict[str, tuple[float, float]]] = {}  # by instance, then by point
    images: dict[str, str] = {}
    for row, image, key in rows:
        name = _cell(csv, row, named, "point")
        point = columns.read(csv, row, name)
        images[key] = image
        known = found.setdefault(key, {}).setdefault(name, point)
        if not np.array_equal(known, point, equal_nan=True):
            message = f"point {shown(name)} of {shown(key)} is there twice, at other places"
            raise csv.error(row, message)
    names = list(dict.fromkeys(name for points in found.values() for name in points))
    check_names(str(csv.path), names)
    nothing = np.nan, np.nan
    points = np.array([[of.get(name, nothing) for name in names] for of in found.values()])
    table = table_of_points(csv.path, names, list(images.values()), list(found), points, [])
    table.notices.extend(notice)
    return table
