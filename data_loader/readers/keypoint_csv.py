"""CSV of points: DeepLabCut's, ImageJ's, and plain ones of one line an image or one line a point.

Plain, "wide": a column that names the image, and two columns a point whose headers differ in an x
and a y at their begin or end: ``X1,Y1``, ``eye_x,eye_y``, ``beak.x,beak.y``. Plain, "long": columns
``point``, ``x`` and ``y``, and one that names the image. Both may have a column ``instance``, if an
image shows several, and one of visibility, whose 0 says that a point is missing.

DeepLabCut's ``CollectedData_NAME.csv``: three header lines say who labelled, which body part, and
which coordinate each column holds; in projects of several animals a fourth one says which animal.
The first column names the image, or the first three do: folder, video and image.

ImageJ's Results: each line is a point, in columns ``X`` and ``Y`` among measures such as ``Area``.
``Label`` names its image; without one, the file's name does. Points are numbered in their order.
"""

import csv
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path, PurePath
from typing import NamedTuple

from data_loader.readers.annotation_files import Find, parse_coordinate, repeated
from data_loader.readers.images import OWN_SUFFIXES
from data_loader.readers.keypoint_table import (
    MISSING,
    NO_BOX,
    KeypointTable,
    Row,
    check_names,
    point_of,
    shown,
    shown_list,
    table_of_rows,
)
from utils.errors import InputError

IMAGE = ("image", "image_name", "image_path", "img", "file", "filename", "file_name", "path")
INSTANCE = ("instance", "individual")
POINT = ("point", "landmark", "keypoint", "bodypart")
VISIBLE = ("visible", "visibility")
BOX = ("xmin", "ymin", "xmax", "ymax")
SIZED = [tuple(f"bbox_{end}" for end in ("x", "y", *ends)) for ends in ("wh", ("width", "height"))]
PREDICTED = ("confidence", "likelihood", "score", "error_px")
SEPARATORS = " _-.:/(["
CLOSING = " )]"  # of "beak (x)"
SEP_LINE = re.compile(r' *"?sep=[,;\t]"? *', re.IGNORECASE)  # Excel's first line
LABEL, IMAGEJ = "Label", "X,Y"  # ImageJ's columns, and those that its tables may begin with:
MEASURES = ("area", "mean", "stddev", "mode", "min", "x")
LATER_SLICE = re.compile(r"0*([2-9]|[1-9][0-9]+)(-[0-9]+-[0-9]+)?")  # not 1
STACKS = (".tif", ".tiff", ".gif")
INVISIBLE = ("0", "0.0", "false")
SCORER = "scorer"  # the first cell of DeepLabCut's tables
HEADERS = ([SCORER, "bodyparts", "coords"], [SCORER, "individuals", "bodyparts", "coords"])
COORDINATES = ("x", "y", "likelihood")  # the last is of DeepLabCut's predictions


class Line(NamedTuple):
    """One row: which line of the file it ends on, from 1, and its cells."""

    number: int
    cells: list[str]


class Csv:
    """The rows of a file that aren't blank.

    What parts their cells is what the first line has most of, also where that is Excel's ``sep=;``.

    Raises:
        InputError: if it isn't such a text, or has no row.
    """

    def __init__(self, path: Path, lines: Sequence[str]) -> None:
        place = next((place for place, line in enumerate(lines) if line.strip()), 0)
        first = "".join(lines[place : place + 1])
        between = max(",;\t", key=first.count)
        self.path, self.comma = path, between != ","  # a decimal one, then
        if between != "\t":
            lines = [line.strip() for line in lines]
        if SEP_LINE.fullmatch(first):
            lines = [*lines[:place], "", *lines[place + 1 :]]
        reader = csv.reader(lines, delimiter=between, strict=True)
        try:
            rows = [Line(reader.line_num, [cell.strip() for cell in cells]) for cells in reader]
        except csv.Error as error:
            raise InputError(f"{path}, line {reader.line_num}: {error}") from None
        self.rows = [row for row in rows if any(row.cells)]
        if not self.rows:
            raise InputError(f"{path}: empty, expected annotated points")

    def error(self, row: Line, message: str) -> InputError:
        """Return the error that something is wrong with a row."""
        return InputError(f"{self.path}, line {row.number}: {message}")

    def numbers(self, row: Line, columns: Sequence[int]) -> list[float]:
        """Return some cells' finite numbers; NaN of one that stands for none."""
        numbers = []
        for column in columns:
            word = row.cells[column]
            try:
                numbers.append(parse_coordinate(word.replace(",", ".") if self.comma else word))
            except ValueError:
                message = f"expected a number in column {column + 1}, found '{shown(word)}'"
                raise self.error(row, message) from None
        return numbers

    def below(self, header: int) -> Iterator[Line]:
        """Yield the rows below so many of the header, which have as many cells as that."""
        columns = len(self.rows[header - 1].cells)
        if len(self.rows) == header:
            raise InputError(f"{self.path}: has no line below its header")
        for row in self.rows[header:]:
            if (found := len(row.cells)) != columns:
                raise self.error(row, f"expected {columns} cells as in the header, found {found}")
            yield row


