import math

import pytest
import torch

from models.metric import calc_pck, inter_ocular_error, side_error


def in_box(points):
    """Pixels of a box of 48 to normalised coordinates."""
    return torch.tensor(points, dtype=torch.float64) / 47 * 2 - 1


def test_pck_truncates_and_skips_points_at_the_edge():
    gt = in_box([[[10, 10], [20, 20], [0, 30], [30, 30]]])
    # 2.9 px counts as 2 < 2.4; 3.1 px as 3; the third point lies on the edge; the fourth is
    # invisible. Two parts are judged, one is right.
    pred = in_box([[[12.9, 10], [23.1, 20], [0, 30], [30, 30]]])
    visible = torch.tensor([[True, True, True, False]])
    assert float(calc_pck(pred, gt, visible, 48)) == 50
    assert float(calc_pck(pred, gt, visible, 48, truncate=False)) == 0


def test_pck_without_a_point_to_judge_is_nan():
    gt = in_box([[[10, 10]]])
    assert math.isnan(calc_pck(gt, gt, torch.tensor([[False]]), 48))


def test_faces_without_an_eye_distance_are_left_out():
    gt = torch.tensor([[[0.0, 0.0], [0.0, 0.5], [0.3, 0.3]]]).repeat(3, 1, 1)
    pred = gt + torch.tensor([0.1, 0.0])
    gt[1] = pred[1] = 0  # unannotated: both eyes at one place
    visible = torch.ones(3, 3).bool()
    visible[2, 1] = False
    assert inter_ocular_error(pred, gt, (0, 1), visible=visible) == pytest.approx(20)
    assert inter_ocular_error(pred, gt, (0, 1)) == pytest.approx(20)
    assert inter_ocular_error(pred[1:], gt[1:], (0, 1), visible[1:]).isnan()


def test_the_side_of_the_input_is_two():
    gt = torch.zeros(1, 3, 2)
    pred = torch.tensor([[[0.3, 0.4], [0.0, 0.1], [9.0, 9.0]]])
    assert side_error(pred, gt, torch.tensor([[True, True, False]])) == pytest.approx(15)
    assert side_error(pred, gt, torch.zeros(1, 3).bool()).isnan()


def test_only_visible_points_count():
    gt = torch.tensor([[[0.0, 0.0], [0.0, 0.5], [0.3, 0.3], [-1.0, -1.0]]])
    visible = torch.tensor([[True, True, True, False]])
    pred = gt + torch.tensor([[[0.1, 0.0], [0.0, 0.0], [0.0, 0.05], [9.0, 9.0]]])
    assert inter_ocular_error(pred, gt, (0, 1), visible) == pytest.approx(100 * 0.15 / 3 / 0.5)


def test_a_point_at_the_threshold_is_wrong():
    """As published: of a box of 60 pixels, 3 are a twentieth; its distance has to be below."""
    gt, visible = torch.tensor([[[0.5, 0.5]]]).double(), torch.ones(1, 1).bool()
    for pixels, right in ((2.9, 100), (3.5, 0)):
        moved = gt + torch.tensor([pixels * 2 / 59, 0]).double()
        assert float(calc_pck(moved, gt, visible, 60)) == right
