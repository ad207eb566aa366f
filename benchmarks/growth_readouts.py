"""What `benchmarks.growth` measures of readouts, with few imports beside `predict.py`'s."""

import contextlib
import csv
import io
import sys
import time
from pathlib import Path

import torch

import predict
from benchmarks.measure import Cost, highest_memory
from benchmarks.regressor import LAYER, with_optimizer
from data_loader.loaders import SeededSampler
from engine.encoded_images import StoredImages
from engine.readouts.published import PublishedReadout, train_one_epoch
from engine.readouts.ridge_fit import assign_folds, fit_ridge
from eval_face import face_task
from models.encoders import build_random_encoder, choose_levels, encode, freeze
from models.ridge import RidgeReadout
from utils.log import RunLog

SIDE, LANDMARKS = 96, 5
STORED = 64  # random images whose features stand for those of all
CPU = torch.device("cpu")


def cost_of_readout(kind: str, count: int, model: str) -> Cost:
    """Return the cost of a ridge readout, or of an epoch of the published regressor."""
    torch.manual_seed(0)
    encoder = freeze(build_random_encoder(model, SIDE, seed=0))
    levels = choose_levels(encoder, LAYER, use_hypercol=True)
    maps = encode(encoder, torch.randn(STORED, 3, SIDE, SIDE), levels.numbers)
    stored = [
        *(m.permute(0, 2, 3, 1).contiguous() for m in maps),
        1.6 * torch.rand(STORED, LANDMARKS, 2) - 0.8,
        torch.ones(STORED, LANDMARKS, dtype=torch.bool),
    ]
    rows = torch.arange(count) % STORED
    images = StoredImages(SeededSampler(count, 0, False), 32, stored, rows, CPU)
    channels = encoder.feature_channels(levels.numbers)
    before, begun = highest_memory(), time.perf_counter()
    if kind == "ridge":
        readout = RidgeReadout(channels, LANDMARKS, SIDE, levels.shape)
        fit_ridge(readout, images, assign_folds(images, count), RunLog())
    else:
        regressor, optimizer = with_optimizer(
            PublishedReadout.build(channels, LANDMARKS, SIDE, levels.shape)
        )
        train_one_epoch(regressor, optimizer, face_task((0, 1)), images, 1, RunLog(), 10**9)
    peak = highest_memory()
    return Cost(time.perf_counter() - begun, peak, peak - before)


def cost_of_prediction(images: str, checkpoint: Path, out: Path) -> Cost:
    """Return the cost of a run of `predict.py`."""
    before, begun = highest_memory(), time.perf_counter()
    sys.argv = ["predict.py", "--ckpt_path", str(checkpoint), "--images", images]
    sys.argv += ["--out", str(out), "--num_workers", "0", "--overwrite"]
    with contextlib.redirect_stdout(io.StringIO()):
        predict.main()
    peak = highest_memory()
    with out.open() as file:
        assert sum(1 for _ in csv.reader(file)) > 1
    return Cost(time.perf_counter() - begun, peak, peak - before)
