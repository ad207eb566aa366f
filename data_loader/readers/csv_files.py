"""Comma-separated tables of text: rows of cells, and the numbers in them."""

import csv
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from data_loader.readers.annotation_files import parse_number
from data_loader.readers.keypoint_names import shown
from utils.errors import InputError

MISSING = ("", "nan", "na")  # what stands for no number, in any case; R writes NA


class CsvRow(NamedTuple):
    """One row: which line of the file it ends on, counted from 1, and its cells."""

    line: int
    cells: list[str]


class CsvTable(NamedTuple):
    """A file's rows.

    Attributes:
        path: the file, for errors.
        rows: those that aren't blank.
        comma: decimal; a comma where semicolons part the cells.
    """

    path: Path
    rows: list[CsvRow]
    comma: bool

    def error(self, row: CsvRow, message: str) -> InputError:
        """Return the error that something is wrong with a row."""
        return InputError(f"{self.path}, line {row.line}: {message}")

    def number(self, row: CsvRow, column: int) -> float:
        """Return a cell's finite number; NaN if it stands for none."""
        word = row.cells[column]
        if word.lower() in MISSING:
            return math.nan
        try:
            return parse_number(word.replace(",", ".") if self.comma else word)
        except ValueError:
            message = f"expected a number in column {column + 1}, found '{shown(word)}'"
            raise self.error(row, message) from None

    def point(self, row: CsvRow, columns: tuple[int, int], name: str) -> tuple[float, float]:
        """Return the x and y of a point; both NaN if it is missing, which -1 -1 says, too."""
        x, y = (self.number(row, column) for column in columns)
        if math.isnan(x) != math.isnan(y):
            raise self.error(row, f"point {shown(name)} has one coordinate alone")
        return (math.nan, math.nan) if x == y == -1 else (x, y)

    def below(self, header: int) -> Iterator[CsvRow]:
        """Yield the rows below so many of the header, which have as many cells as that."""
        columns = len(self.rows[header - 1].cells)
        if len(self.rows) == header:
            raise InputError(f"{self.path}: has no line below its header")
        for row in self.rows[header:]:
            if (found := len(row.cells)) != columns:
                raise self.error(row, f"expected {columns} cells as in the header, found {found}")
            yield row


def read_table(path: Path, lines: Sequence[str]) -> CsvTable:
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
                rows.append(CsvRow(reader.line_num, cells))
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: {error}") from None
    if not rows:
        raise InputError(f"{path}: empty, expected annotated points")
    return CsvTable(path, rows, delimiter == ";")
