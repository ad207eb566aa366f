"""Checkpoints as the published code writes them: the old file format, its keys, its types."""

import argparse
import json

import numpy as np
import pytest
import torch

from models.encoders import build_encoder
from tests.recipes import GOLDEN, fill
from tests.scripts.running import FRAME, result_of, succeed
from utils.checkpoint import load_checkpoint

KEYS = json.loads((GOLDEN / "state_keys.json").read_text())
OPTIONS = argparse.Namespace(model="resnet18", lr_decay_epochs=[120, 160], gpu=None, cosine=True)


def published_state(name):
    empty = {key: torch.empty(shape, dtype=getattr(torch, kind)) for key, shape, kind in KEYS[name]}
    return fill(empty)


def regressor_state(channels, points):
    """The published regressor's keys, at another number of channels and landmarks."""
    state = {}
    for key, shape, _ in KEYS["regressor_c24a68"]:
        if key.startswith("linear.") and int(key.split(".")[1]) >= points:
            continue
        shape = [{24: channels, 3400: points * 50, 136: points * 2}.get(n, n) for n in shape]
        state[key] = torch.randn(shape)
    return state


def write(path, content):
    torch.save(content, path, _use_new_zipfile_serialization=False)


def momentum_state(parameters, seen):
    """The state dict of torch 1.4's SGD over parameters, of which some have momentum."""
    return {
        "state": {i: {"momentum_buffer": torch.ones_like(parameters[i])} for i in seen},
        "param_groups": [
            {
                "lr": 0.01,
                "momentum": 0.9,
                "dampening": 0,
                "weight_decay": 1e-4,
                "nesterov": False,
                "params": list(range(len(parameters))),
            }
        ],
    }


@pytest.fixture
def moco(tmp_path):
    parameters = [p for n, p in build_encoder("resnet18", 64).named_parameters()]
    content = {
        "opt": OPTIONS,
        "model": published_state("resnet18"),
        "contrast": {"params": torch.tensor([-1]), "memory": torch.randn(20, 128)},
        "optimizer": momentum_state(parameters, range(len(parameters))),
        "epoch": 2,
        "model_ema": published_state("resnet18"),
    }
    write(tmp_path / "moco.pth", content)
    return tmp_path


def test_pre_training_goes_on(faces, moco):
    done = succeed(
        *("train_moco.py", *FRAME, "--data_folder", faces, "--batch_size", 8, "--nce_k", 20),
        *("--epochs", 3, "--resume", "moco.pth", "--model_path", "runs", "--model_name", "on"),
        cwd=moco,
    )
    assert "a published checkpoint" in done.out and "epoch 3/3" in done.out
    ours = load_checkpoint(moco / "runs/on/current.pth", ())
    theirs = torch.load(moco / "moco.pth", weights_only=False)
    for part in ("model", "model_ema", "contrast"):  # what they load strictly
        assert list(ours[part]) == list(theirs[part])
        assert [v.shape for v in ours[part].values()] == [v.shape for v in theirs[part].values()]
    assert type(ours["opt"]) is argparse.Namespace
    plain = (str, int, float, bool, tuple, type(None))
    assert all(isinstance(value, plain) for value in vars(ours["opt"]).values())


@pytest.mark.parametrize("best", [np.float64(7.5), np.float32(7.5), torch.tensor(7.5), 7.5])
def test_a_regressor_is_drawn_and_goes_on(faces, moco, best):
    state = regressor_state(512 + 256, 5)
    optimizer = momentum_state(list(state.values()), [1, 2])
    content = {"opt": OPTIONS, "epoch": 1, "regressor": state, "best_error": best}
    write(moco / "regressor.pth", {**content, "optimizer": optimizer})
    frame = [*FRAME, "--data_folder", faces, "--layer", 2, "--use_hypercol", "--batch_size", 5]
    frame += ["--trained_model_path", "moco.pth"]
    drawn = succeed(
        *("vis_face.py", *frame, "--ckpt_path", "regressor.pth", "--vis_keypoints"),
        cwd=moco,
    )
    done = succeed(
        *("eval_face.py", *frame, "--learning_rate", 0, "--epochs", 2),
        *("--resume", "regressor.pth", "--model_path", "runs", "--model_name", "on"),
        cwd=moco,
    )
    assert "epoch 2/2" in done.out and "epoch 1/2" not in done.out
    # At a rate of zero the weights stay the published ones, so both scripts find one error.
    result = result_of(moco / "runs/on")
    error = result["last"]["Test"]["InterOcularError"]
    assert f"error {error:.2f} %" in drawn.out
    assert result["best"]["best_error"] == min(7.5, error)
