"""The images that an annotation file names: where they lie, and how large they are.

Letters: N instances.
"""

import os
from pathlib import Path, PurePosixPath

import numpy as np

from data_loader.readers.annotation_files import replace_backslashes
from data_loader.readers.images import oriented_size
from data_loader.readers.keypoint_names import shown, shown_list
from utils.errors import ImageError, InputError
from utils.log import progress


def locate(path: Path, folder: Path, images: list[str]) -> tuple[list[str], list[str]]:
    """Find named images below the data folder.

    If none lies where its name says, the names may be relative to another folder: one and the same
    change makes all of them fit, leading folders taken away or one put before.

    Args:
        path: the annotation file, for errors.
        folder: the data folder.
        images: N names.

    Returns:
        N names relative to the folder, and lines for the log.

    Raises:
        InputError: if images are absent; it names the first three and counts them.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; --data_folder names the images' folder")
    images = replace_backslashes(folder, images)
    names = list(dict.fromkeys(images))
    absent = [name for name in names if not os.path.isfile(folder / name)]
    if not absent:
        return images, []
    if len(absent) == len(names):
        for taken, added in _shifts(folder, names):
            moved = {
                name: str(PurePosixPath(added, *PurePosixPath(name).parts[taken:]))
                for name in names
            }
            if all(os.path.isfile(folder / new) for new in moved.values()):
                first = f"{shown(names[0])} is {shown(moved[names[0]])}"
                return [moved[name] for name in images], [f"{path}: below {folder}, {first}"]
    raise InputError(
        f"{path}: {len(absent):,} of the {len(names):,} images it names aren't below {folder}: "
        f"{shown_list(absent)}"
    )


def _shifts(folder: Path, names: list[str]) -> list[tuple[int, str]]:
    """Return how many leading folders all names share and may lose, or what may be added.

    A folder is only added if no other one has the first image, too.
    """
    parts = [PurePosixPath(name).parts[:-1] for name in names]
    shared = 0
    while len({p[: shared + 1] for p in parts}) == 1 and shared < len(parts[0]):
        shared += 1
    shifts = [(taken, "") for taken in range(1, shared + 1)]
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
        try:
            read[name] = oriented_size(folder / name)
        except ImageError:
            read[name] = (np.nan, np.nan), False
    sizes, turned = zip(*(read[name] for name in images), strict=True)
    return np.array(sizes, dtype=np.float64), np.array(turned, dtype=bool)
