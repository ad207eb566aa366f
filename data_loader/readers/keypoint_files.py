"""Reading of files of named points, in whichever known format, and of which images they name.

Letters: N instances, A points.
"""

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache, partial
from itertools import compress, takewhile
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from data_loader.readers.annotation_files import Find, read_lines, replace_backslashes
from data_loader.readers.coco_keypoints import parse_coco
from data_loader.readers.image_names import find_images
from data_loader.readers.images import oriented_size
from data_loader.readers.keypoint_csv import parse_csv
from data_loader.readers.keypoint_table import (
    COCO_SIGMAS,
    KeypointTable,
    check_same_names,
    find_flip_pairs,
    named,
    places_of,
    select,
    shown,
    shown_list,
)
from data_loader.readers.tps_files import BEGIN, parse_tps
from utils.errors import ImageError, InputError
from utils.files import check_is_file
from utils.log import progress

HDF5 = b"\x89HDF"  # begins DeepLabCut's .h5 and SLEAP's .slp
Fitting = Callable[[str], list[str]]
MOST_NOTICES = 10  # of several files
TOLERANCE = 0.01  # of an image's longer side: a click may miss the edge
MOST_FOLDERS = 2048  # a path of more is longer than systems take


def read_keypoints(
    given: Path | Sequence[Path],
    folder: Path,
    *,
    y_up: bool = False,
    y_down: bool = False,
    category: str | None = None,
) -> KeypointTable:
    """Read annotation files of named points; the content of each tells its format.

    Formats: COCO keypoints JSON, DeepLabCut's ``CollectedData*.csv``, ImageJ's Results, plain CSV
    with one line an image or one line a point, and tpsDig's ``.tps``.

    An instance of a plain CSV or ``.tps`` whose points are all missing is in the table; COCO's
    annotations and DeepLabCut's animals without points aren't.

    Args:
        given: a file, or several, of the same points. What they say of an image that is in two of
            them has to be the same.
        folder: the data folder, which the images' names are relative to.
        y_up: a plain CSV's y runs upwards from the lower edge: row = height - y. So it does in
            ``.tps``.
        y_down: there, too, y runs downwards.
        category: name of the one that is meant, in a COCO file of several.

    Raises:
        InputError: if a file is of no known format, doesn't fit it, its images or the others.
    """
    paths = [given] if isinstance(given, Path) else list(dict.fromkeys(given))
    look = cache(look_through)  # a folder of tables looks through the images once
    parsed = [
        _parse(one, partial(locate, one, folder, look=look), y_up, y_down, category)
        for one in paths
    ]
    files = [one for one, table in zip(paths, parsed, strict=True) for _ in table.images]  # (N,)
    path, said = named(paths), _joined(paths, parsed, folder)
    sizes, turned = read_sizes(folder, said.images)  # (N, 2), (N,)
    table = said._replace(sizes=sizes, turned=turned)
    _check_sizes(files, table, said.sizes)
    _check_places(path, table)
    # Where the height isn't known, the image can't be read, and is none of those that are used.
    upwards = table.y_up & ~np.isnan(sizes[:, 1])
    heights = sizes[upwards, 1, None]  # (N, 1)
    table.points[upwards, :, 1] = heights - table.points[upwards, :, 1]
    table.boxes[upwards, 1::2] = heights - table.boxes[upwards, 3::-2]  # top was bottom
    if not np.isfinite(table.points).any():
        raise InputError(f"{path}: none of its {len(sizes):,} lines or records has a point")
    _check_inside(files, table)
    table = _each_once(files, table)
    if missing := [*compress(table.names, np.isnan(table.points).all(axis=(0, 2)))]:
        table.notices.append(f"{path}: no instance has {shown_list(missing, 10)}")
    pairs = table.flip_pairs or find_flip_pairs(table.names)
    of_person = sorted(table.names) == sorted(COCO_SIGMAS)
    sigmas = np.array([COCO_SIGMAS[name] for name in table.names]) if of_person else None
    return table._replace(flip_pairs=pairs, sigmas=sigmas, y_up=False)


