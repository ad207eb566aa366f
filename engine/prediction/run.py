"""Landmarks on images without annotations: a run that may be killed and started again [spec 18].

Letters: B images of a batch, A landmarks, N images.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from filelock import FileLock, Timeout
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, Subset

from data_loader.framing import Affine
from data_loader.geometry import denormalize_points
from data_loader.readers.prediction_files import (
    Prediction,
    prediction_format,
    write_predictions,
)
from data_loader.unannotated import ImageSource, InputItem, Preparation
from engine.prediction.part_file import SUFFIX, Found, PartFile
from engine.prediction.predictor import Frame, Predictor
from models.encoders import weights_digest
from utils.errors import InputError
from utils.files import check_output, write_text, writing
from utils.interruption import Interruption, ignore_signals
from utils.locks import LOCK_SECONDS
from utils.log import RunLog, progress
from utils.script import available_cores

AHEAD = 2  # batches that a worker may have ready


@dataclass(frozen=True)
class PredictionSettings:
    """How images are gone through and where results go; see the flags."""

    out: Path
    overwrite: bool
    batch_size: int
    num_workers: int


class Summary(NamedTuple):
    """How many images there were, and how many of them can't be read."""

    total: int
    bad: int


class PredictionRun:
    """The prediction of a source's images into a file.

    Use as a context, which keeps other runs away from the file.

    Args:
        predictor: on its device, in eval mode.
        frame: what it is shown.
        source: the images.
        settings: see there.
        log: receives lines.

    Raises:
        InputError: if the file can't be written, is there already, or another run writes it.
    """

    def __init__(
        self,
        predictor: Predictor,
        frame: Frame,
        source: ImageSource,
        settings: PredictionSettings,
        log: RunLog,
    ) -> None:
        self.predictor, self.frame, self.source = predictor, frame, source
        self.settings, self.log = settings, log
        self.has_instances = bool(source.count) and bool(source.shown(0).instance)
        self.has_boxes = bool(source.count) and source.shown(0).box is not None
        check_out(settings.out, settings.overwrite, self.has_instances)
        self.lock = FileLock(settings.out.with_name(f".{settings.out.name}.lock"))

    def __enter__(self) -> "PredictionRun":
        out = self.settings.out
        with writing(out):
            try:
                # The workers of a run that was killed hold its lock until they notice.
                self.lock.acquire(timeout=LOCK_SECONDS)
            except Timeout:
                raise InputError(f"{out}: another run writes it") from None
        try:
            check_out(out, self.settings.overwrite, self.has_instances)
            path = out.with_name(out.name + SUFFIX)
            self.part = PartFile(path, self.identity(), self.settings.overwrite)
        except BaseException:
            self._release()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.part.close()
        self._release()

    def _release(self) -> None:
        self.lock.release()
        Path(self.lock.lock_file).unlink(missing_ok=True)

    def identity(self) -> dict[str, str]:
        """Return what results depend on, by name."""
        calibration = repr(self.predictor.calibration)
        return {
            "checkpoint or encoder": digest([weights_digest(self.predictor), calibration]),
            "framing or names": digest([repr(self.frame)]),
            "images": digest(self.source.identity()),
        }

    def predict(self) -> Summary:
        """Go through the images that are left; each batch is kept as soon as it is done.

        Raises:
            InputError: if no image can be read.
        """
        if self.part.count:
            self.log.line(f"resumed from {self.part.path} after {self.part.count:,} images")
        with Interruption() as interruption:
            for batch in progress(self.loader(self.source), "predicting"):
                found = self._read(batch)
                for entry in found:
                    if entry.reason:
                        self.log.line(f"skipped: {entry.image}: {entry.reason}")
                self.part.append(found)
                if interruption.received:
                    self.log.line(
                        f"stopped after {self.part.count:,} images; the same command goes on"
                    )
                    interruption.leave(interruption.received)
        summary = Summary(self.part.count, self.part.bad)
        if summary.bad == summary.total:
            first = next(self.part.entries())
            raise InputError(
                f"none of the {summary.total:,} images can be read; {first.image}: {first.reason}"
            )
        return summary

    def loader(self, source: ImageSource, indices: Sequence[int] | None = None) -> DataLoader:
        """Return batches of `InputItem`: of the images that are left, or those of some numbers."""
        frame, size = self.frame, self.settings.batch_size
        prepare = Preparation(frame.framing, frame.crop, Normalization(frame))
        first = self.part.count if indices is None else 0
        items = source.items(prepare, frame.side, first)
        if indices is not None:
            items = Subset(items, indices)
        workers = min(self.settings.num_workers, available_cores())
        if isinstance(items, IterableDataset):
            workers = min(workers, 1)  # each would decode the whole video
        return DataLoader(
            items,
            size,
            num_workers=workers,
            worker_init_fn=ignore_signals,
            prefetch_factor=AHEAD if workers else None,
            generator=torch.Generator(),
        )

    def _read(self, batch: InputItem) -> list[Found]:
        """Return what is found in a batch."""
        device = next(self.predictor.parameters()).device
        points, confidence = self.predictor(batch.image.to(device))
        points_px = denormalize_points(points.double().cpu().numpy(), self.frame.side)
        found = []
        for row, index in enumerate(batch.index.tolist()):  # type: ignore[attr-defined]
            shown, reason = self.source.shown(index), batch.reason[row]
            head = index, shown.name, shown.instance, shown.box
            if reason:
                found.append(Found(*head, (0, 0), [], [], reason))
                continue
            affine = Affine(*batch.affine[row].numpy())
            points_orig = affine.inverse(points_px[row] + self.frame.crop)
            if not np.isfinite(points_orig).all():
                raise InputError(
                    f"{shown.name}: its landmarks aren't finite; is the encoder sound?"
                )
            width, height = batch.size[row].tolist()
            sure = confidence[row].tolist()
            found.append(Found(*head, (width, height), points_orig.tolist(), sure, ""))
        return found

    def entries(self) -> Iterator[Found]:
        """Yield what was found in all images, one at a time."""
        return self.part.entries()

    def finish(self) -> None:
        """Write the results in their format, and the list of bad images; remove the part file."""
        out = self.settings.out
        write_bad_list(bad_list(out), self.part.entries())
        write_predictions(out, self.frame.names, as_predictions(self.entries()), self.has_instances)
        self.part.remove()


