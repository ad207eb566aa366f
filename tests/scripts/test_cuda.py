"""What the scripts do on a GPU: the same as on the CPU, within the rounding of its kernels."""

import csv

import numpy as np
import pytest
import torch

from data_loader.loaders import build_loader, set_epoch
from engine.pretraining.objective import Descent
from engine.run.acceleration import autocast
from models.momentum import shuffled_keys
from tests.data_loader.own_tables import write_dots, write_long_csv
from tests.recipes import arr
from tests.scripts.running import FRAME, last_error, logged, succeed
from train_moco import build_encoders
from utils.checkpoint import load_checkpoint
from utils.collectives import copy_indices, split_over_ranks

pytestmark = pytest.mark.cuda
GPU = "cuda"
RUN = [*FRAME, "--batch_size", 8, "--model_path", "runs"]
PRETRAIN = {
    "train_moco.py": ["--nce_k", 20, "--cosine", "--amp", "off"],
    "train_dense.py": ["--places", 16, "--amp", "off"],
}
READOUT = ["--layer", 4, "--use_hypercol", "--random_network"]
FITS = {
    "published": ["--epochs", 1],
    "ridge": [],
    "finetune": ["--finetune_steps", 3, "--finetune_batch", 4],
}


@pytest.fixture(autouse=True)
def full_precision(monkeypatch):
    """Compute in float32: TF32, PyTorch's choice for convolutions, has 10 bits."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def on(device):
    """Return the flags of one GPU, or of the CPU."""
    return ["--device", device, *(["--gpu", 0] if device == "cuda" else [])]


def pretrain(script, faces, cwd, name, device, *more):
    """Pre-train for an epoch or more; return the log's epochs."""
    flags = [*RUN, *PRETRAIN[script], "--data_folder", faces, "--model_name", name, *on(device)]
    succeed(script, *flags, *([] if "--epochs" in more else ["--epochs", 1]), *more, cwd=cwd)
    return logged(cwd / "runs" / name)


def loss_of(epoch):
    """Return the loss in an epoch's line of the log."""
    return epoch["ins_loss"] if "ins_loss" in epoch else epoch["dense_loss"]


def test_batches_are_pinned_and_arrive_whole():
    images = arr(0, 8, 3, 16, 16)
    loader = build_loader(
        torch.utils.data.TensorDataset(images),
        **{"batch_size": 4, "num_workers": 1, "seed": 0, "shuffle": False},
        device=torch.device(GPU),
    )
    set_epoch(loader, 1)
    batches = [batch for (batch,) in loader]
    assert all(batch.is_pinned() for batch in batches)
    copies = [batch.to(GPU, non_blocking=True) for batch in batches]
    assert torch.equal(torch.cat(copies).cpu(), images)


def test_indices_are_copied_behind_work_on_any_stream():
    stream, big = torch.cuda.Stream(), torch.randn(2000, 2000, device=GPU)
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        for _ in range(20):
            big = (big @ big).sigmoid()
        orders = [torch.randperm(1000) for _ in range(20)]
        found = [copy_indices(order, big.device) for order in orders]
    stream.synchronize()
    for order, copy in zip(orders, found, strict=True):
        assert torch.equal(copy.cpu(), order)


def test_shuffled_keys_come_back_in_their_order():
    images, keys = arr(1, 6, 3, 32, 32), []
    for device in (torch.device("cpu"), torch.device(GPU)):
        _, key = build_encoders("resnet18", 32, 0, device)
        torch.manual_seed(3)  # of the permutation, on the CPU
        keys.append(shuffled_keys(key, images.to(device), split_over_ranks(6)).cpu())
    torch.testing.assert_close(keys[1], keys[0], atol=1e-3, rtol=0)


@pytest.mark.parametrize("amp", ["bf16", "fp16"])
def test_autocast_embeds_as_float32_does(amp):
    device, images = torch.device(GPU), arr(2, 4, 3, 32, 32)
    query, _ = build_encoders("resnet18", 32, 0, device)
    query.eval()
    with torch.no_grad():
        exact = query(images.to(device))
        with autocast(device, amp):
            found = query(images.to(device))
    assert (found.float() * exact).sum(dim=1).min() > 0.99  # unit vectors


def test_the_scaler_skips_steps_with_infinite_gradients():
    weight = torch.nn.Parameter(torch.ones(2, device=GPU))
    optimizer = torch.optim.SGD([weight], lr=0.5)
    descent = Descent(optimizer, torch.device(GPU), "fp16")
    before = descent.scaler.get_scale()
    assert not descent.step((weight * float("inf")).sum(), split_over_ranks(2))
    assert torch.equal(weight.detach().cpu(), torch.ones(2))
    assert descent.scaler.get_scale() == before / 2
    assert descent.step(weight.sum(), split_over_ranks(2))
    assert torch.equal(weight.detach().cpu(), torch.full((2,), 0.5))


