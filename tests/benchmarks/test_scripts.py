"""Every benchmark script runs, for a moment, on a few drawn faces."""

import importlib.util
import re
import shlex

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks import limits, peer_points, peers
from benchmarks.measure import marks_of

SMALL = "--images 4 --batch_size 2 --rounds 1"
LEAST = "--images 2 --batch_size 2 --rounds 1"
PEERS = f"{SMALL} --num_workers 0 --what"
QUICK_FIT = ["--image_size", "32", "--finetune_steps", "1"]
STEP = r"--amp off: [\d.]+ GFLOP and \d+ "
# Options, and what is printed then.
COMMANDS = {
    "augmentation": (
        "--batch_size 2 --rounds 1",
        ["published", "one by one", "whole batch, cpu", "views/s, ratio"],
    ),
    "dense": (
        "--images 2 --batch_size 2 --rounds 1",
        ["the trial, float32", "ours, --amp off", "ours, --amp bf16", "pairs/s, ratio"],
    ),
    "growth": (
        "--rounds 1 --steps 2 --batch_size 2 --sizes 3 --figure {out}/figure.png",
        [r"\| folder \| 3 \|", r"\| list \| 3 \|", r"\| shards \| 3 \|", "ms a step"],
    ),
    "growth, readouts": (
        "--rounds 1 --what readouts --sizes 3",
        [r"\| ridge \| 3 \|", r"\| published \| 3 \|"],
    ),
    "growth, predict": ("--rounds 1 --what predict --sizes 3", [r"\| predict.py \| 3 \|"]),
    "limits": (  # bf16 takes many times as long where a processor has no instructions for it
        "--batch_size 2 --rounds 1 --sizes 64 --precisions off --recompute --any_kernels",
        [f"train_moco.py, {STEP}", f"train_dense.py, {STEP}"],
    ),
    "loader": (
        "--images 2 --rounds 1",
        ["ours, no cache", "ours, image cache", "pairs/s, ratio"],
    ),
    "peers, lightly": (
        f"{PEERS} lightly",
        ["the step alone", "end to end", "ours, --amp bf16", "images/s, ratio"],
    ),
    "peers, kornia": (
        f"{PEERS} kornia",
        ["dense views, batch 2", "views of momentum contrast", "views/s, ratio"],
    ),
    "peers, torchvision": (f"{PEERS} torchvision", ["torchvision v2, tensors", "views/s, ratio"]),
    "pretrain": (
        f"{SMALL} --num_workers 0 --ways '+ cache, device views'",
        ["literal", r"\+ cache, device views", "images/s, ratio"],
    ),
    "pretrain, workers": (
        f"{LEAST} --num_workers 0 1 --threads 1 --ways 'channels last'",
        ["literal, 0 w, 1 t", "channels last, 1 w, 1 t"],
    ),
    "pretrain, memory": ("--what memory --batch_size 2", ["with --recompute: peak"]),
    "regressor": (SMALL, ["s, ratio"]),
    "regressor, ten": (f"{LEAST} --what ten", ["s, ratio"]),
    "regressor, tps": (f"{SMALL} --what tps", ["s, ratio"]),
    "regressor, memory": ("--what memory --batch_size 2", [r"growth   literal \d+ MB, ours"]),
}
SCRIPTS = sorted({name.split(",")[0] for name in COMMANDS} | {"gpu"})


@pytest.mark.parametrize("name", COMMANDS)
def test_benchmark_prints_its_figures(name, faces, tmp_path, print_of, monkeypatch):
    (options, figures), (script, *part) = COMMANDS[name], name.split(", ")
    monkeypatch.setattr(peers, "VIEW_BATCHES", [2])
    data = [] if script == "limits" else ["--data_folder", faces]
    printed = print_of(script, *data, *shlex.split(options.format(out=tmp_path)))
    if script == "peers" and importlib.util.find_spec(part[0]) is None:
        assert printed == f"{part[0]}: skipped, {part[0]} isn't installed\n"
        return
    for figure in figures:
        assert re.search(figure, printed), printed
    assert (tmp_path / "figure.png").is_file() or "--figure" not in options


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_says_the_defaults(script, print_of, capsys):
    with pytest.raises(SystemExit, match="0"):
        print_of(script, "--help")
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
    (begun, before), (done, after) = marks_of(allocate, 200)
    # A fifth to either side: a process may reuse pages, and imports touch some of their own.
    assert 160 < after - before < 240
    assert 0 < done - begun < 10


def test_operations_are_two_a_product_forward_and_twice_backward():
    layer = torch.nn.Linear(7, 5)
    rows = torch.randn(3, 7, requires_grad=True)
    assert limits.count_operations(lambda: layer(rows).sum().backward()) == 3 * 2 * 3 * 7 * 5


# ---- other people's tools ----


@pytest.fixture
def wings(tmp_path):
    """Six images with two points each, y upwards."""
    (tmp_path / "images").mkdir()
    for number in range(6):
        Image.effect_noise((40, 30), 60).save(tmp_path / "images" / f"{number}.png")
    lines = [f"{number}.png,{10 + number},25,20,{5 + number}" for number in range(6)]
    (tmp_path / "landmarks.csv").write_text("\n".join(["id,X1,Y1,X2,Y2", *lines]))
    return tmp_path


def test_points_are_compared_or_skipped_with_a_reason(wings, monkeypatch, print_of):
    for name, value in {"HELD_BACK": 4, "ANNOTATED": (3, 9), "SEEDS": (0,)}.items():
        monkeypatch.setattr(peer_points, name, value)
    monkeypatch.setitem(peer_points.DLIB, "num_trees_per_cascade_level", 1)
    printed = print_of("peers", "--what", "dlib", "--wings", wings, *QUICK_FIT)
    if importlib.util.find_spec("dlib") is None:
        assert printed == "dlib: skipped, dlib-bin isn't installed\n"
        return
    assert "3 annotated, dlib  mean" in printed and "3 annotated, ours  mean" in printed
    assert "9: skipped" in printed


def test_starts_are_compared_as_a_user_would(wings, print_of):
    images = ["--annotations", wings / "landmarks.csv", "--data_folder", wings / "images"]
    small = "--image_size 32 --regressor finetune --finetune_steps 1 --finetune_batch 2"
    few = ["--annotated", 4, "--held_back", 4, "--seeds", 0, "--starts", "random", "--pseudo", 1]
    how = ["--networks", "resnet18", "--flags", small, "--out", wings / "out"]
    printed = print_of("starts", "--y_up", *images, *few, *how)
    assert re.search(r"resnet18 random 4: \d+\.\d\d \(.*or below \d of 1; .*Spearman", printed)
    assert printed == print_of("starts", "--y_up", *images, *few, *how)  # nothing is made again


@pytest.mark.usefixtures("print_of")
def test_some_wings_are_fitted_and_others_scored_by_the_script(wings):
    split = np.array([0, 1, 2]), np.array([4, 5])
    error, median, seconds = peer_points.run_ours(wings, *split, QUICK_FIT)
    assert 0 < error < 200 and 0 < median < 200 and seconds > 0


def test_a_part_without_its_images_is_skipped(print_of):
    printed = print_of("peers", "--what", "torchvision")
    assert printed == "torchvision: skipped, it needs --data_folder\n"


def test_a_flag_that_nothing_takes_is_an_error(print_of, capsys):
    with pytest.raises(SystemExit):
        print_of("peers", "--what", "torchvision", "--round", 1)
    assert "unrecognized arguments: --round" in capsys.readouterr().err
