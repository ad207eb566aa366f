import math

import pytest
import torch

from models.loss import regression_loss, selected_regression_loss
from models.metric import calc_pck, inter_ocular_error, side_error


def test_inter_ocular_error_by_hand():
    # Eyes (points 0 and 2) 2 apart in the first face and 1 in the second; errors 0.5 and 0.2
    # on one of three points each: mean of .25, 0, 0, .2, 0, 0.
    gt = torch.tensor([[[-1.0, 0], [0, 0], [1, 0]], [[0, 0], [0.5, 0.5], [0, 1]]])
    pred = gt.clone()
    pred[1, 0] -= torch.tensor([0.2, 0.0])
    pred[0, 1] = gt[0, 1] + torch.tensor([0.3, 0.4])
    assert float(inter_ocular_error(pred, gt, (0, 2))) == pytest.approx(100 * 0.45 / 6)


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


def test_pck_is_the_mean_over_parts_of_their_shares():
    gt = in_box([[[10, 10], [20, 20]], [[10, 10], [20, 20]]])
    pred = in_box([[[10, 10], [20, 20]], [[40, 40], [20, 20]]])
    visible = torch.tensor([[True, True], [True, False]])
    # Part 0: 1 of 2; part 1: 1 of 1. Over points it would be 2 of 3.
    assert float(calc_pck(pred, gt, visible, 48)) == 75


def test_pck_without_a_point_to_judge_is_nan():
    gt = in_box([[[10, 10]]])
    assert math.isnan(calc_pck(gt, gt, torch.tensor([[False]]), 48))


def test_losses_by_hand():
    pred, gt = torch.tensor([[[0.05, 0.3]]]), torch.zeros(1, 1, 2)
    # 10 * 0.05 is below 1: 0.5 * 0.25; 10 * 0.3 is above: 3 - 0.5.
    assert float(regression_loss(pred, gt)) == pytest.approx((0.125 + 2.5) / 2)
    two = torch.cat([pred, pred], dim=1)
    loss = selected_regression_loss(two, torch.zeros(1, 2, 2), torch.tensor([[True, False]]))
    assert float(loss) == pytest.approx((0.125 + 2.5) / 4)


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
