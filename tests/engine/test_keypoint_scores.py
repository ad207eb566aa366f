"""Scores in the pixels of the original images, against numbers worked out by hand."""

import numpy as np
import pytest
import torch

from data_loader.keypoints import Cutting, Keypoints
from engine.keypoint_scores import diagonals, score_split, to_original
from tests.data_loader.own_tables import write_dots

FRAME = {"imwidth": 64, "crop": 4}


def test_predictions_come_back_in_original_pixels(tmp_path):
    table = write_dots(tmp_path, 3)
    dataset = Keypoints(table, tmp_path, "test", Cutting("pad"), **FRAME)
    truth, _ = dataset.annotation_tensors()
    np.testing.assert_allclose(to_original(dataset, truth), table.points, atol=1e-3)
    moved = truth + torch.tensor([2 / 55, 0.0])  # a pixel of the input, 56 across
    off = to_original(dataset, moved) - table.points
    np.testing.assert_allclose(off, np.broadcast_to([120 / 64, 0], off.shape), atol=1e-3)


def test_scores_by_hand(tmp_path):
    table = write_dots(tmp_path, 2)
    table.points[1, 2] = np.nan
    boxes = np.array([(np.nan,) * 4, (10.0, 10.0, 40.0, 50.0)])  # a diagonal of 50
    dataset = Keypoints(table._replace(boxes=boxes), tmp_path, "test", **FRAME)
    np.testing.assert_allclose(diagonals(dataset), [np.hypot(120, 80), 50])
    off = np.array([[3.0, 0.0, 20.0], [4.9, 5.1, 1000.0]])
    predicted = dataset.annotations["keypoints"] + off[..., None] * (0.6, 0.8)
    scores = score_split(dataset, predicted)
    assert scores["error_px"] == pytest.approx((3 + 0 + 20 + 4.9 + 5.1) / 5)
    assert scores["median_px"] == pytest.approx(4.9)
    assert scores["PCK_0.1"] == pytest.approx(100 * 3 / 5)  # 14.4 and 5 pixels are allowed