class Pair(NamedTuple):
    """The columns of one point: its name, x and y, and visibility if there is one."""

    name: str
    places: tuple[int, int]
    visible: int | None = None


class Columns(NamedTuple):
    """What the columns of a table say.

    Attributes:
        header: so many rows come before those of the points.
        image: which name the image, joined.
        parts: which are of points, by individual; of one without a name if no line says which.
        instance: which names the individual, if one does.
        named: which names the row's only point, if one does.
        box: which are left, top, right and bottom of a box, if there are.
        sized: the last two are its width and height instead.
        ordered: each line is one point of ImageJ's, whose labels are in the image's column if any.
        unused: titles of the others.
    """

    header: int
    image: Sequence[int]
    parts: dict[str, list[Pair]]
    instance: int | None = None
    named: int | None = None
    box: Sequence[int] = ()
    sized: bool = False
    ordered: bool = False
    unused: Sequence[str] = ()


def parse_csv(path: Path, lines: Sequence[str], find: Find) -> KeypointTable:
    """Read a CSV file of points, in the form that its header tells.

    Raises:
        InputError: if it is of none, or of two.
    """
    table = Csv(path, lines)
    plain = table.rows[0].cells[0].lower() != SCORER
    columns = _plain_columns(table) if plain else _deeplabcut_columns(table)
    rows = list(_rows(table, columns))
    if not rows:
        raise InputError(f"{path}: none of its frames has a point")
    if columns.ordered:
        rows, find = _numbered(path, rows), partial(find, guess=True)
    names = dict.fromkeys(pair.name for pairs in columns.parts.values() for pair in pairs)
    said = columns.named is None and not columns.ordered
    found = table_of_rows(path, rows, find, list(names) if said else None)
    frames = len(table.rows) - columns.header
    if bare := frames - len({row.line for row in rows}):
        found.notices.append(f"{path}: {bare:,} of {frames:,} frames have no point, left out")
    if columns.ordered:
        found.notices.append(
            f"{path}: ImageJ's X and Y are taken as pixels, not as units of a scale"
        )
    if columns.unused:
        found.notices.append(f"{path}: columns not used: {shown_list(columns.unused, 10)}")
    return found._replace(y_up=None if plain else False)


def _rows(table: Csv, columns: Columns) -> Iterator[Row]:
    """Yield what the lines say of each individual."""
    for line in table.below(columns.header):
        image = "/".join(filter(None, (line.cells[place] for place in columns.image)))
        if not image and columns.image:
            raise table.error(line, "names no image")
        for individual, pairs in columns.parts.items():
            points = {}
            for pair in pairs:
                name = pair.name if columns.named is None else line.cells[columns.named]
                if columns.named is not None and not name:
                    raise table.error(line, "names no point")
                seen = pair.visible is None or line.cells[pair.visible].lower() not in INVISIBLE
                points[name] = MISSING
                if seen:
                    x, y = table.numbers(line, pair.places)
                    points[name] = point_of(table.path, line.number, name, x, y)
            if individual and all(math.isnan(x) for x, _ in points.values()):
                continue  # an animal that isn't in this frame
            key = individual if columns.instance is None else line.cells[columns.instance]
            box = table.numbers(line, columns.box) or list(NO_BOX)
            if columns.sized:  # as COCO's, of no area it is none
                sides = box[0] + box[2], box[1] + box[3]
                box = [*box[:2], *sides] if min(box[2:]) > 0 else list(NO_BOX)
            yield Row(line.number, image, key, points, box)


def _plain_columns(table: Csv) -> Columns:
    """Return what the header of a plain table says, wide or long.

    The column that names the image is told by its name, else it is the first.
    """
    path, header = table.path, table.rows[0].cells
    titles = [cell.lower() for cell in header]

    def column(names: Sequence[str]) -> int | None:
        return next((titles.index(name) for name in names if name in titles), None)

    if twice := repeated(filter(None, titles)):
        raise table.error(table.rows[0], f"the column {shown(twice)} is there twice")
    if {"x", "y"} <= set(titles) and not set(titles) & {*IMAGE, *POINT}:
        numbered = not titles[0] and all(row.cells[0].isdecimal() for row in table.rows[1:])
        if LABEL in header or numbered or titles[0] in MEASURES:  # ImageJ's Results
            point = Pair(IMAGEJ, (titles.index("x"), titles.index("y")))
            label = [header.index(LABEL)] if LABEL in header else []
            return Columns(1, label, {"": [point]}, ordered=True)
    pairs, named, corners = find_pairs(header), column(POINT), list[int]()
    if named is not None and {"x", "y"} <= set(titles):
        if len(pairs) > 1:
            raise InputError(
                f"{path}: its header has columns of one line a point (point, x, y) and of one "
                f"line an image ({shown(pairs[0].name)}): two formats mixed"
            )
        pairs = [Pair("", (titles.index("x"), titles.index("y")), column(VISIBLE))]
    elif pairs:
        check_names(f"{path}, line {table.rows[0].number}", [pair.name for pair in pairs])
        box = next((box for box in (BOX, *SIZED) if set(box) <= set(titles)), ())
        named, corners = None, [titles.index(title) for title in box]
    else:
        raise InputError(
            f"{path}: of no known format: neither COCO's JSON, DeepLabCut's CSV, .tps nor CSV "
            "with a header that pairs columns of x and y (image,eye_x,eye_y) or has the columns "
            "image,point,x,y or, as ImageJ's, Label,X,Y; it begins with "
            f"'{shown(','.join(header))}'"
        )
    image, instance = column(IMAGE) or 0, column(INSTANCE)
    used = {named, *corners, *(place for pair in pairs for place in (*pair.places, pair.visible))}
    if image in used:
        raise InputError(f"{path}: has no column that names the image, such as 'image'")
    unused = [
        title or f"number {place + 1}"
        for place, title in enumerate(titles)
        if place not in {*used, image, instance} and not title.endswith(PREDICTED)
    ]
    sized = bool(corners) and titles[corners[0]] not in BOX
    return Columns(1, [image], {"": pairs}, instance, named, corners, sized, unused=unused)


