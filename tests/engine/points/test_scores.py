"""Scores in the pixels of the original images, against numbers worked out by hand."""

import csv
import re
from argparse import Namespace

import numpy as np
import pytest
import torch

from data_loader.keypoints import Keypoints
from engine.points.scores import (
    ScoreSettings,
    diagonals,
    distance_between,
    image_rows,
    in_words,
    point_rows,
    score_split,
    score_splits,
    to_original,
)
from models.landmarks import Landmarks
from tests.data_loader.own_tables import NAMES, write_dots
from utils.errors import InputError
from utils.log import RunLog

FRAME = {"imwidth": 64, "crop": 4}


def test_predictions_come_back_in_original_pixels(tmp_path):
    table = write_dots(tmp_path, 3)
    dataset = Keypoints(table, tmp_path, "test", fit="pad", **FRAME)
    truth, _ = dataset.annotation_tensors()
    np.testing.assert_allclose(to_original(dataset, truth), table.points, atol=1e-3)
    moved = truth + torch.tensor([2 / 55, 0.0])  # a pixel of the input, 56 across
    off = to_original(dataset, moved) - table.points
    np.testing.assert_allclose(off, np.broadcast_to([120 / 64, 0], off.shape), atol=1e-3)


@pytest.fixture
def judged(tmp_path):
    """Two images of 120 x 80, the other one with a box and without a point; and predictions."""
    table = write_dots(tmp_path, 2)
    table.points[:, 1], table.points[:, 2] = [[30, 40], [30, 40]], [[30, 60], [np.nan] * 2]
    boxes = np.array([(np.nan,) * 4, (10.0, 10.0, 40.0, 50.0)])  # a diagonal of 50
    dataset = Keypoints(table._replace(boxes=boxes), tmp_path, "test", **FRAME)
    off = np.array([[3.0, 0.0, 20.0], [4.9, 5.1, 1000.0]])
    return dataset, dataset.annotations["keypoints"] + off[..., None] * (0.6, 0.8)


def test_scores_by_hand(judged):
    dataset, predicted = judged
    image = np.hypot(120, 80)  # 144.2
    np.testing.assert_allclose(diagonals(dataset), [image, 50])
    np.testing.assert_allclose(distance_between(dataset, NAMES[1:]), [20, np.nan])
    scores = score_split(dataset, predicted, normalise_by=NAMES[1:])
    assert scores["error_px"] == pytest.approx((3 + 0 + 20 + 4.9 + 5.1) / 5)
    assert scores["median_px"] == pytest.approx(4.9)
    # 7.2 and 2.5 pixels are allowed, then 14.4 and 5, then 28.8 and 10
    assert [scores[f"PCK_{f}"] for f in (0.05, 0.1, 0.2)] == pytest.approx([40, 60, 100])
    assert scores["error_of_diagonal"] == pytest.approx((100 * 23 / image + 200 * 10 / 100) / 5)
    assert scores["error_of_image"] == pytest.approx(100 * 33 / image / 5)
    assert scores["error_of_distance"] == pytest.approx((15 + 0 + 100) / 3)
    # 1, 2 and 4 pixels are allowed, in the first image alone
    for fraction, right in ((0.05, 1), (0.1, 1), (0.2, 2)):
        assert scores[f"PCK_{fraction}_of_distance"] == pytest.approx(100 * right / 3)
    # Of two images, a resample has both, or one of them twice.
    assert scores["error_px_low"] == pytest.approx(5) and not any("OKS" in n for n in scores)
    assert scores["error_px_high"] == pytest.approx(23 / 3)
    (line,) = in_words({"Test": scores}).splitlines()
    assert line.startswith("Test error 6.60 px (median 4.90, 95 % interval 5.00 to 7.67), PCK 60.0")


def test_what_belongs_together_is_drawn_together(judged):
    dataset, predicted = judged
    dataset.filenames = ["day/a.png", "day/b.png"]
    scores = score_split(dataset, predicted, group_by="folder")
    # Of one group, every resample is the same: that is no interval.
    assert "error_px_low" not in scores and "median_px_high" not in scores
    (line,) = in_words({"Test": scores}).splitlines()
    assert line.startswith("Test error 6.60 px (median 4.90), PCK 60.0")


def test_oks_counts_where_cocos_sigmas_and_areas_are(judged):
    dataset, predicted = judged
    dataset.sigmas = np.array([0.05, 0.1, 0.1])
    assert "OKS_AP" not in score_split(dataset, predicted)
    dataset.annotations["areas"] = np.array([1e9, 1.0])
    confidence = np.array([[0.1] * 3, [0.9] * 3])
    scores = score_split(dataset, predicted, confidence)
    # The surer one is wrong: precision is 1/2 at all recalls up to 1/2.
    assert scores["OKS_AP"] == scores["OKS_AP_75"] == pytest.approx(100 * 51 / 101 / 2)
    assert score_split(dataset, predicted)["OKS_AP_50"] == pytest.approx(100 * 51 / 101)


def test_tables_say_which_points_and_images_are_worst(judged, tmp_path):
    dataset, predicted = judged
    truth, _ = dataset.annotation_tensors()
    settings = ScoreSettings(Namespace(), None, None)
    points = point_rows("Test", dataset, predicted, settings)
    assert [row[:4] for row in points] == [
        ["Test", "nose", 2, "3.950"],
        ["Test", "left_eye", 2, "2.550"],
        ["Test", "right_eye", 1, "20.000"],
    ]
    assert points[0][4:6] == ["3.000", "4.900"]
    dataset.filenames[0] = 'a"b,\nc.png'
    images = image_rows("Test", dataset, predicted)
    assert images[0] == [
        *("Test", 'a"b,\\nc.png', "instance 0", 3, "7.667"),
        *(f"{100 * 23 / 3 / np.hypot(120, 80):.3f}", "right_eye", "20.000"),
    ]
    assert images[1][2:] == ["instance 1", 2, "5.000", "10.000", "left_eye", "5.100"]
    found = {"Test": Landmarks(truth, torch.full(truth.shape[:2], torch.nan))}
    log = RunLog()
    log.open(tmp_path / "log")
    result = score_splits({"Test": dataset}, settings, found, tmp_path, log)
    assert result["scores"]["Test"]["error_px"] < 1e-3
    with (tmp_path / "per_image.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["image"] for row in rows} == {'a"b,\\nc.png', "day1/1.png"}
    with (tmp_path / "per_point.csv").open(newline="") as file:
        assert [row["images"] for row in csv.DictReader(file)] == ["2", "2", "1"]


@pytest.mark.parametrize(
    ("pair", "said"),
    [
        (["nose", "tail"], "tail: no such point (nose, left_eye, right_eye)"),
        (["nose"] * 2, "twice"),
    ],
)
def test_points_to_normalise_by_are_checked(pair, said):
    with pytest.raises(InputError, match=re.escape(said)):
        ScoreSettings(Namespace(), pair, None).check(NAMES)
    ScoreSettings(Namespace(), NAMES[:2], None).check(NAMES)