def _parse(path: Path, find: Find, y_up: bool, y_down: bool, category: str | None) -> KeypointTable:
    """Read a file by the format that its content tells."""
    check_is_file(path)
    with path.open("rb") as file:
        begin = file.read(100)
    if begin.startswith(HDF5):
        raise InputError(
            f"{path}: an HDF5 file; give DeepLabCut's CSV beside it, or convert SLEAP's: pip "
            f"install sleap-io; sio convert {path} -o points.json --to coco"
        )
    notices, blank = list[str](), " \r\n"
    try:
        lines = read_lines(path, blank)  # tabs may part empty cells
    except InputError:
        if not BEGIN.match(begin.decode("latin-1").lstrip()):
            raise
        lines = read_lines(path, blank, "cp1252")  # Latin-1 as Windows has it, where tpsDig runs
        notices.append(f"{path}: not in UTF-8, read as Latin-1 (Windows-1252)")
    first = next(filter(None, map(str.strip, lines)), "")
    if first.startswith(("{", "[")):
        parsed = parse_coco(path, "\n".join(lines), category, find)
    elif category is not None:
        raise InputError(f"{path}: not COCO's JSON, which alone has categories (--category)")
    elif BEGIN.match(first):
        parsed = parse_tps(path, [line.strip() for line in lines], partial(find, guess=True))
    else:
        parsed = parse_csv(path, lines, find)
    if y_up and parsed.y_up is False:
        raise InputError(f"{path}: y runs downwards in this format; --y_up is for plain CSV")
    upwards = np.full(len(parsed.ids), bool(parsed.y_up or y_up) and not y_down)
    return parsed._replace(y_up=upwards, notices=[*notices, *parsed.notices])


def _joined(paths: Sequence[Path], tables: Sequence[KeypointTable], folder: Path) -> KeypointTable:
    """Return what files of the same points say as one table, with one name for each image."""
    first, points, ids, said = tables[0], [], list[str](), dict[str, list[Path]]()
    for path, table in zip(paths, tables, strict=True):
        check_same_names(path, table.names, paths[0], first.names)
        points.append(table.points[:, places_of(first.names, table.names)])
        taken = set(ids)  # of other instances, where they are numbers, as COCO's
        ids += [f"{path}: {own}" if own in taken else own for own in table.ids]
        for line in table.notices:
            said.setdefault(line.removeprefix(f"{path}: "), []).append(path)
    notices = [f"{named(files)}: {line}" for line, files in said.items()]
    if (more := len(notices) - MOST_NOTICES) > 0:
        notices[MOST_NOTICES:] = [f"{named(paths)}: {more:,} more lines like these"]
    images = [name for table in tables for name in table.images]
    once = dict(zip(images, one_name_each(folder, images), strict=True))
    arrays = ("boxes", "areas", "sizes", "y_up")
    joined: dict[str, Any] = {
        name: np.concatenate([getattr(table, name) for table in tables]) for name in arrays
    }
    return first._replace(
        images=[once[name] for name in images],
        points=np.concatenate(points),
        scales={once[name]: scale for table in tables for name, scale in table.scales.items()},
        ids=ids,
        notices=notices,
        **joined,
    )


def _each_once(files: Sequence[Path], table: KeypointTable) -> KeypointTable:
    """Leave out what the files (N,) of instances repeat of an image; others are an `InputError`."""
    found: dict[str, dict[Path, list[int]]] = {}
    for row, (image, file) in enumerate(zip(table.images, files, strict=True)):
        found.setdefault(image, {}).setdefault(file, []).append(row)
    kept = np.ones(len(files), dtype=bool)
    for image, rows_of in found.items():
        (first, rows), *others = rows_of.items()
        for file, again in others:
            if not np.array_equal(table.points[rows], table.points[again], equal_nan=True):
                raise InputError(f"{file}: {shown(image)} is in {first}, too, with other points")
            kept[again] = False
    if count := np.count_nonzero(~kept):
        path = named(list(dict.fromkeys(files)))
        table.notices.append(f"{path}: {count:,} instances that are in two files taken once")
    return select(table, kept)


