"""A point of an image lands in its random view where the view shows what is there."""

import torch

from data_loader.geometry import denormalize_points, normalize_points
from data_loader.views.dense_views import points_in_views
from data_loader.views.similarity import Spread, sample_maps, warp

SIDE, WIDTH = 136, 96


def test_a_dot_lands_on_its_point():
    maps = sample_maps(40, WIDTH / SIDE, Spread(30, 0.25, 0.2, 0.1), torch.Generator())
    points_px = 30 + 76 * torch.rand(40, 1, 2)
    rows, columns = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    x, y = points_px[:, 0, :, None, None].unbind(dim=1)  # (B, 1, 1) each
    dots = (-((columns - x) ** 2 + (rows - y) ** 2) / (2 * 2.5**2)).exp()[:, None]
    views = warp(dots, maps, WIDTH)[:, 0]  # (B, W, W)
    points, shown = points_in_views(maps, points_px, SIDE, WIDTH)
    found_px = denormalize_points(points, WIDTH)[:, 0]
    clear = shown[:, 0] & ((found_px > 10) & (found_px < WIDTH - 11)).all(dim=1)  # the whole dot is
    assert clear.sum() > 20
    total = views.sum(dim=(1, 2))
    axis = torch.arange(WIDTH)
    centre = torch.stack([(views.sum(dim=d) * axis).sum(dim=1) / total for d in (1, 2)], dim=1)
    # A dot stays symmetric; bilinear sampling and what is cut off move its centre by far less.
    assert (centre - found_px)[clear].abs().max() < 0.1


def test_without_spread_points_are_those_of_the_cropped_image():
    maps = sample_maps(1, WIDTH / SIDE, Spread(0, 0, 0, 0), torch.Generator())
    points_px = torch.tensor([[[20.0, 115.0], [70.0, 33.3], [10.0, 60.0], [70.0, 140.0]]])
    points, shown = points_in_views(maps, points_px, SIDE, WIDTH)
    assert torch.allclose(points, normalize_points(points_px - 20, WIDTH), atol=1e-6)
    assert shown.tolist() == [[True, True, False, False]]
