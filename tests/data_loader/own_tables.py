"""Tables of named points that tests make by hand, with images whose dots lie under a point."""

import numpy as np

from data_loader.readers.keypoint_table import KeypointTable
from tests.data_loader.layouts import dot_image, save_image, write_text

NAMES = ["nose", "left_eye", "right_eye"]
PAIRS = [("left_eye", "right_eye")]
SIZE = (120, 80)


def table_of(
    images, points, boxes=None, names=NAMES, pairs=PAIRS, size=SIZE, turned=False
) -> KeypointTable:
    """Return a table of instances (N, A, 2), without boxes (N, 4) if none are given."""
    points, count = np.asarray(points, dtype=np.float64), len(images)
    return KeypointTable(
        names=list(names),
        images=list(images),
        points=points,
        boxes=np.full((count, 4), np.nan) if boxes is None else np.asarray(boxes, dtype=float),
        areas=np.full(count, np.nan),
        ids=[f"instance {row}" for row in range(count)],
        flip_pairs=list(pairs),
        sigmas=None,
        notices=["a line of the reader's"],
        sizes=np.full((count, 2), size, dtype=np.float64),
        turned=np.full(count, turned),
    )


def write_long_csv(path, table) -> None:
    """Write a table as a CSV with one line a point."""
    lines = ["image,point,x,y"]
    for image, points in zip(table.images, table.points, strict=True):
        lines += [
            f"{image},{n},{float(x)!r},{float(y)!r}"
            for n, (x, y) in zip(table.names, points, strict=True)
        ]
    write_text(path, *lines)


def write_dots(folder, count, seed=0, size=SIZE) -> KeypointTable:
    """Write images ``day{i % 3}/{i}.png`` with a dot under the first point; return their table."""
    rng = np.random.RandomState(seed)
    points = rng.uniform((30, 25), (size[0] - 30, size[1] - 25), (count, 3, 2))
    images = [f"day{i % 3}/{i}.png" for i in range(count)]
    for image, place in zip(images, points, strict=True):
        save_image(folder / image, dot_image(size, place[0]))
    return table_of(images, points, size=size)
