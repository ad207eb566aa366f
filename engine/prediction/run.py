"""Landmarks on images without annotations: a run that may be killed and started again [spec 18].

Letters: B images of a batch, A landmarks, N images.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from filelock import FileLock, Timeout
from torch.utils.data import DataLoader, IterableDataset, Subset

from data_loader.bad_images import write_list
from data_loader.framing import Affine
from data_loader.geometry import denormalize_points
from data_loader.readers.prediction_files import Prediction, prediction_format, write_predictions
from data_loader.unannotated import ImageSource, InputItem
from engine.prediction.predictor import PredictionSettings, Predictor
from models.encoders import weights_digest
from utils.errors import InputError
from utils.files import check_output, writing
from utils.interruption import Interruption, ignore_signals
from utils.locks import LOCK_SECONDS
from utils.log import RunLog, progress
from utils.script import available_cores

SUFFIX = ".part"  # ends the name of a file of what has been found, beside the results
BESIDE = (".bad_images.txt", ".suggested.txt", ".drawn")  # and those of what else may lie there
AHEAD = 2  # batches that a worker may have ready


class PredictionRun:
    """The prediction of a source's images into a file.

    Use as a context, which keeps other runs away from the file.

    Args:
        predictor: on its device, in eval mode.
        source: the images.
        settings: where results go, and how images are gone through.
        log: receives lines.

    Attributes:
        part: what has been found so far.
        shown: what the source's images are, in the words of the log.

    Raises:
        InputError: if the file can't be written, is there already, or another run writes it.
    """

    def __init__(
        self, predictor: Predictor, source: ImageSource, settings: PredictionSettings, log: RunLog
    ) -> None:
        self.predictor, self.frame, self.source = predictor, predictor.frame, source
        self.settings, self.log, out = settings, log, settings.out
        self.expects_errors = bool(predictor.calibration and predictor.calibration.error)
        self.has_instances = bool(source.count) and bool(source.shown(0).instance)
        self.outputs = [out, *settings.also_out]
        for path in self.outputs:
            prediction_format(path, self.has_instances)
            check_output(path, settings.overwrite, "--out")
        has_boxes = bool(source.count) and source.shown(0).box is not None
        self.shown = "frames" if source.count is None else "boxes" if has_boxes else "images"
        self.bad_list, self.suggested, self.drawn = (Path(f"{out}{end}") for end in BESIDE)
        self.lock = FileLock(out.with_name(f".{out.name}.lock"))

    def __enter__(self) -> "PredictionRun":
        out, overwrite = self.settings.out, self.settings.overwrite
        with writing(out):
            try:
                # The workers of a run that was killed hold its lock until they notice.
                self.lock.acquire(timeout=LOCK_SECONDS)
            except Timeout:
                raise InputError(f"{out}: another run writes it") from None
        try:
            for path in self.outputs:
                check_output(path, overwrite, "--out")  # of the run that held the lock
            part = out.with_name(out.name + SUFFIX)
            is_begun = part.is_file() and part.stat().st_size  # then what is there is this run's
            for path in (self.bad_list, self.suggested, self.drawn):
                if path.exists() and not (is_begun or overwrite):
                    raise InputError(f"{path}: is there already; --overwrite to replace it")
            self.part = PartFile(part, self.identity(), overwrite)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.lock.release()
        Path(self.lock.lock_file).unlink(missing_ok=True)

    def identity(self) -> dict[str, str]:
        """Return what results depend on, by name."""
        calibration = f"{self.predictor.calibration} {self.predictor.amp}"
        return {
            "checkpoint or encoder": digest([weights_digest(self.predictor), calibration]),
            "framing or names": digest([repr(self.frame)]),
            "images": digest(self.source.identity()),
        }

    def predict(self) -> None:
        """Go through the images that are left; each batch is kept as soon as it is done.

        Raises:
            InputError: if no image can be read.
        """
        if self.part.count:
            self.log.line(f"resumed from {self.part.path} after {self.part.count:,} {self.shown}")
        with Interruption() as interruption:
            for batch in progress(self.loader(self.source), "predicting"):
                found = self._read(batch)
                for entry in found:
                    if entry.bad:
                        self.log.line(f"skipped: {entry.image}: {entry.bad}")
                self.part.append(found)
                if interruption.received:
                    self.log.line(
                        f"stopped after {self.part.count:,} {self.shown}; the same command goes on"
                    )
                    interruption.leave(interruption.received)
        if self.part.bad == self.part.count:
            first, count = next(self.part.entries()), f"{self.part.count:,} {self.shown}"
            raise InputError(f"none of the {count} can be read; {first.image}: {first.bad}")

    def loader(self, source: ImageSource, indices: Sequence[int] | None = None) -> DataLoader:
        """Return batches of `InputItem`: of the images that are left, or those of some numbers."""
        frame, size = self.frame, self.settings.batch_size
        first = self.part.count if indices is None else 0
        items = source.items(frame.prepare, frame.side, first)
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

    def _read(self, batch: InputItem) -> list[Prediction]:
        """Return what is found in a batch."""
        device = next(self.predictor.parameters()).device
        points, confidence, errors = self.predictor(batch.image.to(device))
        points_px = denormalize_points(points.double().cpu().numpy(), self.frame.side)
        found = []
        for row, index in enumerate(batch.index.tolist()):  # type: ignore[attr-defined]
            shown, bad = self.source.shown(index), batch.reason[row]
            width, height = batch.size[row].tolist()
            points, sure = np.full(points_px[row].shape, np.nan), np.zeros(len(points_px[row]))
            off = np.full(len(sure), np.nan) if self.expects_errors else np.empty(0)
            if not bad:
                affine = Affine(*batch.affine[row].numpy())
                points = affine.inverse(points_px[row] + self.frame.crop)
                if not np.isfinite(points).all():
                    raise InputError(
                        f"{shown.name}: its landmarks aren't finite; is the encoder sound?"
                    )
                sure = confidence[row].double().cpu().numpy()
                if self.expects_errors:
                    left, top, right, bottom = shown.box or (0, 0, width, height)
                    diagonal = math.hypot(right - left, bottom - top)
                    off = diagonal * errors[row].double().cpu().numpy()
            what = shown.name, (width, height), points, sure, shown.instance, shown.box
            found.append(Prediction(*what, index, bad, errors=off))
        return found

    def finish(self, scales: Mapping[int, float]) -> None:
        """Write results, units per pixel by image number, and bad images; remove the part file."""
        bad = [(entry.image, entry.bad) for entry in self.part.entries() if entry.bad]
        write_list(self.bad_list, bad)
        how = self.has_instances, self.expects_errors
        for out in self.outputs:
            rows = self.part.entries() if self.source.count is None else self.part.readable()
            rows = (row._replace(scale=scales.get(row.number)) for row in rows)
            write_predictions(out, self.frame.names, rows, *how)
        with writing(self.part.path):
            self.part.path.unlink()


class PartFile:
    """What a run has found so far, in a file that survives a kill at any moment.

    The first line says of which run it is; then there is a line of JSON for each image, in their
    order. Lines are appended. What isn't a whole line, as the last one may be, is cut off when the
    file is opened again.

    Args:
        path: of the file.
        identity: facts by name that results depend on, each a short text.
        replace: start afresh where another run left the file.

    Attributes:
        count: of lines.
        bad: how many of them are of images that can't be read.

    Raises:
        InputError: if another run left the file, or it can't be written.
    """

    def __init__(self, path: Path, identity: dict[str, str], replace: bool) -> None:
        self.path, self.count, self.bad = path, 0, 0
        begin = json.dumps({next(iter(identity)): ""})[:-2].encode()  # of any run's
        with writing(path), path.open("a+b") as file:
            file.seek(0)
            line = file.readline(2**16)
            header, is_own = None, line.startswith(begin) or begin.startswith(line)
            with suppress(ValueError):
                header = json.loads(line) if line.endswith(b"\n") else None
            if header == identity:
                self._count_lines(file)
                return
            if (header is not None or not is_own) and not replace:
                told = header if isinstance(header, dict) else {}
                other = [name for name in identity if told.get(name) != identity[name]]
                left = f"left by a run with other {', '.join(other) or 'settings'}"
                raise InputError(
                    f"{path}: {left if is_own else 'left by no such run'}: give another --out, or "
                    "--overwrite to start afresh"
                )
            file.truncate(0)
            file.write(f"{json.dumps(identity)}\n".encode())

    def _count_lines(self, file: BinaryIO) -> None:
        """Count the whole lines in their order; cut off what follows."""
        end = file.tell()
        for line in file:
            try:
                found = read_line(line)
            except (TypeError, ValueError):
                break
            if found.number != self.count or not line.endswith(b"\n"):
                break
            self.count, self.bad = self.count + 1, self.bad + bool(found.bad)
            end += len(line)
        file.truncate(end)

    def append(self, found: Sequence[Prediction]) -> None:
        """Add the next images."""
        with writing(self.path), self.path.open("ab") as file:
            for entry in found:
                head = [entry.number, entry.image, entry.instance, entry.box, entry.size]
                numbers = (entry.points, entry.confidence, entry.errors)
                line = [*head, *(np.asarray(values).tolist() for values in numbers), entry.bad]
                file.write(f"{json.dumps(line)}\n".encode())
        self.count += len(found)
        self.bad += sum(bool(entry.bad) for entry in found)

    def entries(self) -> Iterator[Prediction]:
        """Yield all lines, one at a time."""
        with self.path.open("rb") as file:
            file.readline()
            for line in file:
                yield read_line(line)

    def readable(self) -> Iterator[Prediction]:
        """Yield what was found in the images that can be read."""
        return (entry for entry in self.entries() if not entry.bad)


def read_line(line: bytes) -> Prediction:
    """Return what an image's line says; a TypeError or ValueError if it isn't one."""
    number, image, instance, box, size, points, confidence, errors, bad = json.loads(line)
    width, height = map(int, size)
    box = None if box is None else tuple(map(float, box))
    points = np.array(points, dtype=np.float64).reshape(len(confidence), 2)  # (A, 2)
    sure = np.array(confidence, dtype=np.float64)  # (A,)
    off = np.array(errors, dtype=np.float64)  # (A,), or none
    return Prediction(image, (width, height), points, sure, instance, box, number, bad, errors=off)


def digest(texts: Iterable[str]) -> str:
    """Return a hash of texts."""
    found = hashlib.sha256()
    for text in texts:
        found.update(text.encode("utf-8", "surrogateescape") + b"\0")
    return found.hexdigest()[:32]
