"""DeepLabCut's tables of labelled frames, ``CollectedData_NAME.csv``.

Three header lines say who labelled, which body part, and which coordinate each column holds; in
projects of several animals a fourth one says which animal. The first column names the image, or the
first three do: folder, video and image. Letters: N instances, A points.
"""

import numpy as np

from data_loader.readers.csv_files import CsvTable
from data_loader.readers.keypoint_names import check_names, shown
from data_loader.readers.keypoint_table import KeypointTable, table_of_points
from utils.errors import InputError

BEGIN = "scorer"  # the first cell
HEADERS = ([BEGIN, "bodyparts", "coords"], [BEGIN, "individuals", "bodyparts", "coords"])
COORDINATES = ("x", "y", "likelihood")  # the last is of DeepLabCut's predictions

# By individual (one without a name if there is no such line), then by body part: columns of x and y
Columns = dict[str, dict[str, tuple[int, int]]]


def parse_deeplabcut(csv: CsvTable) -> KeypointTable:
    """Read the labelled frames; each individual of a frame is an instance.

    Raises:
        InputError: if the table isn't such a one.
    """
    titles = [row.cells[0].lower() for row in csv.rows[:4]]
    header = next((lines for lines in HEADERS if titles[: len(lines)] == lines), None)
    if header is None:
        raise InputError(
            f"{csv.path}: begins as DeepLabCut's tables, whose first lines are {HEADERS[0]}, or "
            f"with 'individuals' in second place; found {[shown(title) for title in titles]}"
        )
    index, columns = _columns(csv, header)
    names = list(dict.fromkeys(name for parts in columns.values() for name in parts))
    check_names(str(csv.path), names)
    numbers = {name: number for number, name in enumerate(names)}
    images, ids, lines, points, frames = [], [], [], [], 0
    for row in csv.below(len(header)):
        image = "/".join(cell for cell in row.cells[:index] if cell)
        if not image:
            raise csv.error(row, "names no image")
        frames += 1
        for individual, parts in columns.items():
            found = np.full((len(names), 2), np.nan)
            for name, places in parts.items():
                found[numbers[name]] = csv.point(row, places, name)
            if individual and np.isnan(found).all():
                continue  # an animal that isn't in this frame
            images.append(image)
            ids.append(f"{image}#{individual}" if individual else image)
            lines.append(row.line)
            points.append(found)
    if not images:
        raise InputError(f"{csv.path}: none of its frames has a point")
    table = table_of_points(csv.path, names, images, ids, np.stack(points), lines)
    if bare := frames - len(set(images)):
        table.notices.append(f"{csv.path}: {bare:,} of {frames:,} frames have no point, left out")
    return table


def _columns(csv: CsvTable, header: list[str]) -> tuple[int, Columns]:
    """Return how many columns name the image, and where each point's coordinates are."""
    lines = dict(zip(header, csv.rows, strict=False))
    width = len(lines["coords"].cells)
    for title, row in lines.items():
        if (count := len(row.cells)) != width:
            message = f"expected {width} cells as on the line of coords, found {count} of {title}"
            raise csv.error(row, message)
    coords = [cell.lower() for cell in lines["coords"].cells]
    index = next((place for place in range(1, width) if coords[place]), width)
    found: dict[tuple[str, str, str], int] = {}
    for column in range(index, width):
        individual = lines["individuals"].cells[column] if "individuals" in lines else ""
        key = individual, lines["bodyparts"].cells[column], coords[column]
        if coords[column] not in COORDINATES:
            message = f"expected x or y in column {column + 1}, found '{shown(coords[column])}'"
            raise csv.error(lines["coords"], message)
        if key in found:
            raise InputError(f"{csv.path}: the point {shown(key[1])} is named twice")
        found[key] = column
    columns: Columns = {}
    for individual, name, _ in found:
        x, y = (found.get((individual, name, axis)) for axis in "xy")
        if x is None or y is None:
            raise InputError(f"{csv.path}: the point {shown(name)} has no column of x or of y")
        columns.setdefault(individual, {})[name] = (x, y)
    return index, columns
