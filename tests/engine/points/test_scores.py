"""Scores in the pixels of the original images, against numbers worked out by hand."""

import csv
import re
from argparse import Namespace

import numpy as np
import pytest
import torch

from data_loader.keypoints import Keypoints
from engine.points.scores import (
    Judged,
    ScoreSettings,
    diagonals,
    distance_between,
    in_words,
    point_distances,
    pool,
    score_split,
    score_splits,
)
from models.landmarks import Landmarks
from tests.data_loader.own_tables import NAMES, write_dots
from utils.errors import InputError
from utils.log import RunLog

FRAME = {"imwidth": 64, "crop": 4}


def test_distances_are_in_original_pixels(tmp_path):
    dataset = Keypoints(write_dots(tmp_path, 3), tmp_path, "test", fit="pad", **FRAME)
    dataset.annotations["visible"][1, 2] = False
    truth, _ = dataset.annotation_tensors()
    moved = truth + torch.tensor([3.0, 4.0]) * (2 / 55)  # pixels of the input, 56 across
    expected = np.full((3, 3), 5 * 120 / 64)
    expected[1, 2] = np.nan
    np.testing.assert_allclose(point_distances(dataset, moved), expected, atol=1e-3)


@pytest.fixture
def judged(tmp_path):
    """Two images of 120 x 80, the other one with a box and without a point; and distances."""
    table = write_dots(tmp_path, 2)
    table.points[:, 1], table.points[:, 2] = [[30, 40], [30, 40]], [[30, 60], [np.nan] * 2]
    boxes = np.array([(np.nan,) * 4, (10.0, 10.0, 40.0, 50.0)])  # a diagonal of 50
    dataset = Keypoints(table._replace(boxes=boxes), tmp_path, "test", **FRAME)
    return dataset, np.array([[3.0, 0.0, 20.0], [4.9, 5.1, np.nan]])


def test_folds_are_pooled_by_image_and_by_name(tmp_path):
    table = write_dots(tmp_path, 4)

    def part(rows, points):
        own = table.points[np.ix_(rows, points)]
        images, ids = ([values[row] for row in rows] for values in (table.images, table.ids))
        names = [NAMES[point] for point in points]
        one = table._replace(images=images, ids=ids, points=own, names=names)
        return Keypoints(one, tmp_path, "test", **FRAME)

    first = np.arange(6.0).reshape(2, 3)
    second = np.array([[10.0, 11.0], [12.0, 13.0]])
    folds = [
        Judged(part([3, 0], [0, 1, 2]), first, first / 100),
        Judged(part([1, 2], [2, 1]), second, second / 100),
    ]
    whole = part(range(4), [0, 1, 2])
    found, nan = pool(whole, folds), np.nan
    expected = np.array([[3, 4, 5], [nan, 11, 10], [nan, 13, 12], [0, 1, 2]])
    np.testing.assert_array_equal(found.distances, expected)
    np.testing.assert_array_equal(found.confidence, expected / 100)
    np.testing.assert_allclose(found.relative, expected / np.hypot(120, 80))
    names = list(found.dataset.filenames)
    whole.select([2])  # as when an image can't be read
    assert len(found.dataset) == 4 and list(found.dataset.filenames) == names


def test_scores_by_hand(judged):
    dataset, distances = judged
    image = np.hypot(120, 80)  # 144.2
    np.testing.assert_allclose(diagonals(dataset), [image, 50])
    np.testing.assert_allclose(distance_between(dataset, NAMES[1:]), [20, np.nan])
    scores = score_split(dataset, distances, dataset.filenames, normalise_by=NAMES[1:])
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


def test_scores_in_the_unit_of_a_scale(judged):
    dataset, distances = judged
    first, second = dataset.filenames
    dataset.table = dataset.table._replace(scales={first: 0.5})
    assert "error_scale_units" not in score_split(*judged, dataset.filenames)
    dataset.table = dataset.table._replace(scales={second: 2, first: 0.5})
    scores = score_split(*judged, dataset.filenames)
    assert scores["error_scale_units"] == pytest.approx((1.5 + 0 + 10 + 9.8 + 10.2) / 5)
    assert scores["median_scale_units"] == pytest.approx(9.8)
    assert scores["error_scale_units_low"] == pytest.approx(11.5 / 3)  # the first one alone
    assert scores["error_px"] == pytest.approx(6.6)
    assert ", error 6.3 in the unit of SCALE= (median 9.8)" in in_words({"Test": scores})


def test_what_belongs_together_is_drawn_together(judged):
    scores = score_split(*judged, ["day", "day"])
    # Of one group, every resample is the same: that is no interval.
    assert "error_px_low" not in scores and "median_px_high" not in scores
    (line,) = in_words({"Test": scores}).splitlines()
    assert line.startswith("Test error 6.60 px (median 4.90), PCK 60.0")


def test_oks_counts_where_cocos_sigmas_and_areas_are(judged):
    dataset, _ = judged
    dataset.sigmas, names = np.array([0.05, 0.1, 0.1]), dataset.filenames
    assert "OKS_AP" not in score_split(*judged, names)
    dataset.annotations["areas"] = np.array([1e9, 1.0])
    scores = score_split(*judged, names, np.array([[0.1] * 3, [0.9] * 3]))
    # The surer one is wrong: precision is 1/2 at all recalls up to 1/2.
    assert scores["OKS_AP"] == scores["OKS_AP_75"] == pytest.approx(100 * 51 / 101 / 2)
    assert score_split(*judged, names)["OKS_AP_50"] == pytest.approx(100 * 51 / 101)


def test_tables_say_which_points_and_images_are_worst(judged, tmp_path, monkeypatch):
    dataset, distances = judged
    monkeypatch.setattr("engine.points.scores.point_distances", lambda *_: distances)
    dataset.filenames[0] = 'day0/a"b,\nc.png'
    found = {"Test": Landmarks(torch.empty(2, 3, 2), torch.full((2, 3), torch.nan))}

    def rows(name, group_by=None):
        settings = ScoreSettings(Namespace(), None, group_by)
        result = score_splits({"Test": dataset}, None, settings, found, tmp_path, RunLog())
        assert result["scores"]["Test"]["error_px"] == pytest.approx(6.6)
        with (tmp_path / name).open(newline="") as file:
            return [list(row.values()) for row in csv.DictReader(file)]

    points = rows("per_point.csv")
    assert [row[:4] for row in points] == [
        ["Test", "nose", "2", "3.950"],
        ["Test", "left_eye", "2", "2.550"],
        ["Test", "right_eye", "1", "20.000"],
    ]
    assert points[0][4:6] == ["3.000", "4.900"]
    assert rows("per_point.csv", "day")[0][4:6] == ["3.950", "3.950"]  # drawn together
    first, second = rows("per_image.csv")
    assert first == [
        *("Test", 'day0/a"b,\\nc.png', "instance 0", "3", "7.667"),
        *(f"{100 * 23 / 3 / np.hypot(120, 80):.3f}", "right_eye", "20.000"),
    ]
    assert second[2:] == ["instance 1", "2", "5.000", "10.000", "left_eye", "5.100"]


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
