"""Small runs of the real scripts, each as its own process group, and what they leave."""

import os
import subprocess
import sys

import torch

from tests.recipes import ROOT
from utils.checkpoint import load_checkpoint

FRAME = "--image_size 72 --image_crop 4 --model resnet18 --num_workers 1 --print_freq 1"


def start(script, faces, cwd, options, **how):
    """Start a script in a folder, with its two outputs in one pipe unless ``how`` says more."""
    how = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, **how}
    given = [*FRAME.split(), "--data_folder", str(faces), "--model_path", "runs", *options.split()]
    return subprocess.Popen(
        [sys.executable, str(ROOT / script), *given],
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        text=True,
        start_new_session=True,
        **how,
    )


def weights(path):
    """Return a checkpoint's epoch, and all tensors in it by part and key."""
    content = load_checkpoint(path, ("opt", "epoch", "optimizer"))
    parts = [
        part for part in ("model", "model_ema", "contrast", "head", "regressor") if part in content
    ]
    tensors = {(part, key): value for part in parts for key, value in content[part].items()}
    for place, state in content["optimizer"]["state"].items():
        tensors |= {(place, key): torch.as_tensor(value) for key, value in state.items()}
    return content["epoch"], tensors


def assert_same_end(one, other, epochs):
    """Compare the last checkpoints of two runs' folders to the bit, and their records."""
    (epoch, expected), (last, found) = (weights(run / "current.pth") for run in (one, other))
    assert epoch == last == epochs and list(expected) == list(found)
    for key, value in expected.items():
        assert torch.equal(value, found[key]), key
    assert (one / "log.jsonl").read_text() == (other / "log.jsonl").read_text()
