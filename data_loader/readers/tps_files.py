"""Files of tpsDig [F. J. Rohlf, tps series]: landmarks of specimens, y upwards from the lower edge.

A record begins with ``LM=`` and the number of landmarks, which follow one a line; then lines such
as ``IMAGE=``, ``ID=`` and ``SCALE=``. Curves are no landmarks and are left out. Points are in
pixels, whatever the scale; -1 -1 is a missing one. Letters: N records, A landmarks.
"""

import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data_loader.readers.annotation_files import parse_number
from data_loader.readers.csv_files import MISSING
from data_loader.readers.keypoint_names import check_names, shown
from data_loader.readers.keypoint_table import KeypointTable, table_of_points
from utils.errors import InputError

BEGIN = re.compile(r"LM3?\s*=", re.IGNORECASE)  # of the first line that isn't empty
KEY = re.compile(r"([A-Za-z]+[0-9]?)\s*=\s*(.*)")
# Of curves: their number, and that of each one's points, which follow.
CURVES, CURVE_POINTS = ("CURVES", "OUTLINES"), "POINTS"
OTHERS = ("SCALE", "COMMENT", "VARIABLES", "RADII", "LM3")

Line = tuple[int, str]  # its number in the file, from 1


class Record(NamedTuple):
    """One specimen: the line it begins on, its points, and its other entries."""

    line: int
    points: list[tuple[float, float]]
    entries: dict[str, str]


def parse_tps(path: Path, lines: Sequence[str]) -> KeypointTable:
    """Read the records; the points are named by their numbers, from 1.

    Raises:
        InputError: if the file isn't such a one.
    """
    every = list(_records(path, lines))
    records = [record for record in every if record.points]
    if not records:
        raise InputError(f"{path}: none of its {len(every):,} records has a point (all are LM=0)")
    count = len(records[0].points)
    for record in records:
        if len(record.points) != count:
            message = f"expected {count} landmarks as in the first record, found "
            raise InputError(f"{path}, line {record.line}: {message}{len(record.points)}")
        if not record.entries.get("IMAGE"):
            raise InputError(f"{path}, line {record.line}: the record has no line IMAGE=")
    names = [str(number + 1) for number in range(count)]
    check_names(f"{path}, line {records[0].line}", names)
    images = [record.entries["IMAGE"] for record in records]
    points = np.array([record.points for record in records])
    lines_of = [record.line for record in records]
    table = table_of_points(path, names, images, images, points, lines_of)
    if bare := len(every) - len(records):  # as tpsUtil makes them, not digitized yet
        table.notices.append(f"{path}: {bare:,} records without landmarks left out")
    curves = sum(any(key in record.entries for key in CURVES) for record in records)
    if curves:
        table.notices.append(f"{path}: curves of {curves:,} records left out")
    return table._replace(y_up=True)


def _records(path: Path, lines: Sequence[str]) -> Iterator[Record]:
    """Yield the records of a file that begins with one."""
    numbered = ((number, line) for number, line in enumerate(lines, start=1) if line)
    record: Record | None = None
    for number, line in numbered:
        match = KEY.fullmatch(line)
        key, value = (match[1].upper(), match[2].strip()) if match else ("", "")
        known = key in ("LM", "IMAGE", "ID", CURVE_POINTS, *CURVES, *OTHERS)
        if not known or (record is None and key not in ("LM", "LM3")):
            raise InputError(
                f"{path}, line {number}: expected a line of a .tps file, such as LM= or IMAGE=, "
                f"found '{shown(line)}'"
            )
        if key == "LM3":
            raise InputError(f"{path}, line {number}: landmarks of three dimensions (LM3=)")
        if key == "LM":
            if record is not None:
                yield record
            record = Record(number, _points(path, numbered, number, value), {})
            continue
        assert record is not None
        if key == CURVE_POINTS:
            _points(path, numbered, number, value)
        elif key in record.entries:
            raise InputError(f"{path}, line {number}: the record has {key}= twice")
        else:
            record.entries[key] = value
    if record is not None:
        yield record


def _points(
    path: Path, numbered: Iterator[Line], start: int, value: str
) -> list[tuple[float, float]]:
    """Return as many points as a line says, from the lines after it."""
    if not re.fullmatch("[0-9]{1,5}", value):
        raise InputError(
            f"{path}, line {start}: expected a number of points, found '{shown(value)}'"
        )
    points = []
    for _ in range(int(value)):
        number, line = next(numbered, (start, ""))
        try:
            x, y = (math.nan if w.lower() in MISSING else parse_number(w) for w in line.split())
        except ValueError:
            raise InputError(
                f"{path}, line {number}: expected x and y of a point ({value} after line {start}), "
                f"found '{shown(line)}'"
            ) from None
        if math.isnan(x) != math.isnan(y):
            raise InputError(f"{path}, line {number}: a point has one coordinate alone")
        points.append((math.nan, math.nan) if x == y == -1 else (x, y))
    return points
