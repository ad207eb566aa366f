"""Predictions to look at: drawings, a video, a page; and which images to annotate next [spec 18].

Letters: N images, B of a batch, A points, D numbers that say what an image looks like.
"""

import re
from collections.abc import Container, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from data_loader.framing import Framing
from data_loader.readers.videos import frame_rate, write_video
from data_loader.unannotated import ImageFiles, ImageSource, VideoFrames
from engine.pages.page import PageRecord, write_page
from engine.prediction.part_file import Found, least_certain
from engine.prediction.run import PredictionRun
from models.encoders import encode
from models.suggestion import suggest
from utils.drawing import draw_named, save_png
from utils.errors import InputError
from utils.files import check_output, write_text, writing
from utils.log import progress

MOST_CANDIDATES = 2000  # images that are compared with each other
LOOK_GRID = 3  # rows and columns of what an image looks like


def draw_least_certain(run: PredictionRun, count: int, folder: Path) -> int:
    """Draw the images with the least mean confidence into a folder; return how many.

    Their names begin with their rank, from the least on.
    """
    chosen = least_certain(run.entries(), count)
    ranks = {entry.index: rank for rank, entry in enumerate(chosen, 1)}
    by_index = {entry.index: entry for entry in chosen}
    with writing(folder):
        folder.mkdir(exist_ok=True)
    for index, image in run.source.open(sorted(ranks)):
        entry = by_index[index]
        stem = re.sub(r"[^\w.-]+|\.\w+$", "_", entry.image).strip("_")[-60:]
        path = folder / f"{ranks[index]:04d}_{stem}.png"
        points = np.array(entry.points)
        if entry.box is not None:  # what was looked at, and no more
            window = run.frame.framing.window(entry.size, entry.box)
            image, points = image.crop(window), points - window[:2]
        drawing = draw_named(image, points, run.frame.names, entry.confidence)
        save_png(drawing, path)
    return len(ranks)


def check_video(source: ImageSource, path: Path, overwrite: bool) -> None:
    """Raise an `InputError` unless a labelled video may be written there."""
    if not isinstance(source, VideoFrames):
        raise InputError(f"--out_video {path}: --images is no video")
    check_output(path, overwrite, "--out_video")


def draw_video(run: PredictionRun, path: Path) -> int:
    """Write the video again with the points in it; return how many frames."""
    source = run.source
    assert isinstance(source, VideoFrames)  # as `check_video` saw

    def frames() -> Iterator[Image.Image]:
        images = source.open(list(range(run.part.count)))
        for (_, image), entry in zip(images, progress(run.entries(), "drawing"), strict=False):
            if entry.reason:
                continue
            largest = max(image.size)
            yield draw_named(
                image,
                np.array(entry.points),
                run.frame.names,
                entry.confidence,
                longer=(1, largest),
            )

    unfinished = path.with_name(f".{path.stem}.unfinished{path.suffix}")
    try:
        count = write_video(unfinished, frames(), frame_rate(source.path))
        with writing(path):
            unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return count


def write_prediction_page(run: PredictionRun, folder: Path, title: str, overwrite: bool) -> None:
    """Write the page of all images that could be read."""
    write_page(folder, page_records(run), names=run.frame.names, title=title, overwrite=overwrite)


def page_records(run: PredictionRun) -> Iterator[PageRecord]:
    """Yield each image that could be read as the page takes it."""
    source = run.source
    frames = source.open(list(range(run.part.count))) if isinstance(source, VideoFrames) else None
    for entry in progress(run.entries(), "writing the page"):
        if entry.reason:
            continue
        image = next(frames)[1] if frames is not None else file_of(source, entry.index)
        yield PageRecord(
            name=entry.image,
            image=image,
            points=np.array(entry.points),
            confidence=np.array(entry.confidence),
            truth=None,
            width=entry.size[0],
            height=entry.size[1],
            label=entry.instance,
            box=shown_window(run.frame.framing, entry),
        )


def file_of(source: ImageSource, index: int) -> Path:
    """Return an image's file."""
    assert isinstance(source, ImageFiles)
    return source.path(index)


def shown_window(framing: Framing, entry: Found) -> tuple[float, float, float, float] | None:
    """Return what the network was shown of a box, in pixels; None for a whole image."""
    if entry.box is None:
        return None
    left, top, right, bottom = framing.window(entry.size, entry.box)
    return left - 0.5, top - 0.5, right - 0.5, bottom - 0.5


def check_suggestion(source: ImageSource, annotated: ImageFiles | None) -> None:
    """Raise an `InputError` unless there are images that may be suggested."""
    if not isinstance(source, ImageFiles):
        raise InputError("--suggest: of image files, not of a video")
    known = paths_of(annotated)
    if all(source.path(place).resolve() in known for place in range(source.count or 0)):
        raise InputError("--suggest: all images are annotated already")


def paths_of(annotated: ImageFiles | None) -> set[Path]:
    """Return where annotated images lie; there may be none."""
    if annotated is None:
        return set()
    return {annotated.path(place).resolve() for place in range(annotated.count or 0)}


def suggest_images(
    run: PredictionRun, annotated: ImageFiles | None, count: int, path: Path
) -> list[str]:
    """Write a list of images to annotate next, the most wanted first; return their names.

    Of the less certain half of the images, they are those that most others look like; see
    `models.suggestion`. Annotated images aren't suggested.
    """
    source = run.source
    assert isinstance(source, ImageFiles)  # as `check_suggestion` saw
    candidates = less_certain_half(run.entries(), source, paths_of(annotated), count)
    if not candidates:
        raise InputError("--suggest: no image that isn't annotated can be read")
    looks = torch.cat(list(looks_of(run, source, candidates)))
    before: Iterator[Tensor] = iter(())
    if annotated is not None:
        before = looks_of(run, annotated, list(range(annotated.count or 0)))
    picked = suggest(looks, count, before)
    names = list(dict.fromkeys(source.shown(candidates[place]).name for place in picked))
    write_text(path, "".join(f"{name}\n" for name in names))
    return names


def less_certain_half(
    entries: Iterator[Found], source: ImageFiles, known: Container[Path], least: int
) -> list[int]:
    """Return the numbers of the readable images whose mean confidence is below the median.

    Images at ``known`` paths are left out. There are at least ``least``, if there are so many. If
    there are n times `MOST_CANDIDATES`, it is every n-th by confidence.
    """
    order = sorted(
        (entry.certainty, entry.index)
        for entry in entries
        if not entry.reason and source.path(entry.index).resolve() not in known
    )
    half = order[: max(least, len(order) // 2)]
    step = max(1, len(half) // max(least, MOST_CANDIDATES))
    return [index for _, index in half[::step]]


@torch.no_grad()
def looks_of(run: PredictionRun, source: ImageFiles, indices: Sequence[int]) -> Iterator[Tensor]:
    """Yield the encoder's deepest map of the images of each batch, averaged over 3x3 parts, (B, D).

    What can't be read is a blank image.
    """
    predictor = run.predictor
    device = next(predictor.parameters()).device
    for batch in progress(run.loader(source, indices), "comparing"):
        images = batch.image.to(device)
        maps = encode(predictor.encoder, images, predictor.find.levels.numbers)
        yield adaptive_avg_pool2d(maps[0].float(), LOOK_GRID).flatten(1).cpu()