class Normalization:
    """Standardises the colours of images (3, W, W) in [0, 1]."""

    def __init__(self, frame: Frame) -> None:
        self.mean = torch.tensor(frame.mean)[:, None, None]
        self.std = torch.tensor(frame.std)[:, None, None]

    def __call__(self, image: Tensor) -> Tensor:
        """Return an image, standardised."""
        return (image - self.mean) / self.std


def check_out(out: Path, overwrite: bool, instances: bool) -> None:
    """Raise an `InputError` unless results may be written there."""
    prediction_format(out, instances)
    check_output(out, overwrite, "--out")


def digest(texts: list[str]) -> str:
    """Return a hash of texts."""
    found = hashlib.sha256()
    for text in texts:
        found.update(text.encode("utf-8", "surrogateescape") + b"\0")
    return found.hexdigest()[:32]


def as_predictions(entries: Iterator[Found]) -> Iterator[Prediction]:
    """Yield the images that could be read, as the writers take them."""
    for entry in entries:
        if not entry.reason:
            points, sure = np.array(entry.points), np.array(entry.confidence)
            yield Prediction(entry.image, entry.size, points, sure, entry.instance, entry.box)


def bad_list(out: Path) -> Path:
    """Return where images that can't be read are listed."""
    return out.with_name(f"{out.name}.bad_images.txt")


def write_bad_list(path: Path, entries: Iterator[Found]) -> None:
    """List images that can't be read, with the reason; without any, there is no file."""
    lines = [f"{entry.image}\t{entry.reason}\n" for entry in entries if entry.reason]
    if lines:
        write_text(path, "".join(lines))
    else:
        with writing(path):
            path.unlink(missing_ok=True)
