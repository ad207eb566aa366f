"""How far views go, by poses that are known."""

import numpy as np
import pytest
import torch

from models.poses import pose_factor

ROTATION, SCALE = 30.0, 0.25  # of views


def shapes(angles, scales, seed=0):
    """Return a shape of five points under similarities, at random places, all visible."""
    rng = np.random.RandomState(seed)
    shape = rng.randn(5) + 1j * rng.randn(5)
    turned = [
        scale * np.exp(1j * np.radians(angle)) * shape + complex(*rng.randn(2))
        for angle, scale in zip(angles, scales, strict=True)
    ]
    points = torch.tensor(np.stack([np.real(turned), np.imag(turned)], axis=-1))
    return points, torch.ones(points.shape[:2], dtype=torch.bool)


@pytest.mark.parametrize(
    ("degrees", "log_scale", "factor"),
    [
        (0.0, 0.0, 0.3),  # posed alike
        (10.0, 0.0, 0.5),  # 1.5 deviations of 30 degrees
        (0.0, 0.1, 0.6),  # or of 0.25
        (10.0, 0.1, 0.6),  # the more of both
        (40.0, 0.0, 1.0),
    ],
)
def test_views_reach_one_and_a_half_deviations_of_the_poses(degrees, log_scale, factor):
    signs = np.tile([1.0, -1.0], 200)  # deviations are the numbers themselves
    points, visible = shapes(100 + degrees * signs, np.exp(log_scale * np.repeat(signs[:2], 200)))
    assert pose_factor(points, visible, ROTATION, SCALE) == pytest.approx(factor, abs=0.01)


def test_shapes_that_are_seen_in_part_do_not_count():
    points, visible = shapes([0, 0, 0, 90, -90], [1, 1, 1, 3, 1 / 3])
    visible[3:, 2] = False
    assert pose_factor(points, visible, ROTATION, SCALE) == 0.3
    visible[2, 0] = False
    assert pose_factor(points, visible, ROTATION, SCALE) is None  # two are too few


def test_a_single_point_has_no_pose():
    points, visible = shapes([0, 10, 20], [1, 1, 1])
    assert pose_factor(points[:, :1], visible[:, :1], ROTATION, SCALE) is None