@pytest.mark.parametrize(
    ("script", "more", "tolerance"),
    [
        ("train_moco.py", [], 0.01),
        ("train_moco.py", ["--num_workers", 2, "--image_cache"], 0.01),
        ("train_moco.py", ["--virtual_gpus", 2], 0.01),
        ("train_moco.py", ["--recompute"], 0.01),
        ("train_moco.py", ["--augment", "device"], 0.03),  # pixels differ by a level
        ("train_moco.py", ["--amp", "bf16"], 0.05),
        # The scaler skips the first steps, which the float32 run takes.
        ("train_moco.py", ["--amp", "fp16"], 0.5),
        ("train_dense.py", [], 0.01),
        ("train_dense.py", ["--amp", "bf16"], 0.05),
        ("train_dense.py", ["--amp", "fp16"], 0.5),
    ],
)
def test_pretraining_has_the_losses_of_the_cpu(faces, tmp_path, script, more, tolerance):
    plain = [flag for flag in more if flag not in ("--amp", "bf16", "fp16")]
    (expected,) = pretrain(script, faces, tmp_path, "cpu", "cpu", *plain)
    (found,) = pretrain(script, faces, tmp_path, "gpu", GPU, *more)
    assert loss_of(found) == pytest.approx(loss_of(expected), rel=tolerance)


@pytest.mark.parametrize("script", PRETRAIN)
def test_a_resumed_run_goes_on_alike(faces, tmp_path, script):
    more = ["--epochs", 2, "--save_freq", 1, "--amp", "fp16"]
    whole = pretrain(script, faces, tmp_path, "whole", GPU, *more)
    resume = ["--resume", "runs/whole/ckpt_epoch_1.pth"]
    resumed = pretrain(script, faces, tmp_path, "resumed", GPU, *more, *resume)
    assert loss_of(resumed[-1]) == pytest.approx(loss_of(whole[-1]), rel=1e-3)
    weights = [
        load_checkpoint(tmp_path / f"runs/{n}/current.pth", ()) for n in ("whole", "resumed")
    ]
    assert weights[0].get("scaler") == weights[1].get("scaler")
    for name, value in weights[0]["model"].items():
        torch.testing.assert_close(weights[1]["model"][name], value, atol=1e-3, rtol=1e-2)


@pytest.mark.parametrize("regressor", FITS)
def test_readouts_err_as_on_the_cpu(faces, tmp_path, regressor):
    errors = []
    for name, device in (("cpu", "cpu"), ("gpu", GPU)):
        fit = [*READOUT, "--regressor", regressor, *FITS[regressor], *on(device)]
        succeed(
            *("eval_face.py", *RUN, "--data_folder", faces, *fit, "--model_name", name),
            cwd=tmp_path,
        )
        errors.append(last_error(tmp_path / "runs" / name))
    assert errors[1] == pytest.approx(errors[0], rel=0.03)


def test_predictions_are_those_of_the_cpu(tmp_path):
    root = tmp_path / "images"
    root.mkdir()
    write_long_csv(root / "points.csv", write_dots(root, 6))
    own = ["--dataset", "Keypoints", "--data_folder", root, "--annotations", root / "points.csv"]
    fit = [*own, "--model", "resnet18", "--image_size", 32, "--image_crop", 0, "--num_workers", 0]
    fit += [*READOUT, "--regressor", "finetune", *FITS["finetune"], "--model_path", "runs"]
    succeed("eval_animal.py", *fit, "--model_name", "own", *on(GPU), cwd=tmp_path)
    tables = []
    for name, device in (("cpu", "cpu"), ("gpu", GPU)):
        found = ["--ckpt_path", "runs/own/resnet18.pth", "--images", root, "--num_workers", 0]
        found += ["--out", f"from_{name}.csv", *on(device)]
        succeed("predict.py", *found, cwd=tmp_path)
        with (tmp_path / f"from_{name}.csv").open(newline="") as file:
            tables.append(list(csv.reader(file)))
    assert tables[0][0] == tables[1][0] and len(tables[0]) == len(tables[1]) > 6
    for row, other in zip(tables[0][1:], tables[1][1:], strict=True):
        for a, b in zip(row, other, strict=True):
            try:
                assert np.isclose(float(a), float(b), atol=0.5, rtol=0)
            except ValueError:  # a name
                assert a == b