def _check_sizes(files: Sequence[Path], table: KeypointTable, said: np.ndarray) -> None:
    """Raise an `InputError` if an image hasn't the size (N, 2) that its file (N,) gives."""
    sizes = table.sizes
    differs = (np.isfinite(sizes) & np.isfinite(said) & (sizes != said)).any(axis=1)
    if differs.any():
        row = int(differs.argmax())
        (width, height), (other_width, other_height) = sizes[row], said[row]
        raise InputError(
            f"{files[row]}: {shown(table.images[row])} has {width:g} x {height:g} pixels, annotated"
            f" with {other_width:g} x {other_height:g}"
        )


def _check_places(path: str, table: KeypointTable) -> None:
    """Note points at 0,0; an `InputError` if one always is, or most others are fractions."""
    there = ~np.isnan(table.points).any(axis=-1)  # (N, A)
    zero = (table.points == 0).all(axis=-1)  # (N, A)
    counts = [*zip(table.names, zero.sum(axis=0).tolist(), there.sum(axis=0).tolist(), strict=True)]
    if always := [name for name, count, total in counts if 0 < count == total]:
        raise InputError(f"{path}: always at 0,0: {shown_list(always)}; leave missing points empty")
    near = (np.abs(table.points) <= 1).all(axis=-1)[there & ~zero]
    if near.sum() > 0.9 * len(near):
        raise InputError(
            f"{path}: {near.sum():,} of its {len(near):,} points lie within 1 px of the image's "
            "corner: expected pixels, not fractions of the image"
        )
    if often := [f"{name} in {count:,} of {total:,}" for name, count, total in counts if count > 1]:
        table.notices.append(f"{path}: points at 0,0, taken as they are: {shown_list(often, 10)}")


def _check_inside(files: Sequence[Path], table: KeypointTable) -> None:
    """Raise an `InputError` if a point is further beyond its image than a click may miss.

    ``files`` (N,) are those of the instances.
    """
    points, sizes = table.points, table.sizes
    slack = np.maximum(TOLERANCE * sizes.max(axis=1), 1)[:, None, None]  # (N, 1, 1)
    beyond = (points < -slack) | (points > sizes[:, None] + slack)  # (N, A, 2); False for NaN
    if beyond.any():
        row, place, axis = np.argwhere(beyond)[0]
        (x, y), (width, height) = points[row, place], sizes[row]
        hint = "; if y runs upwards in a plain CSV, give --y_up" if axis == 1 else ""
        raise InputError(
            f"{files[row]}: point {shown(table.names[place])} of {shown(table.images[row])} is at "
            f"({x:g}, {y:g}), beyond its {width:g} x {height:g} pixels{hint}"
        )


def look_through(folder: Path) -> Fitting:
    """Return what says which images below a folder a name may mean.

    They have it in other case, with more folders before it or fewer, or with a suffix.
    """
    # By name, also without suffix, in lower case: the path, so and as it is.
    below: dict[str, list[tuple[str, str]]] = {}
    for file in find_images(folder, own=True)[0]:
        for whole in (file.lower(), os.path.splitext(file.lower())[0]):
            below.setdefault(os.path.basename(whole), []).append((f"/{whole}", file))

    def fitting(name: str) -> list[str]:
        path = f"/{name.lower()}"
        same = below.get(os.path.basename(path), [])
        return [file for whole, file in same if whole.endswith(path) or path.endswith(whole)]

    return fitting


