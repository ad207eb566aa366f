"""Random views show points of their images at the places that the maps promise."""

import numpy as np
import torch

from data_loader.geometry import denormalize_points, normalize_points
from data_loader.views.dense_views import DenseViews, points_in_views, swap_pairs
from data_loader.views.similarity import Spread, sample_maps

SIDE, CROP = 136, 20
WIDTH = SIDE - 2 * CROP


def brightest(difference):
    """Return the centroid (x, y), in pixels, of what is above half of the largest value."""
    light = (difference - difference.max() / 2).clamp(min=0)  # (W, W)
    axis = torch.arange(WIDTH, dtype=light.dtype)
    return torch.stack([light.sum(dim=0) @ axis, light.sum(dim=1) @ axis]) / light.sum()


def test_a_dot_lands_on_its_point():
    generator = torch.Generator().manual_seed(0)
    points_px = 30 + 76 * torch.rand(40, 1, 2, generator=generator)
    rows, columns = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    x, y = points_px[:, 0, :, None, None].unbind(dim=1)  # (B, 1, 1) each
    dots = (-((columns - x) ** 2 + (rows - y) ** 2) / (2 * 2.5**2)).exp()[:, None]
    images = (120 * dots).round().to(torch.uint8).expand(-1, 3, -1, -1)  # no change saturates it
    views, maps = DenseViews(SIDE, CROP, (0, 0, 0), (1, 1, 1), Spread())(images, generator)
    points, shown = points_in_views(maps, points_px, SIDE, WIDTH)
    found_px = denormalize_points(points, WIDTH)[:, 0]
    clear = shown[:, 0] & ((found_px > 10) & (found_px < WIDTH - 11)).all(dim=1)  # the whole dot is
    assert clear.sum() > 20
    centres = torch.stack([brightest(view.mean(dim=0)) for view in views])
    # A dot stays symmetric; bilinear sampling and rounding move its centre by far less.
    assert (centres - found_px)[clear].abs().max() < 0.15


def test_without_spread_points_are_those_of_the_cropped_image():
    maps = sample_maps(1, WIDTH / SIDE, Spread(0, 0, 0, 0), torch.Generator())
    points_px = torch.tensor([[[20.0, 115.0], [70.0, 33.3], [10.0, 60.0], [70.0, 140.0]]])
    points, shown = points_in_views(maps, points_px, SIDE, WIDTH)
    assert torch.allclose(points, normalize_points(points_px - 20, WIDTH), atol=1e-6)
    assert shown.tolist() == [[True, True, False, False]]


def test_half_of_the_views_are_mirrored_with_their_pairs_swapped():
    images = torch.full((40, 3, SIDE, SIDE), 60, dtype=torch.uint8)
    points_px = torch.tensor([[50.0, 60.0], [90.0, 60.0]]).expand(40, 2, 2)  # left of the right one
    images[:, :, 57:64, 47:54] = 255  # the first one is bright
    spread = Spread(rotation=0.0, scale=0.0, shift=0.0, aspect=0.0)
    views_of = DenseViews(SIDE, CROP, (0, 0, 0), (1, 1, 1), spread, mirrored=True)
    views, maps = views_of(images, torch.Generator().manual_seed(0))
    points, visible = points_in_views(maps, points_px, SIDE, WIDTH)
    visible[:, 1] = False
    found, shown = swap_pairs(maps, points, visible, np.array([1, 0]))
    is_mirrored = shown[:, 1]
    assert 10 < is_mirrored.sum() < 30
    assert torch.equal(shown[:, 0], ~is_mirrored)
    assert (found[:, 0, 0] < found[:, 1, 0]).all()  # in a mirror, what is left is called left again
    for view, mirrored, place in zip(views, is_mirrored, points, strict=True):
        x, y = denormalize_points(place, WIDTH)[0]
        contrast = view.mean(dim=0)
        bright = contrast[round(float(y)), round(float(x))]
        other = contrast[round(float(y)), round(WIDTH - 1 - float(x))]
        assert (bright - other).abs() > 0.1
        assert (x > WIDTH / 2) == bool(mirrored)


def test_mirrored_views_differ_in_nothing_but_the_sign_of_x():
    images = torch.randint(256, (4, 3, SIDE, SIDE), dtype=torch.uint8)
    views = [
        DenseViews(SIDE, CROP, (0, 0, 0), (1, 1, 1), Spread(), mirrored)(
            images, torch.Generator().manual_seed(0)
        )
        for mirrored in (False, True)
    ]
    assert torch.equal(views[0].maps.abs(), views[1].maps.abs())
    assert (views[0].maps[:, :, 1:] == views[1].maps[:, :, 1:]).all()
