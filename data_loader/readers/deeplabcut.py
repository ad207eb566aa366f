"""DeepLabCut's tables of labelled frames, ``CollectedData_NAME.csv``.

Three header lines say who labelled, which body part, and which coordinate each column holds; in
projects of several animals a fourth one says which animal. The first column names the image, or the
first three do: folder, video and image. Letters: N instances, A points.
"""

import numpy as np

from data_loader.readers.csv_files import Rows, first_of_each
from data_loader.readers.keypoint_names import check_names, shown
from data_loader.readers.keypoint_table import Parsed, parsed_points
from utils.errors import InputError

HEADERS = (["scorer", "bodyparts", "coords"], ["scorer", "individuals", "bodyparts", "coords"])
COORDINATES = ("x", "y", "likelihood")  # the last is of DeepLabCut's predictions

# By individual (one without a name if there is no such line), then by body part: columns of x and y
Columns = dict[str, dict[str, tuple[int, int]]]


def is_deeplabcut(rows: Rows) -> bool:
    """Tell whether a table begins as DeepLabCut's do."""
    return rows.rows[0].cells[0].lower() == "scorer"


def parse_deeplabcut(rows: Rows) -> Parsed:
    """Read the labelled frames; each individual of a frame is an instance.

    Raises:
        InputError: if the table isn't such a one.
    """
    titles = [row.cells[0].lower() for row in rows.rows[:4]]
    header = next((lines for lines in HEADERS if titles[: len(lines)] == lines), None)
    if header is None:
        raise InputError(
            f"{rows.path}: begins as DeepLabCut's tables, whose first lines are {HEADERS[0]}, or "
            f"with 'individuals' in second place; found {[shown(title) for title in titles]}"
        )
    index, columns = _columns(rows, header)
    names = list(dict.fromkeys(name for parts in columns.values() for name in parts))
    check_names(str(rows.path), names)
    numbers = {name: number for number, name in enumerate(names)}
    images, ids, lines, points, frames = [], [], [], [], 0
    for row in rows.below(len(header)):
        image = "/".join(cell for cell in row.cells[:index] if cell)
        if not image:
            raise InputError(f"{rows.path}, line {row.line}: names no image")
        frames += 1
        for individual, parts in columns.items():
            found = np.full((len(names), 2), np.nan)
            for name, places in parts.items():
                found[numbers[name]] = rows.point(row, places, name)
            if individual and np.isnan(found).all():
                continue  # an animal that isn't in this frame
            images.append(image)
            ids.append(f"{image}#{individual}" if individual else image)
            lines.append(row.line)
            points.append(found)
    if not images:
        raise InputError(f"{rows.path}: none of its frames has a point")
    stacked = np.stack(points)
    kept, notices = first_of_each(rows.path, ids, stacked, lines)
    if bare := frames - len(set(images)):
        notices.append(f"{rows.path}: {bare:,} of {frames:,} frames have no point, left out")
    images, ids = ([values[place] for place in kept] for values in (images, ids))
    return parsed_points(names, images, stacked[kept], ids, notices)


def _columns(rows: Rows, header: list[str]) -> tuple[int, Columns]:
    """Return how many columns name the image, and where each point's coordinates are."""
    lines = dict(zip(header, rows.rows, strict=False))
    width = len(lines["coords"].cells)
    for title, row in lines.items():
        if len(row.cells) != width:
            raise InputError(
                f"{rows.path}, line {row.line}: expected {width} cells as on the line of coords, "
                f"found {len(row.cells)} of {title}"
            )
    coords = [cell.lower() for cell in lines["coords"].cells]
    index = next((place for place in range(1, width) if coords[place]), width)
    found: dict[tuple[str, str, str], int] = {}
    for column in range(index, width):
        individual = lines["individuals"].cells[column] if "individuals" in lines else ""
        key = individual, lines["bodyparts"].cells[column], coords[column]
        if coords[column] not in COORDINATES:
            raise InputError(
                f"{rows.path}, line {lines['coords'].line}: expected x or y in column "
                f"{column + 1}, found '{shown(coords[column])}'"
            )
        if key in found:
            raise InputError(f"{rows.path}: the point {shown(key[1])} is named twice")
        found[key] = column
    columns: Columns = {}
    for individual, name, _ in found:
        places = [found.get((individual, name, axis)) for axis in "xy"]
        if None in places:
            raise InputError(f"{rows.path}: the point {shown(name)} has no column of x or of y")
        columns.setdefault(individual, {})[name] = (places[0], places[1])  # type: ignore[assignment]
    return index, columns
