"""Comma-separated tables of text: rows of cells, and the numbers in them."""

import csv
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data_loader.readers.annotation_files import parse_number
from data_loader.readers.keypoint_names import shown
from utils.errors import InputError

MISSING = ("", "nan", "na")  # what stands for no number, in any case; R writes NA


class Row(NamedTuple):
    """One row: which line of the file it ends on, counted from 1, and its cells."""

    line: int
    cells: list[str]


class Rows(NamedTuple):
    """A file's rows.

    Attributes:
        path: the file, for errors.
        rows: those that aren't blank.
        comma: decimal; a comma where semicolons part the cells.
    """

    path: Path
    rows: list[Row]
    comma: bool

    def number(self, row: Row, column: int) -> float:
        """Return a cell's finite number; NaN if it stands for none."""
        word = row.cells[column]
        if word.lower() in MISSING:
            return math.nan
        try:
            return parse_number(word.replace(",", ".") if self.comma else word)
        except ValueError:
            raise InputError(
                f"{self.path}, line {row.line}: expected a number in column {column + 1}, found "
                f"'{shown(word)}'"
            ) from None

    def point(self, row: Row, columns: tuple[int, int], name: str) -> tuple[float, float]:
        """Return the x and y of a point; both NaN if it is missing, which -1 -1 says, too."""
        x, y = (self.number(row, column) for column in columns)
        if math.isnan(x) != math.isnan(y):
            raise InputError(
                f"{self.path}, line {row.line}: point {shown(name)} has one coordinate alone"
            )
        return (math.nan, math.nan) if x == y == -1 else (x, y)

    def below(self, header: int) -> Iterator[Row]:
        """Yield the rows below so many of the header, which have as many cells as that."""
        columns = len(self.rows[header - 1].cells)
        if len(self.rows) == header:
            raise InputError(f"{self.path}: has no line below its header")
        for row in self.rows[header:]:
            if len(row.cells) != columns:
                raise InputError(
                    f"{self.path}, line {row.line}: expected {columns} cells as in the header, "
                    f"found {len(row.cells)}"
                )
            yield row


def read_rows(path: Path, lines: Sequence[str]) -> Rows:
    """Return a text's rows; semicolons part its cells where the first row has more of them.

    Raises:
        InputError: if it isn't such a text, or has no row.
    """
    first = next((line for line in lines if line), "")
    delimiter = ";" if first.count(";") > first.count(",") else ","
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    rows = []
    try:
        for cells in reader:
            cells = [cell.strip() for cell in cells]
            if any(cells):
                rows.append(Row(reader.line_num, cells))
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: {error}") from None
    if not rows:
        raise InputError(f"{path}: empty, expected annotated points")
    return Rows(path, rows, delimiter == ";")


def first_of_each(
    path: Path, keys: Sequence[str], points: np.ndarray, lines: Sequence[int]
) -> tuple[list[int], list[str]]:
    """Return the places of rows to keep where some are there twice, and a line on the others.

    Args:
        path: the file, for errors.
        keys: what each of N rows is of: the image, and the instance if there are some.
        points: (N, A, 2).
        lines: of each row, in the file.

    Raises:
        InputError: if a row is there twice with other points.
    """
    places: dict[str, int] = {}
    for place, key in enumerate(keys):
        first = places.setdefault(key, place)
        if not np.array_equal(points[first], points[place], equal_nan=True):
            raise InputError(
                f"{path}, line {lines[place]}: {shown(key)} is there twice with other points, "
                f"first on line {lines[first]}"
            )
    again = len(keys) - len(places)
    notice = [f"{path}: {again:,} lines that repeat another one left out"] if again else []
    return list(places.values()), notice
