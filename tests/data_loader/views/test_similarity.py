"""A point marked in an image lands where the map says, in the view that the map shows."""

import math

import numpy as np
import torch

from data_loader.views.similarity import (
    Spread,
    common_fraction,
    is_inside,
    sample_maps,
    to_image,
    to_view,
    warp,
)


def test_a_map_is_a_rotation_a_scale_a_stretch_and_a_shift():
    maps = sample_maps(400, 0.7, Spread(), torch.Generator().manual_seed(0)).double()
    for (a, b, x), (c, d, y) in maps[:, :2].tolist():
        # Columns are orthogonal; their lengths tell scale and stretch.
        angle = math.atan2(c, a)
        turned = np.array(
            [[math.cos(-angle), -math.sin(-angle)], [math.sin(-angle), math.cos(-angle)]]
        )
        upright = turned @ np.array([[a, b], [c, d]])
        assert abs(math.degrees(angle)) <= 40
        assert np.allclose(upright - np.diag(np.diag(upright)), 0, atol=1e-6)
        scale, aspect = math.sqrt(upright[0, 0] * upright[1, 1]), upright[0, 0] / upright[1, 1]
        assert abs(math.log(scale / 0.7)) <= 0.35 + 1e-6
        assert abs(math.log(aspect)) <= 2 * 0.12 + 1e-6
        assert abs(x) <= 0.25 and abs(y) <= 0.25
    angles = torch.atan2(maps[:, 1, 0], maps[:, 0, 0]).rad2deg()
    assert angles.min() < -35 and angles.max() > 35 and abs(angles.mean()) < 5


def test_no_spread_shows_the_centre():
    maps = sample_maps(1, 0.5, Spread(0, 0, 0, 0), torch.Generator())
    assert torch.allclose(maps, torch.tensor([[[0.5, 0, 0], [0, 0.5, 0]]]))
    image = torch.rand(1, 3, 8, 8)
    assert torch.allclose(warp(image, maps, 4), image[..., 2:6, 2:6], atol=1e-6)


def test_the_inverse_undoes_the_map():
    maps = sample_maps(50, 0.7, Spread(), torch.Generator().manual_seed(1))
    places = 2 * torch.rand(50, 9, 2) - 1
    assert torch.allclose(to_view(maps, to_image(maps, places)), places, atol=1e-5)


def test_common_fraction_falls_with_the_shift():
    near, far = (common_fraction(0.7, Spread(shift=shift)) for shift in (0.1, 5.0))
    assert near > 0.6 and far < 0.02
    assert common_fraction(0.7, Spread(0, 0, 0, 0)) == 1


def test_the_edge_is_outside():
    places = torch.tensor([[0.0, 0.0], [0.99, -0.99], [1.0, 0.0], [0.0, -1.01]])
    assert is_inside(places).tolist() == [True, True, False, False]