def locate(
    path: Path,
    folder: Path,
    images: list[str],
    guess: bool = False,
    look: Callable[[Path], Fitting] = look_through,
) -> tuple[list[str], list[str]]:
    """Find named images below the data folder.

    If none lies where its name says, the names may be relative to another folder: one and the same
    change makes all of them fit, leading folders taken away or one put before.

    Args:
        path: the annotation file, for errors.
        folder: the data folder.
        images: N names.
        guess: an absent image is the file that `look_through` finds, if it is one.
        look: `look_through`, or what calls it.

    Returns:
        N names relative to the folder, one for each file, and lines for the log.

    Raises:
        InputError: if images are absent; it names the first three and counts them, and says which
            files one of them may be.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; --data_folder names the images' folder")
    images = replace_backslashes(folder, images)
    names = list(dict.fromkeys(images))
    absent = [name for name in names if not os.path.isfile(folder / name)]
    notices, moved = [] if absent else outside_notice(path, folder, names), dict[str, str]()
    if 0 < len(absent) == len(names):
        parts = [PurePosixPath(name).parts for name in names]
        for taken, added in _shifts(folder, names):
            tried = (os.path.join(added, *own[taken:]) for own in parts)
            found = list(takewhile(lambda name: os.path.isfile(os.path.join(folder, name)), tried))
            if len(found) == len(names):
                moved, absent = dict(zip(names, found, strict=True)), []
                notices = [f"{path}: below {folder}, {shown(names[0])} is {shown(found[0])}"]
                break
    if absent:
        fits = dict(zip(absent, map(look(folder), absent), strict=True))
        moved = {name: files[0] for name, files in fits.items() if guess and len(files) == 1}
        said = [f"{name} is {file}" for name, file in moved.items()]
        notices = [f"{path}: below {folder}, {shown_list(said)} ({len(said):,} in all)"]
        absent = [name for name in absent if name not in moved]
    if not absent:
        return one_name_each(folder, [moved.get(name, name) for name in images]), notices
    message = (
        f"{path}: {len(absent):,} of the {len(names):,} images it names aren't below {folder}: "
        f"{shown_list(absent)}"
    )
    if name := next((name for name in absent if fits[name]), None):
        by_case = ": only the case differs" if fits[name][0].lower() == name.lower() else ""
        message += f"; {shown(name)} may be {shown_list(fits[name])}{by_case}"
    raise InputError(message)


def outside_notice(path: Path, folder: Path, names: Sequence[str]) -> list[str]:
    """Return a line if an annotation file names images outside the data folder."""
    own = os.path.join(os.path.abspath(folder), "")
    outside = [n for n in names if not os.path.abspath(os.path.join(own, n)).startswith(own)]
    if not outside:
        return []
    return [f"{path}: names {len(outside):,} images outside {folder}: {shown_list(outside)}"]


def file_key(path: Path) -> object:
    """Return what tells a file from others, whichever link or case its path has."""
    try:
        return path.stat()[1:3]  # number and device
    except (OSError, ValueError):
        return path


def one_name_each(folder: Path, names: Sequence[str]) -> list[str]:
    """Return names (N,) of which one alone, the first, leads to each file or its folder."""
    first, found = dict[object, str](), dict[str, str]()
    for name in dict.fromkeys(names):
        path = PurePosixPath(name)
        parent = first.setdefault(file_key(folder / path.parent), str(path.parent))
        own = str(PurePosixPath(parent, path.name))
        found[name] = first.setdefault(file_key(folder / own), own)
    return [found[name] for name in names]


def _shifts(folder: Path, names: list[str]) -> list[tuple[int, str]]:
    """Return how many leading folders all names share and may lose, or what may be added.

    A folder is only added if no other one has the first image, too.
    """
    parts = [PurePosixPath(name).parts[:-1] for name in names]
    shared = os.path.commonprefix(parts)
    least = max(1, len(parts[0]) - MOST_FOLDERS)
    shifts = [(taken, "") for taken in range(least, len(shared) + 1)]
    first = PurePosixPath(names[0])
    if first.is_absolute() or ".." in first.parts:
        return shifts
    found = [
        os.path.relpath(inside, folder)
        for inside, _, _ in os.walk(folder)
        if os.path.isfile(os.path.join(inside, names[0]))
    ]
    return shifts + ([(0, found[0])] if len(found) == 1 else [])


def read_sizes(folder: Path, images: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return the width and height (N, 2) of images as their notes turn them, and which these turn.

    NaN where an image can't be read; that is said when the image is needed. The second is (N,).
    """
    read: dict[str, tuple[tuple[float, float], bool]] = {}
    for name in progress(list(dict.fromkeys(images)), "reading headers"):
        read[name] = (np.nan, np.nan), False
        with suppress(ImageError):
            read[name] = oriented_size(folder / name)
    sizes, turned = zip(*(read[name] for name in images), strict=True)
    return np.array(sizes, dtype=np.float64), np.array(turned, dtype=bool)
