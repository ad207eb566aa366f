"""Confidence made a probability, on images that weren't trained on [spec 18].

Letters: N held-out images, A landmarks.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from data_loader.keypoints import Keypoints
from engine.features.images import EncodedImages
from engine.points.scores import diagonals, point_distances
from engine.readouts.readout import Readout
from engine.readouts.task import find_landmarks
from engine.run.resumption import CURRENT
from models.calibration import LEAST_POINTS, Calibration, fit_calibration, from_entry
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
) -> None:
    """Add to the checkpoints of a fit what their readouts' confidence is worth.

    Validation images tell it, or else the test images.

    Args:
        datasets: split to its images.
        distance: see `Calibration`.
        readout: has been fitted, and has saved its checkpoints, whose weights it takes here.
        held_out: the same images, encoded.
        log: receives a line.
    """
    split = next((name for name in ("Val", "Test") if name in held_out), None)
    if split is None:  # the images that are judged were trained on
        log.line("confidence isn't calibrated, and no probability: no image is held out")
        return
    settings, known = readout.settings, dict[str, Calibration]()
    last = settings.folder / f"ckpt_epoch_{readout.done}.pth"
    for path in (settings.best_path, last, settings.folder / CURRENT):
        if not path.exists():
            continue
        content = load_checkpoint(path, ("opt", "epoch"))
        readout.load(path, content, settings.hint)
        key = weights_digest(readout.network.eval())
        if key not in known:
            found = find_landmarks(readout.with_confidence, held_out[split])
            off = point_distances(datasets[split], found.points)  # (N, A)
            limits = distance * diagonals(datasets[split])[:, None]
            hit, judged = torch.from_numpy(off <= limits), torch.from_numpy(~np.isnan(off))
            points, rate = int(judged.sum()), 100 * float(hit[judged].float().mean())
            counted = f"{points:,} points of the {len(hit):,} {split} images"
            if points < LEAST_POINTS:
                log.line(f"confidence isn't calibrated: {counted} are too few")
                return
            known[key] = fit_calibration(found.confidence, hit, judged, distance)
            log.line(
                f"{path.name}: confidence calibrated on {counted}, {rate:.1f} % of them within "
                f"{100 * distance:g} % of the diagonal"
            )
        save_checkpoint(path, {**content, ENTRY: known[key]._asdict()})


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
