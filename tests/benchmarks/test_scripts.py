"""Every benchmark script runs, for a moment, on a few drawn faces."""

import importlib
import re
import sys

import pytest
import torch

from benchmarks import limits
from benchmarks.measure import marks_of
from datasets.synthetic import generate

SMALL = ["--images", "4", "--batch_size", "2", "--rounds", "1"]
GROWTH = ["--rounds", "1"]
COMMANDS = {
    "augmentation": (
        ["--batch_size", "2", "--rounds", "1"],
        ["published", "one by one", "whole batch, cpu", "views/s", "ratio"],
    ),
    "dense": (SMALL, ["the trial, float32", "ours, bf16", "pairs/s", "ratio"]),
    "growth": (
        [*GROWTH, "--steps", "2", "--batch_size", "2", "--sizes", "3"],
        ["| folder | 3 |", "| list | 3 |", "| shards | 3 |", "ms a step"],
    ),
    "growth, readouts": (
        [*GROWTH, "--what", "readouts", "--sizes", "3"],
        ["| ridge | 3 |", "| published | 3 |"],
    ),
    "growth, predict": ([*GROWTH, "--what", "predict", "--sizes", "3"], ["| predict.py | 3 |"]),
    "loader": (
        ["--images", "2", "--rounds", "1"],
        [
            "pairs/s",
            "ours, no cache: largest difference 0.00e+00",
            "ours, image cache: largest difference 0.00e+00",
        ],
    ),
    "pretrain": (
        [*SMALL, "--num_workers", "0", "--ways", "+ cache, device views"],
        ["images/s", "ratio"],
    ),
    "pretrain, workers": (
        [*SMALL, "--num_workers", "0", "1", "--threads", "1", "--ways", "channels last"],
        ["literal, 0 w, 1 t", "channels last, 1 w, 1 t"],
    ),
    "pretrain, memory": (["--what", "memory", "--batch_size", "2"], ["with --recompute: peak"]),
    "regressor": ([*SMALL, "--what", "cached"], ["reg_conv's gradient", "ratio"]),
    "regressor, ten": ([*SMALL, "--what", "ten"], ["ratio"]),
    "regressor, tps": ([*SMALL, "--what", "tps"], ["ratio"]),
}


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    """Draw the root of a CelebA layout with 4 images of each kind."""
    out = tmp_path_factory.mktemp("faces")
    generate(out, images=4, mafl_train=4, mafl_test=4, workers=1)
    return out / "celeba"


SLOW = {"growth, predict"}  # fits a readout first


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow if n in SLOW else ()) for n in COMMANDS]
)
def test_benchmark_prints_its_figures(name, faces, monkeypatch, capsys):
    options, figures = COMMANDS[name]
    script = name.split(",")[0]
    module = importlib.import_module(f"benchmarks.{script}")
    monkeypatch.setattr(sys, "argv", [script, "--data_folder", str(faces), *options])
    module.main()
    printed = capsys.readouterr().out
    for figure in figures:
        assert figure in printed


SCRIPTS = {name.split(",")[0] for name in COMMANDS} | {"gpu", "limits", "peers"}


@pytest.mark.parametrize("script", sorted(SCRIPTS))
def test_help_says_the_defaults(script, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [script, "--help"])
    with pytest.raises(SystemExit, match="0"):
        importlib.import_module(f"benchmarks.{script}").main()
    printed = capsys.readouterr().out
    assert "--num_workers" not in printed or "[2]" in printed
    assert "--sizes" not in printed or re.search(r"\[\d+, \d+", printed)


def allocate(megabytes):
    """Hold memory between two marks."""
    yield
    held = b"1" * (megabytes * 10**6)
    yield
    assert held


def test_marks_tell_what_memory_grows_between_them():
    before, after = marks_of("tests.benchmarks.test_scripts:allocate", 200)
    # A fifth to either side: a process may reuse pages, and imports touch some of their own.
    assert 160 < after.memory - before.memory < 240
    assert 0 < after.seconds - before.seconds < 10


def test_the_limit_of_a_step_is_printed(monkeypatch, capsys):
    options = ["--batch_size", "2", "--rounds", "1", "--sizes", "64", "--device", "cpu"]
    monkeypatch.setattr(sys, "argv", ["limits", *options])
    limits.main()
    printed = capsys.readouterr().out
    for script in ("train_moco.py", "train_dense.py"):
        for amp in ("off", "bf16"):
            assert re.search(rf"{script}, --amp {amp}: [\d.]+ GFLOP and \d+ ", printed), printed


def test_operations_are_two_a_product_forward_and_twice_backward():
    layer = torch.nn.Linear(7, 5)
    rows = torch.randn(3, 7, requires_grad=True)
    assert limits.count_operations(lambda: layer(rows).sum().backward()) == 3 * 2 * 3 * 7 * 5
