"""Random views: points are where the maps promise; colours change as by one step after another."""

import numpy as np
import torch
import torch.nn.functional as F

from data_loader.geometry import denormalize_points, normalize_points
from data_loader.views.dense_views import (
    LUMA,
    ColourChanges,
    DenseViews,
    change_colours,
    points_in_views,
    sample_colours,
    swap_pairs,
)
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


# ---- colours ----


def literal(image, brightness, contrast, saturation, gains, blurred):
    """Return one image (3, H, W) after brightness, contrast, saturation, gains and blur."""
    image = image * brightness
    image = image.mean() + (image - image.mean()) * contrast
    grey = sum(weight * channel for weight, channel in zip(LUMA, image, strict=True))
    image = grey + (image - grey) * saturation
    image = image * gains[:, None, None]
    if blurred:
        padded = F.pad(image[None], (1, 1, 1, 1), mode="replicate")[0]
        rows, columns = image.shape[1:]
        image = (
            sum(padded[:, y : y + rows, x : x + columns] for y in range(3) for x in range(3)) / 9
        )
    return image.clamp(0, 1)


def test_one_matrix_does_what_the_steps_do():
    images = torch.rand(24, 3, 11, 13)
    changes = sample_colours(24, torch.Generator().manual_seed(0))
    assert 0 < changes.blurred.sum() < 24 and 0 < (changes.saturation == 0).sum() < 24
    expected = [literal(image, *change) for image, *change in zip(images, *changes, strict=True)]
    assert torch.allclose(change_colours(images, changes), torch.stack(expected), atol=1e-6)


def test_no_change_changes_nothing():
    images = torch.rand(2, 3, 5, 5)
    one = torch.ones(2)
    changes = ColourChanges(one, one, one, torch.ones(2, 3), torch.zeros(2))
    assert torch.allclose(change_colours(images, changes), images, atol=1e-6)


def test_factors_lie_where_they_should():
    changes = sample_colours(4000, torch.Generator().manual_seed(0))
    for factors in (changes.brightness, changes.contrast):
        assert factors.min() >= 0.6 and factors.max() <= 1.4 and abs(factors.mean() - 1) < 0.02
    assert abs((changes.saturation == 0).float().mean() - 0.3) < 0.03
    assert abs(changes.blurred.mean() - 0.5) < 0.03
    assert changes.gains.min() >= 0.8 and changes.gains.max() <= 1.2


def test_views_are_standardised_and_belong_to_the_generator():
    images = torch.randint(256, (6, 3, 40, 40), dtype=torch.uint8)
    views = DenseViews(40, 4, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), Spread())
    one, again, other = (views(images, torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert one.images.shape == (6, 3, 32, 32) and one.maps.shape == (6, 2, 3)
    assert torch.equal(one.images, again.images) and torch.equal(one.maps, again.maps)
    assert not torch.equal(one.images, other.images)
    low, high = (0 - 0.5) / 0.2, (1 - 0.5) / 0.2
    assert one.images[:, 0].min() >= low - 1e-5 and one.images[:, 0].max() <= high + 1e-5
