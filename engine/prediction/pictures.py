"""Predictions to look at: drawings, a video, a page; and which images to annotate next [spec 18].

Letters: N images, B of a batch, A points, D numbers that say what an image looks like.
"""

import heapq
import re
from collections.abc import Container, Iterable, Iterator, Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from data_loader.readers.prediction_files import Prediction
from data_loader.readers.videos import frame_rate, write_video
from data_loader.unannotated import ImageFiles, VideoFrames
from engine.pages.page import PageRecord
from engine.prediction.run import PredictionRun
from models.encoders import encode
from models.suggestion import suggest
from utils.drawing import draw_named, save_png
from utils.errors import InputError
from utils.files import UNFINISHED, write_text, writing
from utils.log import progress

MOST_CANDIDATES = 2000  # images that are compared with each other
LOOK_GRID = 3  # rows and columns of what an image looks like


def draw_least_certain(run: PredictionRun, count: int, folder: Path) -> int:
    """Draw the images with the least mean confidence into a folder; return how many.

    Their names begin with their rank, from the least on; such drawings of a run before are removed.
    """
    chosen = heapq.nsmallest(
        count, run.part.readable(), key=lambda found: (found.certainty, found.number)
    )
    ranked = {found.number: (rank, found) for rank, found in enumerate(chosen, 1)}
    with writing(folder):
        folder.mkdir(exist_ok=True)
        for old in folder.glob("[0-9][0-9][0-9][0-9]*_*.png"):
            old.unlink()
    for number, image in run.source.open(sorted(ranked)):
        rank, found = ranked[number]
        stem = re.sub(r"[^\w.-]+|\.\w+$", "_", found.image).strip("_")[-60:]
        stem = stem.encode()[-200:].decode(errors="ignore")  # names have a limit in bytes
        points = found.points
        if found.box is not None:  # what was looked at, and no more
            window = run.frame.framing.window(found.size, found.box)
            image, points = image.crop(window), points - window[:2]
        drawing = draw_named(image, points, run.frame.names, found.confidence)
        save_png(drawing, folder / f"{rank:04d}_{stem}.png")
    return len(chosen)


def draw_video(run: PredictionRun, source: VideoFrames, path: Path) -> int:
    """Write the video again with the points in it; return how many frames."""

    def frames() -> Iterator[Image.Image]:
        shown = source.open(list(range(run.part.count)))
        for (_, image), found in zip(shown, progress(run.part.readable(), "drawing"), strict=False):
            longer = 1, max(image.size)
            yield draw_named(image, found.points, run.frame.names, found.confidence, longer)

    unfinished = unfinished_video(path)
    try:
        count = write_video(unfinished, frames(), frame_rate(source.path))
        with writing(path):
            unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return count


def check_video(path: Path, source: VideoFrames) -> None:
    """Raise an `InputError` unless a video can be written there: a frame of one is, and removed."""
    trial = unfinished_video(path)
    try:
        write_video(trial, iter([Image.new("RGB", (64, 64))]), frame_rate(source.path))
    except InputError as error:
        said = str(error).removeprefix(f"{trial}: ")
        raise InputError(f"--out_video {path}: {said}; expected a name such as a.mp4") from None
    finally:
        trial.unlink(missing_ok=True)


def unfinished_video(path: Path) -> Path:
    """Return where a video is written first; its ending says the format."""
    return path.with_name(f".{path.stem}{UNFINISHED}{path.suffix}")


def page_records(run: PredictionRun) -> Iterator[PageRecord]:
    """Yield each image that could be read as the page takes it."""
    source, framing = run.source, run.frame.framing
    frames = source.open(list(range(run.part.count)))  # taken of a video alone
    for found in progress(run.part.readable(), "writing the page"):
        yield PageRecord(
            name=found.image,
            image=source.path(found.number) if isinstance(source, ImageFiles) else next(frames)[1],
            points=found.points,
            confidence=found.confidence,
            truth=None,
            size=found.size,
            label=found.instance,
            window=None if found.box is None else framing.window(found.size, found.box),
            levels=run.frame.levels,
        )


def not_annotated(source: ImageFiles, annotated: ImageFiles | None) -> list[int]:
    """Return the numbers of the images that `suggest_images` chooses from.

    Raises:
        InputError: if all are annotated.
    """
    known: set[Path] = set()
    if annotated is not None:
        known = {annotated.path(place).resolve() for place in range(annotated.count)}
    numbers = range(source.count)
    left = [number for number in numbers if source.path(number).resolve() not in known]
    if not left:
        raise InputError("--suggest: all images are annotated already")
    return left


def suggest_images(
    run: PredictionRun, source: ImageFiles, numbers: Iterable[int], annotated: ImageFiles | None
) -> list[str]:
    """Write a list of images to annotate next, the most wanted first; return their names.

    Of the less certain half of the images with some ``numbers``, they are those that most others
    look like; see `models.suggestion`.
    """
    count = run.settings.suggest or 0
    candidates = less_certain_half(run.part.readable(), set(numbers), count)
    if not candidates:
        raise InputError("--suggest: no image that isn't annotated can be read")
    looks = torch.cat(list(looks_of(run, source, candidates)))
    before: Iterator[Tensor] = iter(())
    if annotated is not None:
        before = looks_of(run, annotated, list(range(annotated.count)))
    picked = suggest(looks, count, before)
    names = list(dict.fromkeys(source.shown(candidates[place]).name for place in picked))
    write_text(run.suggested, "".join(f"{name}\n" for name in names))
    return names


def less_certain_half(
    readable: Iterable[Prediction], numbers: Container[int], least: int
) -> list[int]:
    """Return those of some numbers whose images' mean confidence is below the median.

    There are at least ``least``, if there are so many. If there are n times `MOST_CANDIDATES`, it
    is every n-th by confidence.
    """
    order = sorted((found.certainty, found.number) for found in readable if found.number in numbers)
    half = order[: max(least, len(order) // 2)]
    step = max(1, len(half) // max(least, MOST_CANDIDATES))
    return [number for _, number in half[::step]]


@torch.no_grad()
def looks_of(run: PredictionRun, source: ImageFiles, indices: Sequence[int]) -> Iterator[Tensor]:
    """Yield the encoder's deepest map of each batch, averaged over 3x3 parts, (B, D).

    An image that can't be read is blank.
    """
    predictor = run.predictor
    device, source.levels = next(predictor.parameters()).device, run.frame.levels
    for batch in progress(run.loader(source, indices), "comparing"):
        images = batch.image.to(device)
        maps = encode(predictor.encoder, images, predictor.readout.levels.numbers)
        yield adaptive_avg_pool2d(maps[0].float(), LOOK_GRID).flatten(1).cpu()
