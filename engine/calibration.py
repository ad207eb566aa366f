"""Confidence made a probability, on images that weren't trained on [spec 18].

Letters: N held-out images, A landmarks.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from data_loader.keypoints import Keypoints
from engine.encoded_images import EncodedImages
from engine.evaluation import Run
from engine.finetune_run import FinetuneRun
from engine.keypoint_scores import diagonals, to_original
from engine.predictor import read_features
from engine.resumption import CURRENT
from engine.ridge_run import RidgeRun
from models.calibration import LEAST_POINTS, Calibration, as_entry, fit_calibration
from models.encoders import weights_digest
from utils.checkpoint import load_checkpoint, load_weights, save_checkpoint
from utils.log import RunLog

ENTRY = "calibration"


def calibrate_run(
    datasets: Mapping[str, Keypoints],
    distance: float,
    run: Run,
    held_out: Mapping[str, EncodedImages],
    log: RunLog,
) -> None:
    """Add to a finished run's checkpoints what their readouts' confidence is worth.

    Validation images tell it, or else the test images.

    Args:
        datasets: split to its images.
        distance: see `Calibration`.
        run: has saved its checkpoints.
        held_out: the same images, encoded.
        log: receives a line.
    """
    split = next((name for name in ("Val", *held_out) if name in held_out), None)
    if split is None:
        return
    settings, known = run.settings, dict[str, Calibration]()
    last = settings.folder / f"ckpt_epoch_{run.done}.pth"
    for path in (settings.best_path, last, settings.folder / CURRENT):
        if not path.exists():
            continue
        content = load_checkpoint(path, ("opt", "epoch"))
        readout = load_readout(run, content, path)
        key = weights_digest(readout)
        if key not in known:
            found = find_landmarks(readout, held_out[split])
            hit, judged = judge(datasets[split], found[0], distance)
            points, rate = int(judged.sum()), 100 * float(hit[judged].float().mean())
            counted = f"{points:,} points of the {len(hit):,} {split} images"
            if points < LEAST_POINTS:
                log.line(f"confidence isn't calibrated: {counted} are too few")
                return
            known[key] = fit_calibration(found[1], hit, judged, distance)
            log.line(
                f"{path.name}: confidence calibrated on {counted}, {rate:.1f} % of them within "
                f"{100 * distance:g} % of the diagonal"
            )
        save_checkpoint(path, {**content, ENTRY: as_entry(known[key])})


def load_readout(run: Run, content: dict, path: Path) -> nn.Module:
    """Return a run's readout as it is in one of its checkpoints."""
    if isinstance(run, FinetuneRun):
        run.load(content, path)
        return run.network
    is_ridge = isinstance(run, RidgeRun)
    readout = run.readout if isinstance(run, RidgeRun) else run.regressor
    load_weights(readout, content["ridge" if is_ridge else "regressor"], path, run.settings.hint)
    return readout


@torch.no_grad()
def find_landmarks(readout: nn.Module, images: EncodedImages) -> tuple[Tensor, Tensor]:
    """Return landmarks (N, A, 2) in [-1, 1] and confidence (N, A) of images in their order."""
    readout.eval()
    parts = [read_features(readout, batch.features) for batch in images.batches(epoch=0)]
    points, confidence = zip(*parts, strict=True)
    return torch.cat(points).cpu(), torch.cat(confidence).cpu()


def judge(dataset: Keypoints, predicted: Tensor, distance: float) -> tuple[Tensor, Tensor]:
    """Return which predictions (N, A, 2) in [-1, 1] are hits, and which are judged, (N, A) bool.

    A hit is at most ``distance`` times the diagonal of the box (or image) from the truth, in
    pixels of the image.
    """
    truth, visible = dataset.annotations["keypoints"], dataset.annotations["visible"]
    distances = np.linalg.norm(to_original(dataset, predicted) - truth, axis=-1)
    hit = distances <= distance * diagonals(dataset)[:, None]
    return torch.from_numpy(hit), torch.from_numpy(np.asarray(visible))
