"""Runs killed at random moments end in the bits of a run that was never killed.

``KILLS=40 pytest -s tests/kill`` kills each kind of run that often; a few times by default.
"""

import os
import random
import signal
import subprocess
import sys

import pytest
import torch

from datasets.synthetic import generate
from tests.recipes import ROOT
from utils.checkpoint import load_checkpoint

KILLS = int(os.environ.get("KILLS", "3"))
FRAME = "--image_size 72 --image_crop 4 --model resnet18 --num_workers 1 --print_freq 1"
RUNS = {
    # Saves after every step, so that most kills come within an epoch or in the middle of a save.
    "train_moco.py": "--batch_size 8 --nce_k 20 --cosine --epochs {epochs} --save_minutes 0.0001 "
    "--save_freq 3 --image_cache",
    "eval_face.py": "--random_network --layer 4 --use_hypercol --batch_size 4 --adam --cosine "
    "--learning_rate 0.01 --epochs {epochs} --save_freq 3 --feature_cache disk",
}
# Enough for a run to outlive its kills, each a few seconds of work after the start.
EPOCHS = {"train_moco.py": 5 + 4 * KILLS, "eval_face.py": 10 + 15 * KILLS}


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    out = tmp_path_factory.mktemp("faces")
    generate(out, images=20, mafl_train=10, mafl_test=6, workers=1)
    return out / "celeba"


def start(script, faces, cwd, name):
    options = RUNS[script].format(epochs=EPOCHS[script])
    where = f"--data_folder {faces} --model_path runs --model_name {name} --resume auto"
    return subprocess.Popen(
        [sys.executable, str(ROOT / script), *f"{FRAME} {options} {where}".split()],
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def weights(path):
    content = load_checkpoint(path, ("opt", "epoch", "optimizer"))
    parts = [part for part in ("model", "model_ema", "contrast", "regressor") if part in content]
    tensors = {(part, key): value for part in parts for key, value in content[part].items()}
    for place, state in content["optimizer"]["state"].items():
        tensors |= {(place, key): torch.as_tensor(value) for key, value in state.items()}
    return content["epoch"], tensors


@pytest.mark.parametrize("script", list(RUNS))
def test_killed_runs_end_in_the_same_bits(faces, tmp_path, script):
    run = start(script, faces, tmp_path, "whole")
    out, _ = run.communicate(timeout=600)
    assert run.returncode == 0, out

    chance, kills, resumed = random.Random(script), 0, 0
    while True:
        run = start(script, faces, tmp_path, "killed")
        try:
            # From less than a start takes to a few seconds of work after it.
            limit = chance.uniform(0.3, 8.0) if kills < KILLS else 600
            out, _ = run.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            os.killpg(run.pid, signal.SIGKILL)
            out, _ = run.communicate()
            kills += 1
        else:
            assert run.returncode == 0, out
        resumed += "resumed from runs/killed/" in out
        assert "Traceback" not in out and "can't be read" not in out, out
        assert "not a readable checkpoint" not in out, out
        if run.returncode == 0:
            break
    print(f"{script}: {kills} kills, {resumed} starts resumed, {EPOCHS[script]} epochs")
    (epoch, expected), (last, found) = (
        weights(tmp_path / "runs" / name / "current.pth") for name in ("whole", "killed")
    )
    assert epoch == last == EPOCHS[script] and list(expected) == list(found)
    for key, value in expected.items():
        assert torch.equal(value, found[key]), key
    assert kills > 0 and resumed > 0
    records = (tmp_path / "runs" / "killed" / "log.jsonl").read_text()
    assert records == (tmp_path / "runs" / "whole" / "log.jsonl").read_text()
