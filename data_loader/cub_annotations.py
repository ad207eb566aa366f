"""CUB's part annotations, from the Torch7 files or from those CUB itself ships [SPEC 6].

Letters: N pictures, A = 15 parts. Points are (x, y) as shares of the picture's size.
"""

from pathlib import Path

import numpy as np
import torchfile

from data_loader.annotation_files import read_lines
from data_loader.images import image_size
from utils.errors import InputError

PARTS = 15


def read_part_annotations(root: Path, filenames: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return the points (N, A, 2) and visibility (N, A) bool of the named pictures.

    Reads ``anno/train.dat`` and ``anno/val.dat`` (which holds the test pictures too) where they
    exist, else ``images.txt`` and ``parts/part_locs.txt``.

    Raises:
        InputError: if neither is there, one is damaged, or a picture isn't annotated.
    """
    dat_files = [root / "anno" / name for name in ("train.dat", "val.dat")]
    if any(path.is_file() for path in dat_files):
        rows = {}
        for path in dat_files:
            rows.update(read_dat(path))
        annotated = [rows.get(Path(name).name) for name in filenames]
        source = root / "anno"
    elif (root / "parts/part_locs.txt").is_file():
        rows = read_part_locations(root, set(filenames))
        annotated = [rows.get(name) for name in filenames]
        source = root / "parts/part_locs.txt"
    else:
        raise InputError(
            f"{root}: no part annotations: expected anno/train.dat and anno/val.dat, "
            "or CUB's own images.txt and parts/part_locs.txt"
        )
    for name, row in zip(filenames, annotated, strict=True):
        if row is None:
            raise InputError(f"{source}: has no parts of {name}")
    parts = np.array(annotated)  # (N, A, 3)
    return parts[..., :2], parts[..., 2] > 0


def read_dat(path: Path) -> dict[str, np.ndarray]:
    """Return picture's base name to (A, 3), x, y, visible, of a Torch7 file.

    Raises:
        InputError: if it is absent or built otherwise.
    """
    try:
        table = torchfile.load(str(path))
        return {
            name.decode(): np.array(
                [parts[str(part).encode()] for part in range(1, PARTS + 1)], dtype=np.float64
            ).reshape(PARTS, 3)
            for name, parts in table.items()
        }
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; CUB's layout has one there") from None
    except Exception as error:  # torchfile raises whatever the bytes make it
        raise InputError(
            f"{path}: expected a Torch7 table of names with parts '1' to '{PARTS}' ({error})"
        ) from None


def read_part_locations(root: Path, wanted: set[str]) -> dict[str, np.ndarray]:
    """Return picture's path below ``images`` to (A, 3), x, y, visible, of CUB's own files.

    CUB gives pixels, so each wanted picture's header is read for its size.

    Raises:
        InputError: naming the file and line that doesn't fit.
    """
    names = {}
    for number, line in enumerate(read_lines(root / "images.txt"), 1):
        words = line.split()
        if len(words) != 2:
            raise InputError(f"{root / 'images.txt'}, line {number}: expected an id and a path")
        names[words[0]] = words[1]
    path, rows = root / "parts/part_locs.txt", {}
    for number, line in enumerate(read_lines(path), 1):
        words = line.split()
        try:
            image_id, part, x, y, visible = words[0], int(words[1]), *map(float, words[2:5])
            name = names[image_id]
            if not (1 <= part <= PARTS and len(words) == 5 and np.isfinite([x, y, visible]).all()):
                raise ValueError
        except (IndexError, KeyError, ValueError):
            raise InputError(
                f"{path}, line {number}: expected image id, part 1 to {PARTS}, x, y, visible"
            ) from None
        if name in wanted:
            rows.setdefault(name, np.zeros((PARTS, 3)))[part - 1] = x, y, visible
    for name, row in rows.items():
        row[:, :2] /= image_size(root / "images" / name)
    return rows
