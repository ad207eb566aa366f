"""Draw faces with exact landmarks into the folder layouts of face-landmark benchmarks.

The layout `folder` is what one's own images may be: images/, and points.csv of the labelled ones.
No photograph is involved, nothing is downloaded, and the same options give the same files
whatever the number of workers.
"""

import argparse
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from datasets.renderer.layouts import LAYOUTS, Plan, draw, render_job
from datasets.renderer.shape import five_points
from utils.arguments import ArgumentParser, integer
from utils.errors import InputError
from utils.files import read_json, writing
from utils.script import available_cores, run_script

RECORD = "synthetic.json"
VERSION = 1  # raise it when the same options give other images
IMAGES_PER_PERSON = 5


def _is_there(folder: Path, record: dict, overwrite: bool) -> bool:
    """Return whether the folder holds this very set; raise InputError if it holds another."""
    if not folder.exists():
        return False
    found = read_json(folder / RECORD)
    if found == record:
        return True
    if overwrite:
        return False
    state = "an unfinished or foreign set" if not found else "a set with other options"
    raise InputError(f"{folder}: holds {state}; give another --out, or --overwrite to replace it")


def _draw_all(root: Path, jobs: list, workers: int) -> list[np.ndarray]:
    """Draw all images; return the 68 points of each, (68, 2), in the order of the jobs."""
    for parent in {(root / job.path).parent for job in jobs}:
        parent.mkdir(parents=True, exist_ok=True)
    task = partial(draw, root)
    if workers == 1:
        return [task(job) for job in jobs]
    # Fresh processes: a fork of a program that uses threads (PyTorch does) may hang. They leave
    # Ctrl-C to the main process.
    alone = (signal.signal, (signal.SIGINT, signal.SIG_IGN))
    pool = ProcessPoolExecutor(workers, get_context("spawn"), *alone)
    try:
        return list(pool.map(task, jobs, chunksize=16))
    finally:
        pool.shutdown(cancel_futures=True)


def _make(folder: Path, layout: str, plan: Plan, record: dict, workers: int) -> None:
    """Draw one layout beside its folder, then move it there."""
    jobs = LAYOUTS[layout][0](plan)
    unfinished = folder.with_name(f".{folder.name}.unfinished-{os.getpid()}")
    unfinished.mkdir(parents=True)
    start = time.perf_counter()
    try:
        points = _draw_all(unfinished, jobs, workers)
        LAYOUTS[layout][1](unfinished, jobs, points, plan)
        (unfinished / RECORD).write_text(json.dumps(record, indent=1) + "\n")
        if folder.exists():
            shutil.rmtree(folder)
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    seconds = time.perf_counter() - start
    print(f"{folder}: {len(jobs)} images in {seconds:.0f} s ({len(jobs) / seconds:.1f} images/s)")


def generate(
    out: str | Path,
    *,
    images: int,
    mafl_train: int,
    mafl_test: int,
    identities: int | None = None,
    seed: int = 0,
    workers: int | None = None,
    layouts: Iterable[str] = ("celeba",),
    overwrite: bool = False,
    sheet: str | None = None,
) -> list[Path]:
    """Draw sets of faces; a set that is there already with the same options is left alone.

    With several workers the calling script must be importable without side effects (its work
    under ``if __name__ == "__main__"``), as always with Python's ``multiprocessing``.

    Args:
        out: Folder that gets one folder per layout.
        images: Unlabelled training images of the layouts celeba and folder, at least 1.
        mafl_train: Labelled training images of each layout, at least 1.
        mafl_test: Test images of each layout, at least 1, of people who are in no other ones.
        identities: People, at least 2; one for every five images of the CelebA layout if None.
        seed: Of everything random, 0 or more.
        workers: Processes; one for each available core if None.
        layouts: Some of `LAYOUTS`.
        overwrite: Replace sets with other options and unfinished ones.
        sheet: Image file for the first layout's first 24 images with their points.

    Returns:
        The layouts' folders.

    Raises:
        InputError: If a layout's images are too few, or a folder holds something
            else, or a file can't be written.
    """
    if identities is None:
        identities = max(2, (images + mafl_train + mafl_test) // IMAGES_PER_PERSON)
    plan = Plan(images, mafl_train, mafl_test, identities, seed)
    folders = {layout: Path(out) / layout for layout in layouts}
    record = {"version": VERSION, **vars(plan)}
    there = [_is_there(folder, record, overwrite) for folder in folders.values()]
    for (layout, folder), done in zip(folders.items(), there, strict=True):
        if done:
            print(f"{folder}: is there already with the same options")
            continue
        with writing(folder):
            _make(folder, layout, plan, record, workers or available_cores())
    if sheet is not None:
        _write_sheet(sheet, next(iter(folders)), plan)
    return list(folders.values())


def _write_sheet(path: str, layout: str, plan: Plan) -> None:
    """Save a contact sheet of a layout's first images with their 68 (green) and 5 (red) points."""
    wide, tall, columns = 267, 327, 6
    jobs = LAYOUTS[layout][0](plan)[:24]
    sheet = Image.new("RGB", (columns * wide, -(-len(jobs) // columns) * tall))
    for place, job in enumerate(jobs):
        pixels, points = render_job(job)
        zoom = min(wide / pixels.shape[1], tall / pixels.shape[0])
        size = (round(zoom * pixels.shape[1]), round(zoom * pixels.shape[0]))
        image = Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)
        pen = ImageDraw.Draw(image)
        for group, colour, radius in ((points, "lime", 1), (five_points(points), "red", 2)):
            for x, y in (group + 0.5) * zoom - 0.5:
                pen.ellipse([x - radius, y - radius, x + radius, y + radius], fill=colour)
        sheet.paste(image, (place % columns * wide, place // columns * tall))
    try:
        sheet.save(path)
    except (OSError, ValueError) as error:
        raise InputError(f"--sheet: {path} cannot be written: {error}") from None
    print(f"{path}: the first {len(jobs)} images of {layout}")


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line; see ``--help``."""
    parser = ArgumentParser(__doc__)
    add = parser.add_argument
    add("--out", default="datasets/synthetic", help="folder that gets one folder per layout")
    count = integer(1, 10**7)  # a CelebA has 2 * 10**5
    add("--images", type=count, default=3000, help="unlabelled images of celeba and folder")
    add("--mafl_train", type=count, default=300, help="labelled training images of each layout")
    add("--mafl_test", type=count, default=200, help="test images of each layout, of other people")
    add(
        "--identities",
        type=integer(2, 10**7),
        help="people; by default one for five images of CelebA's layout",
    )
    add("--seed", type=integer(0, 2**64 - 1), default=0, help="seed of everything random")
    add("--workers", type=integer(1, 1000), help="processes; by default one for each core")
    add(
        "--layouts",
        nargs="+",
        default=["celeba"],
        choices=list(LAYOUTS),
        help="benchmarks whose folder layout to write; or folder: images and points.csv",
    )
    add("--overwrite", action="store_true", help="replace other or unfinished sets")
    add("--sheet", help="also save this image: the first 24 images with their landmarks")
    return parser.parse_args(arguments)


def main() -> None:
    """Draw what the command line asks for."""
    generate(**vars(parse_arguments()))


if __name__ == "__main__":
    run_script(main)