def _numbered(path: Path, rows: Sequence[Row]) -> list[Row]:
    """Return ImageJ's points by their numbers within the image that the label, or the file, names.

    A label has the window's title, the selection's name if it has one, and the slice if there are
    several, with colons between. The title is the file's name. Of a folder opened as a sequence it
    is the folder's, and a slice is called as its file, without a suffix of three letters.

    Raises:
        InputError: of a slice after a file's first, or if images haven't as many points.
    """
    counts, found = Counter[str](), list[Row]()
    for row in rows:
        parts = (row.image or path.stem).split(":")
        if parts[0].lower().endswith(STACKS) and LATER_SLICE.fullmatch(parts[-1]):
            raise InputError(
                f"{path}, line {row.line}: {shown(row.image)} is of a slice after the first, "
                "which alone is read of a file; save the stack as an image sequence"
            )
        is_file = len(parts) == 1 or PurePath(parts[0]).suffix[1:].lower() in OWN_SUFFIXES
        image = parts[0] if is_file else f"{parts[0]}/{parts[-1]}"
        counts[image] += 1
        found.append(row._replace(image=image, points={str(counts[image]): row.points[IMAGEJ]}))
    (most, count), (least, fewer) = counts.most_common(1)[0], counts.most_common()[-1]
    if count != fewer:
        raise InputError(
            f"{path}: has {count:,} points of {shown(most)} and {fewer:,} of {shown(least)}: they "
            "are numbered in their order, so X and Y of a missing one have to be there, empty"
        )
    return found


def find_pairs(header: Sequence[str]) -> list[Pair]:
    """Return the points of a wide header: columns whose names differ in an x and a y alone."""
    cells = [cell.rstrip(CLOSING) for cell in header]
    columns = {cell.lower(): column for column, cell in reversed(list(enumerate(cells)))}
    pairs: list[Pair] = []
    taken = {columns[title] for box in SIZED if set(box) <= columns.keys() for title in box}
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


def _deeplabcut_columns(table: Csv) -> Columns:
    """Return what the header of DeepLabCut's table says."""
    titles = [row.cells[0].lower() for row in table.rows[:4]]
    header = next((lines for lines in HEADERS if titles[: len(lines)] == lines), None)
    if header is None:
        raise InputError(
            f"{table.path}: begins as DeepLabCut's tables, whose first lines are {HEADERS[0]}, or "
            f"with 'individuals' in second place; found {[shown(title) for title in titles]}"
        )
    lines = dict(zip(header, table.rows, strict=False))
    width = len(lines["coords"].cells)
    for title, line in lines.items():
        if (count := len(line.cells)) != width:
            message = f"expected {width} cells as on the line of coords, found {count} of {title}"
            raise table.error(line, message)
    coords = [cell.lower() for cell in lines["coords"].cells]
    index = next((place for place in range(1, width) if coords[place]), width)
    found: dict[tuple[str, str], dict[str, int]] = {}
    for column in range(index, width):
        individual = lines["individuals"].cells[column] if "individuals" in lines else ""
        name, axis = lines["bodyparts"].cells[column], coords[column]
        if axis not in COORDINATES:
            message = f"expected x or y in column {column + 1}, found '{shown(axis)}'"
            raise table.error(lines["coords"], message)
        if found.setdefault((individual, name), {}).setdefault(axis, column) != column:
            raise InputError(f"{table.path}: the point {shown(name)} is named twice")
    parts: dict[str, list[Pair]] = {}
    for (individual, name), axes in found.items():
        if not {"x", "y"} <= set(axes):
            raise InputError(f"{table.path}: the point {shown(name)} has no column of x or of y")
        parts.setdefault(individual, []).append(Pair(name, (axes["x"], axes["y"])))
    return Columns(len(header), range(index), parts)
