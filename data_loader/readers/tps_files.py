"""Files of tpsDig [F. J. Rohlf, tps series]: landmarks of specimens, y upwards from the lower edge.

A record begins with ``LM=`` and the number of landmarks, which follow one a line; then lines such
as ``IMAGE=``, ``ID=`` and ``SCALE=``. Curves are no landmarks and are left out. Points are in
pixels; the scale is by how much they are multiplied to be in a unit of length. -1 -1 is a missing
one. Letters: N records, A landmarks.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from data_loader.readers.annotation_files import Find, parse_coordinate, parse_number
from data_loader.readers.keypoint_table import (
    KeypointTable,
    Point,
    Row,
    point_of,
    shown,
    table_of_rows,
)
from utils.errors import InputError

BEGIN = re.compile(r"LM3?\s*=", re.IGNORECASE)  # of the first line that isn't empty
KEY = re.compile(r"([A-Za-z]+[0-9]?)\s*=\s*(.*)")
# Of curves: their number, and that of each one's points, which follow.
CURVES, CURVE_POINTS = ("CURVES", "OUTLINES"), "POINTS"
KEYS = ("LM", "IMAGE", "ID", CURVE_POINTS, *CURVES, "SCALE", "COMMENT", "VARIABLES", "RADII", "LM3")


class Record(NamedTuple):
    """One specimen: the line it begins on, its points by their numbers, and its other entries."""

    line: int
    points: dict[str, Point]
    entries: dict[str, str]


def parse_tps(path: Path, lines: Sequence[str], find: Find) -> KeypointTable:
    """Read the records; the points are named by their numbers, from 1.

    Raises:
        InputError: if the file isn't such a one.
    """
    every = _records(path, lines)
    records = [record for record in every if record.points]
    if not records:
        raise InputError(f"{path}: none of its {len(every):,} records has a point (all are LM=0)")
    count, rows = len(records[0].points), []
    for line, points, entries in records:
        if len(points) != count:
            message = f"expected {count} landmarks as in the first record, found {len(points)}"
            raise InputError(f"{path}, line {line}: {message}")
        name = entries.get("IMAGE") or entries.get("ID")
        if not name:
            raise InputError(f"{path}, line {line}: the record has no line IMAGE= and no ID=")
        scale = 0.0
        with suppress(ValueError):  # an odd one is counted below
            scale = parse_number(entries.get("SCALE", "").replace(",", "."))
        rows.append(Row(line, name, "", points, scale=scale if scale > 0 else None))
    table = table_of_rows(path, rows, find)
    if unnamed := sum(not record.entries.get("IMAGE") for record in records):
        table.notices.append(f"{path}: {unnamed:,} records without IMAGE=, found by their ID=")
    if comma := next((line for line in lines if "," in line and "=" not in line), None):
        table.notices.append(f"{path}: commas are decimal ones, as in '{shown(comma)}'")
    bare = len(table.images) - len(table.scales)
    if bare and any("SCALE" in record.entries for record in records):
        table.notices.append(f"{path}: {bare:,} images have no SCALE= that is a number above 0")
    if bare := len(every) - len(records):  # as tpsUtil makes them, not digitized yet
        table.notices.append(f"{path}: {bare:,} records without landmarks left out")
    if curves := sum(any(key in record.entries for key in CURVES) for record in records):
        table.notices.append(f"{path}: curves of {curves:,} records left out")
    return table._replace(y_up=True)


def _records(path: Path, lines: Sequence[str]) -> list[Record]:
    """Return the records of a file that begins with one."""
    numbered = ((number, line) for number, line in enumerate(lines, start=1) if line)
    records: list[Record] = []
    for number, line in numbered:
        match = KEY.fullmatch(line)
        key, value = (match[1].upper(), match[2].strip()) if match else ("", "")
        if key not in KEYS:
            raise InputError(
                f"{path}, line {number}: expected a line of a .tps file, such as LM= or IMAGE=, "
                f"found '{shown(line)}'"
            )
        if key == "LM3":
            raise InputError(f"{path}, line {number}: landmarks of three dimensions (LM3=)")
        points = _points(path, numbered, number, value) if key in ("LM", CURVE_POINTS) else {}
        if key == "LM":
            records.append(Record(number, points, {}))
        elif key in records[-1].entries:
            raise InputError(f"{path}, line {number}: the record has {key}= twice")
        elif key != CURVE_POINTS:
            records[-1].entries[key] = value
    return records


def _points(
    path: Path, numbered: Iterator[tuple[int, str]], start: int, value: str
) -> dict[str, Point]:
    """Return as many points as a line says, by their numbers, from the lines after it."""
    if not re.fullmatch("[0-9]{1,5}", value):
        raise InputError(
            f"{path}, line {start}: expected a number of points, found '{shown(value)}'"
        )
    points = {}
    for place in range(int(value)):
        number, line = next(numbered, (start, ""))
        try:
            x, y = map(parse_coordinate, line.replace(",", ".").split())
        except ValueError:
            raise InputError(
                f"{path}, line {number}: expected x and y of a point ({value} after line {start}), "
                f"found '{shown(line)}'"
            ) from None
        name = str(place + 1)
        points[name] = point_of(path, number, name, x, y)
    return points
