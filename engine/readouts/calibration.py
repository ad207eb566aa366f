"""Confidence made a probability, on images that weren't trained on [spec 18].

Letters: N held-out images, A landmarks.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from data_loader.keypoints import Keypoints
from data_loader.readers.keypoint_table import places_of
from engine.features.images import EncodedImages
from engine.points.scores import Judged, judge
from engine.readouts.readout import Readout
from engine.readouts.task import find_landmarks
from engine.run.resumption import CURRENT
from models.calibration import (
    LEAST_POINTS,
    Calibration,
    crossed_worth,
    fit_calibration,
    from_entry,
)
from models.encoders import weights_digest
from utils.checkpoint import load_checkpoint, save_checkpoint
from utils.errors import InputError
from utils.log import RunLog

ENTRY = "calibration"


def calibrate_run(
    datasets: Mapping[str, Keypoints],
    distance: float,
    readout: Readout,
    held_out: Mapping[str, EncodedImages],
    log: RunLog,
) -> dict[str, object]:
    """Add to the checkpoints of a fit what their readouts' confidence is worth.

    Validation images tell it, or else the test images.

    Args:
        datasets: split to its images.
        distance: see `Calibration`.
        readout: has been fitted, and has saved its checkpoints, whose weights it takes here.
        held_out: the same images, encoded.
        log: receives a line.

    Returns:
        What ``result.json`` says of the kept one.
    """
    split = next((name for name in ("Val", "Test") if name in held_out), None)
    if split is None:  # the images that are judged were trained on
        log.line("confidence isn't calibrated, and no probability: no image is held out")
        return {}
    known, told = dict[str, Calibration](), dict[str, object]()
    for path, content in checkpoints(readout):
        readout.load(path, content, readout.settings.hint)
        key = weights_digest(readout.network.eval())
        if key not in known:
            found = find_landmarks(readout.with_confidence, held_out[split])
            judged = judge(datasets[split], found)
            calibration, worth = calibrate(judged, distance, f"{split} images", log)
            if calibration is None:
                return {}
            known[key], told = calibration, told or worth
        save_checkpoint(path, {**content, ENTRY: known[key]._asdict()})
    return told


def calibrate_by_folds(
    judged: Judged,
    distance: float,
    readout: Readout,
    held_out: Mapping[str, EncodedImages],
    log: RunLog,
) -> dict[str, object]:
    """Add to the checkpoints of a fit to all images what its folds say of the confidence.

    ``judged`` are all images, each by the readout that hadn't seen it; for the others, of which
    ``held_out`` isn't needed, see `calibrate_run`.
    """
    own = judged.dataset.point_names
    order = places_of(dict(readout.notes)["landmarks"]["names"], own)  # type: ignore[index]
    ordered = judged._replace(
        distances=judged.distances[:, order], confidence=judged.confidence[:, order]
    )
    calibration, told = calibrate(ordered, distance, "images of the folds", log)
    if calibration is not None:
        for path, content in checkpoints(readout):
            save_checkpoint(path, {**content, ENTRY: calibration._asdict()})
    return told


def checkpoints(readout: Readout) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield the files that a finished fit has left, the best one first, and what they hold."""
    settings = readout.settings
    last = settings.folder / f"ckpt_epoch_{readout.done}.pth"
    for path in (settings.best_path, last, settings.folder / CURRENT):
        if path.exists():
            yield path, load_checkpoint(path, ("opt", "epoch"))


def calibrate(
    judged: Judged, distance: float, what: str, log: RunLog
) -> tuple[Calibration | None, dict[str, object]]:
    """Return what a confidence is worth by N held-out instances, and how well it tells.

    None if they have too few points, which the log is told.
    """
    confidence, off = torch.from_numpy(judged.confidence), torch.from_numpy(judged.relative)
    points = int((~off.isnan()).sum())
    counted = f"{points:,} points of the {len(off):,} {what}"
    if points < LEAST_POINTS:
        log.line(f"confidence isn't calibrated: {counted} are too few")
        return None, {}
    calibration = fit_calibration(confidence, off, distance)
    right = 100 * float((off[~off.isnan()] <= distance).double().mean())
    worth = crossed_worth(confidence, off, distance)
    said = f"{counted}, {right:.1f} % of them within {100 * distance:g} % of the diagonal"
    if "spearman" in worth:
        ranks = f"{worth['spearman']:.2f}"
        said += f"; expected errors rank the true ones with a Spearman correlation of {ranks}"
    log.line(f"confidence calibrated on {said}")
    return calibration, {"calibration": {"points": points, "right": right, **worth}}


def read_calibration(
    path: str, content: Mapping[str, Any], landmarks: int, log: RunLog
) -> Calibration | None:
    """Return the map of confidence that a checkpoint notes, if it does."""
    entry, opt = content.get(ENTRY), vars(content["opt"])
    held_out = any(map(opt.get, ("val_share", "val_annotations", "test_annotations")))
    if entry is None or (opt.get("test_share") == 0 and not held_out):  # earlier versions made one
        log.line(
            f"{path}: has no calibration: confidence is the readout's own, from 0 to 1, and no "
            "probability"
        )
        return None
    try:
        calibration = from_entry(entry, landmarks)
    except (KeyError, TypeError, ValueError):
        raise InputError(f"{path}: its entry calibration is damaged") from None
    log.line(
        f"confidence: the probability of at most {100 * calibration.distance:g} % of the diagonal "
        f"of the image (or box) from the truth, from {calibration.points:,} held-out points"
    )
    return calibration
