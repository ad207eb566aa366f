"""Comparisons with other people's tools run for a moment, or say why they can't."""

import csv
import importlib.util
import sys

import numpy as np
import pytest
from PIL import Image

from benchmarks import peer_points, peers
from datasets.synthetic import generate

SMALL = ["--images", "2", "--batch_size", "2", "--rounds", "1", "--num_workers", "0"]
SMALL += ["--view_batches", "2"]
QUICK_FIT = ["--image_size", "32", "--finetune_steps", "1"]
FIGURES = {
    "lightly": ["the step alone", "end to end", "ours, --amp bf16", "images/s, ratio"],
    "kornia": ["dense views, batch 2", "views of momentum contrast", "views/s, ratio"],
    "torchvision": ["torchvision v2, tensors", "views/s, ratio"],
}


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    """Draw the root of a CelebA layout."""
    out = tmp_path_factory.mktemp("faces")
    generate(out, images=2, mafl_train=2, mafl_test=2, workers=1)
    return out / "celeba"


@pytest.fixture
def wings(tmp_path):
    """Six images with two points each, y upwards."""
    (tmp_path / "images").mkdir()
    rows = [["id", "X1", "Y1", "X2", "Y2"]]
    for number in range(6):
        pixels = np.random.RandomState(number).randint(0, 255, (30, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{number}.png")
        rows.append([f"{number}.png", 10 + number, 25, 20, 5 + number])
    with (tmp_path / "landmarks.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return tmp_path


def run(monkeypatch, capsys, *options):
    """Return what the benchmark prints."""
    monkeypatch.setattr(sys, "argv", ["peers", *map(str, options)])
    peers.main()
    return capsys.readouterr().out


@pytest.mark.parametrize("name", FIGURES)
def test_a_peer_is_timed_or_skipped_with_a_reason(name, faces, monkeypatch, capsys):
    printed = run(monkeypatch, capsys, "--what", name, "--data_folder", faces, *SMALL)
    if importlib.util.find_spec(name) is None:
        assert printed == f"{name}: skipped, {name} isn't installed\n"
        return
    for figure in FIGURES[name]:
        assert figure in printed


def test_points_are_compared_or_skipped_with_a_reason(wings, monkeypatch, capsys):
    monkeypatch.setattr(peer_points, "HELD_BACK", 4)
    fit = ["--annotated", 3, 9, "--seeds", 0, "--trees", 1, *QUICK_FIT]
    printed = run(monkeypatch, capsys, "--what", "dlib", "--wings", wings, *fit)
    if importlib.util.find_spec("dlib") is None:
        assert printed == "dlib: skipped, dlib-bin isn't installed\n"
        return
    assert "3 annotated, dlib  mean" in printed and "3 annotated, ours  mean" in printed
    assert "9: skipped" in printed


def test_a_part_without_its_images_is_skipped(monkeypatch, capsys):
    printed = run(monkeypatch, capsys, "--what", "torchvision")
    assert printed == "torchvision: skipped, it needs --data_folder\n"


def test_wings_are_read_with_y_downwards_and_fitted_by_the_script(wings):
    read = peer_points.read_wings(wings)
    np.testing.assert_array_equal(read.points[2], [[12, 5], [20, 23]])
    result = peer_points.run_ours(read, np.array([0, 1, 2]), np.array([4, 5]), QUICK_FIT)
    assert 0 < result.mean_px < 200 and 0 < result.median_px < 200 and result.seconds > 0


def test_a_flag_that_nothing_takes_is_an_error(monkeypatch, capsys):
    with pytest.raises(SystemExit):
        run(monkeypatch, capsys, "--what", "torchvision", "--round", 1)
    assert "unrecognized arguments: --round" in capsys.readouterr().err
