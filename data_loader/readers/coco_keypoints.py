"""COCO's keypoints JSON [cocodataset.org, data format], as many tools export it.

Letters: N instances, A points.
"""

import json
import math
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from data_loader.readers.annotation_files import Find, read_lines, repeated
from data_loader.readers.keypoint_table import NO_BOX, KeypointTable, check_names, shown, shown_list
from utils.errors import InputError
from utils.files import check_is_file, reason

HALF = re.compile(r"\\u[dD][89a-fA-F]")  # of a character, which the other half should follow
Entry = dict[str, Any]
Entries = dict[int | str, Entry]  # by their ids


def parse_coco(path: Path, text: str, category: str | None, find: Find) -> KeypointTable:
    """Read the annotations that have points; crowds are left out.

    Args:
        path: the file, for errors.
        text: its content.
        category: name of the one that is meant. Without it, all those with points are, if their
            points have the same names.
        find: the images that it names.

    Raises:
        InputError: if it is no such file, or the category isn't in it.
    """
    images, annotations, content = _read(path, text)
    categories = _by_id(path, content, "categories")
    known = [str(entry.get("name")) for entry in categories.values()]
    if category is not None and category not in known:
        raise InputError(
            f"{path}: has no category {shown(category)} (--category); it has "
            f"{shown_list(known, 10) or 'none'}"
        )
    left_out, chosen = Counter[str](), list[Entry]()
    for entry in annotations.values():
        points = entry.get("keypoints")  # if something else than a list, that is said in `_points`
        kind = _other(path, entry, "category_id", categories)
        if category is not None and kind.get("name") != category:
            left_out["annotations of other categories"] += 1
        elif entry.get("iscrowd"):
            left_out["crowds"] += 1
        elif not any(points[2::3]) if isinstance(points, list) else points is None:
            left_out["annotations without points"] += 1
        else:
            chosen.append(entry)
    if not chosen:
        found = "".join(f", {count:,} {what}" for what, count in left_out.items())
        raise InputError(f"{path}: has no annotation with points{found}")
    if bare := len(images) - len({entry["image_id"] for entry in chosen}):
        left_out["images without such annotations"] = bare
    kinds = {entry["category_id"]: categories[entry["category_id"]] for entry in chosen}
    first = chosen[0]["keypoints"]
    numbers = [str(n + 1) for n in range(len(first) // 3)] if isinstance(first, list) else []
    names = _point_names(path, list(kinds.values()), numbers)
    indices = next(iter(kinds.values())).get("flip_indices")
    shown_images = [images[entry["image_id"]] for entry in chosen]
    said = [image["file_name"] for image in shown_images]
    files, notices = find(said)
    if twice := repeated(dict(zip(said, files, strict=True)).values()):
        raise InputError(f"{path}: the image {shown(twice)} is there twice, with other ids")
    notices += [f"{path}: {count:,} {what} left out" for what, count in left_out.items()]
    if not next(iter(kinds.values())).get("keypoints"):
        notices.append(f"{path}: its category names no points; they are 1 to {len(names)}")
    return KeypointTable(
        names=names,
        images=files,
        points=np.stack([_points(path, entry, len(names)) for entry in chosen]),
        boxes=np.array([_box(path, entry) for entry in chosen]),
        areas=np.array([_number(entry.get("area")) for entry in chosen]),
        ids=[str(entry["id"]) for entry in chosen],
        flip_pairs=[] if indices is None else _pairs_of_indices(path, names, indices),
        notices=notices,
        sizes=np.array(
            [[_number(image.get(side)) for side in ("width", "height")] for image in shown_images]
        ),
    )


def read_coco_boxes(path: Path) -> tuple[list[str], np.ndarray, list[str]]:
    """Return the images' names, boxes (N, 4) as `KeypointTable` has them, and ids of N annotations.

    Points, categories and crowds don't matter.

    Raises:
        InputError: if the file is no such file, or has an annotation without a box.
    """
    check_is_file(path)
    images, annotations, _ = _read(path, "\n".join(read_lines(path)))
    chosen = [entry for entry in annotations.values() if not entry.get("iscrowd")]
    if not chosen:
        raise InputError(f"{path}: has no annotation with a box")
    boxes = np.array([_box(path, entry) for entry in chosen])
    if (bare := np.isnan(boxes).any(axis=1)).any():
        raise InputError(f"{path}: {_called(chosen[bare.argmax()])} has no box")
    files = [images[entry["image_id"]]["file_name"] for entry in chosen]
    return files, boxes, [str(entry["id"]) for entry in chosen]


def _read(path: Path, text: str) -> tuple[Entries, Entries, dict[str, list]]:
    """Return the images, which have names, the annotations of these, and the whole content."""
    try:
        content = json.loads(text)
        if HALF.search(text):
            json.dumps(content, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not a JSON file ({reason(error)})") from None
    parts = ("images", "annotations", "categories")
    if not isinstance(content, dict) or not all(isinstance(content.get(p), list) for p in parts):
        raise InputError(f"{path}: not COCO's JSON, which has lists of {', '.join(parts)}")
    for part in parts:
        if not all(isinstance(entry, dict) for entry in content[part]):
            raise InputError(f"{path}: not COCO's JSON, {part} holds something else than objects")
    images = _by_id(path, content, "images")
    for key, image in images.items():
        if not isinstance(name := image.get("file_name"), str) or not name:
            raise InputError(f"{path}: image {shown(str(key))} has no file_name")
    if twice := repeated(image["file_name"] for image in images.values()):
        raise InputError(f"{path}: the image {shown(twice)} is there twice, with other ids")
    annotations = _by_id(path, content, "annotations")
    for entry in annotations.values():
        _other(path, entry, "image_id", images)
    return images, annotations, content


def _by_id(path: Path, content: dict[str, list], part: str) -> Entries:
    """Return the entries of a list by their ids, of which each has its own; 1 and "1" are one."""
    found: Entries = {}
    for place, entry in enumerate(content[part]):
        key = entry.get("id")
        if type(key) not in (int, str) or key == "":
            raise InputError(f"{path}: entry {place + 1} of {part} has no id")
        found[key] = entry
    if twice := repeated(str(entry["id"]) for entry in content[part]):
        raise InputError(f"{path}: {part} has the id {shown(twice)} twice")
    return found


def _called(annotation: Entry) -> str:
    """Return what errors call an annotation."""
    return f"annotation {shown(str(annotation['id']))}"


def _other(path: Path, annotation: Entry, key: str, others: Entries) -> Entry:
    """Return the image or the category that an annotation names."""
    number = annotation.get(key)
    if not isinstance(number, int | str) or number not in others:
        raise InputError(
            f"{path}: {_called(annotation)} has the {key} {shown(str(number))}, which isn't in the "
            "file"
        )
    return others[number]


def _point_names(path: Path, categories: list[Entry], numbers: list[str]) -> list[str]:
    """Return the points' names (A,), which categories share; their numbers where one has none."""
    lists = [entry.get("keypoints") or numbers for entry in categories]
    for entry, names in zip(categories, lists, strict=True):
        kind = shown(str(entry.get("name")))
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise InputError(f"{path}: category {kind} has no list of its keypoints' names")
        check_names(f"{path}: category {kind}", names)
        if names != lists[0]:
            first = shown(str(categories[0].get("name")))
            raise InputError(
                f"{path}: categories {first} and {kind} have other points; choose by --category"
            )
    return list(lists[0] or [])


def _points(path: Path, entry: Entry, count: int) -> np.ndarray:
    """Return an annotation's points (A, 2), NaN where its third number is 0."""
    place = f"{path}: {_called(entry)}"
    try:
        triples = np.array(entry["keypoints"], dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        triples = np.empty(0)
    if triples.shape != (3 * count,):
        raise InputError(
            f"{place} has keypoints that aren't {3 * count} numbers, x, y and visibility of "
            f"{count} points"
        )
    triples = triples.reshape(count, 3)
    missing = ~(triples[:, 2] > 0)
    if not np.isfinite(triples[~missing, :2]).all():
        raise InputError(f"{place} has a coordinate that is no finite number")
    return np.where(missing[:, None], np.nan, triples[:, :2])


def _box(path: Path, entry: Entry) -> tuple[float, float, float, float]:
    """Return left, top, right and bottom of an annotation's box; NaN if it has none."""
    box = entry.get("bbox")
    if not box:
        return NO_BOX
    numbers = [_number(value) for value in box] if isinstance(box, list) else []
    if len(numbers) != 4 or not all(map(math.isfinite, numbers)):
        raise InputError(
            f"{path}: {_called(entry)} has a bbox that isn't 4 numbers: left, top, width and height"
        )
    left, top, width, height = numbers
    if width <= 0 or height <= 0:
        return NO_BOX
    return left, top, left + width, top + height


def _number(value: object) -> float:
    """Return a JSON value as a number; NaN if it is none, or too large."""
    try:
        number = float(value) if isinstance(value, int | float) else math.nan
    except OverflowError:
        return math.nan
    return number if math.isfinite(number) else math.nan


def _pairs_of_indices(path: Path, names: list[str], indices: object) -> list[tuple[str, str]]:
    """Return the pairs that ``flip_indices`` say: of each point the place of the mirrored one."""
    fits = isinstance(indices, list) and all(type(i) is int for i in indices)
    if not fits or sorted(indices) != list(range(len(names))):  # type: ignore[call-overload]
        raise InputError(
            f"{path}: flip_indices aren't the numbers 0 to {len(names) - 1}, each once"
        )
    places: list[int] = indices  # type: ignore[assignment]
    if any(places[other] != place for place, other in enumerate(places)):
        raise InputError(f"{path}: flip_indices don't swap points in pairs")
    return [(names[a], names[b]) for a, b in enumerate(places) if a < b]
