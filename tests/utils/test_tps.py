"""Thin-plate splines against literal loops, the published warp, and drawn dots."""

import math

import numpy as np
import pytest
import torch

from tests.recipes import golden, relative, sub
from utils import tps
from utils.tps import WarperSingle, control_points, design_rows, inverse_warp, random_tps_weights

pytestmark = pytest.mark.usefixtures("one_thread")
H, W = 44, 60  # no square


def affine(*, shift=(0.0, 0.0), scale=1.0, degrees=0.0) -> torch.Tensor:
    """Return weights without bending."""
    weights, angle = torch.zeros(103, 2), math.radians(degrees)
    weights[100] = torch.tensor(shift)
    weights[101] = torch.tensor([scale * math.cos(angle), -scale * math.sin(angle)])
    weights[102] = torch.tensor([scale * math.sin(angle), scale * math.cos(angle)])
    return weights


def drawn(seed, bend=0.0005) -> torch.Tensor:
    """Return weights with the defaults' spreads."""
    torch.manual_seed(seed)
    return random_tps_weights(100, bend, 0.0, 0.02, 0.02, 2)


@pytest.fixture
def use(monkeypatch):
    """Let warpers use given weights: the function is looked up when an image is warped."""

    def set_weights(weights):
        monkeypatch.setattr(tps, "random_tps_weights", lambda *_: weights)

    return set_weights


def dot_tensor(x, y, height=H, width=W, sigma=2.5) -> torch.Tensor:
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    light = 255 * torch.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * sigma**2))
    return light.expand(3, -1, -1).float()


def centroid(image) -> np.ndarray:
    light = image.mean(dim=0).double().numpy()
    rows, columns = np.indices(light.shape)
    return np.array([(light * columns).sum(), (light * rows).sum()]) / light.sum()


# ---- the design ----


# ---- random weights ----


def test_each_entry_is_replaced_with_probability_one_half():
    torch.manual_seed(0)
    bend = random_tps_weights(20_000, 1.0, 0.0, 0, 0, 0)[:-3]
    kept = bend != 0
    spread = (0.25 / 20_000) ** 0.5
    assert abs(kept[:, 0].float().mean() - 0.5) < 4 * spread
    assert abs(kept[:, 1].float().mean() - 0.5) < 4 * spread
    # Entry by entry, not point by point: one of the two in half of the points.
    assert abs((kept[:, 0] != kept[:, 1]).float().mean() - 0.5) < 4 * spread
    assert bend[kept].std() == pytest.approx(1, rel=0.03)
    assert abs(bend[kept].mean()) < 4 / 20_000**0.5


def test_both_spreads_of_the_bending_are_standard_deviations():
    torch.manual_seed(0)
    only_subset = random_tps_weights(20_000, 0.0, 3.0, 0, 0, 0)[:-3]
    assert abs((only_subset != 0).float().mean() - 0.5) < 0.02
    assert only_subset[only_subset != 0].std() == pytest.approx(3, rel=0.03)
    both = random_tps_weights(20_000, 1.0, 3.0, 0, 0, 0)[:-3]
    assert both.std() == pytest.approx(math.sqrt((1 + 9) / 2), rel=0.03)


def test_without_spread_the_warp_is_the_identity():
    torch.manual_seed(0)
    assert torch.equal(random_tps_weights(100, 0, 0, 0, 0, 0), affine())


def test_shift_scale_and_rotation_have_their_standard_deviations():
    torch.manual_seed(0)
    count = 2500
    rows = torch.stack([random_tps_weights(1, 0, 0, 0.3, 0.1, 20)[1:] for _ in range(count)])
    shifts, linear = rows[:, 0].double(), rows[:, 1:].double()
    # [[s cos, -s sin], [s sin, s cos]]
    assert torch.allclose(linear[:, 0, 0], linear[:, 1, 1])
    assert torch.allclose(linear[:, 0, 1], -linear[:, 1, 0])
    scales = torch.hypot(linear[:, 1, 0], linear[:, 1, 1])
    degrees = torch.rad2deg(torch.atan2(linear[:, 1, 0], linear[:, 1, 1]))
    for values, mean, spread in (
        (shifts[:, 0], 0, 0.3),
        (shifts[:, 1], 0, 0.3),
        (scales, 1, 0.1),
        (degrees, 0, 20),
    ):
        assert abs(values.mean() - mean) < 4 * spread / count**0.5
        assert values.std() == pytest.approx(spread, rel=4 / (2 * count) ** 0.5)
    together = torch.corrcoef(torch.stack([shifts[:, 0], shifts[:, 1], scales, degrees]))
    assert (together - torch.eye(4)).abs().max() < 4 / count**0.5


def test_the_warper_samples_with_its_own_spreads(monkeypatch):
    given = []
    monkeypatch.setattr(tps, "random_tps_weights", lambda *a: given.append(a) or affine())
    WarperSingle(H, W)(torch.zeros(3, H, W), keypts=np.zeros((1, 2)), crop=0)
    WarperSingle(H, W, 1.0, 2.0, 3.0, 4.0, 5.0)(torch.zeros(3, H, W), keypts=np.zeros((1, 2)))
    WarperSingle(H=H, W=W, rotsd=7)(torch.zeros(3, H, W), keypts=np.zeros((1, 2)))
    assert given == [
        (100, 0.0005, 0.0, 0.02, 0.02, 2),
        (100, 1.0, 2.0, 3.0, 4.0, 5.0),
        (100, 0.0005, 0.0, 0.02, 0.02, 7),
    ]


# ---- the inverse ----


@pytest.mark.parametrize("bend", [0.0005, 0.002])
def test_the_inverse_undoes_the_warp(bend):
    controls = control_points().double()
    places = torch.rand(200, 2, generator=torch.Generator().manual_seed(1)).double() * 1.8 - 0.9
    for seed in range(25):
        weights = drawn(seed, bend)
        shown = design_rows(places, controls) @ weights.double()
        assert (inverse_warp(shown, weights, controls) - places).abs().max() < 1e-6
    assert (shown - places).abs().max() > 0.005  # it was a warp


def test_the_inverse_of_a_shift_scale_and_rotation_by_hand():
    controls = control_points()
    target = torch.tensor([[0.3, -0.2]])
    found = inverse_warp(target, affine(shift=(0.1, -0.4)), controls)
    assert found.tolist() == [pytest.approx([0.2, 0.2])]
    found = inverse_warp(target, affine(scale=2), controls)
    assert found.tolist() == [pytest.approx([0.15, -0.1])]
    # Shown at (x, y) is (x cos + y sin, y cos - x sin); by 90 degrees, (y, -x).
    found = inverse_warp(target, affine(degrees=90), controls)
    assert found.tolist() == [pytest.approx([0.2, 0.3])]


def test_places_that_are_not_shown_go_to_the_nearest_edge():
    found = inverse_warp(torch.tensor([[0.95, 0.4]]), affine(shift=(-0.3, 0.1)), control_points())
    assert found.tolist() == [pytest.approx([1.0, 0.3])]


# ---- images and their points ----


def test_outside_the_image_is_zero(use):
    use(affine(shift=(1.0, 0.0)))  # the result's right half looks beyond the source
    warped, _ = WarperSingle(H, W)(torch.full((3, H, W), 200.0), keypts=np.zeros((1, 2)))
    assert (warped[:, :, 31:] == 0).all()
    assert (warped[:, 1:-1, 1:29] - 200).abs().max() < 1e-3


@pytest.mark.parametrize("seed", range(6))
def test_dots_are_found_under_their_points(use, seed):
    weights = drawn(seed, bend=0.002)
    use(weights)
    x, y = [(18, 14), (40, 13), (30, 22), (17, 30), (43, 29), (25.5, 20.25)][seed]
    crop = seed % 4
    warped, moved = WarperSingle(H, W)(dot_tensor(x, y), keypts=np.array([[x, y]]), crop=crop)
    assert warped.shape == (3, H - 2 * crop, W - 2 * crop)
    spot = centroid(warped)
    assert np.abs(spot - moved[0]).max() < 0.75
    # Exactly: in the sampling's frame, -1 and 1 are the image's borders, not pixels' centres.
    sampled = torch.tensor([[(2 * x + 1) / W - 1, (2 * y + 1) / H - 1]])
    place = (inverse_warp(sampled, weights, control_points())[0].numpy() + 1) / 2
    assert np.abs(spot - (place * (W - 1, H - 1) - crop)).max() < 0.15


def test_the_crop_cuts_what_the_whole_result_shows(use):
    use(drawn(3, bend=0.001))
    image = torch.rand(3, H, W, generator=torch.Generator().manual_seed(0)) * 255
    points = np.array([[20.0, 30.0], [5.0, 40.0]])
    whole, moved = WarperSingle(H, W)(image, keypts=points)
    cropped, shifted = WarperSingle(H, W)(image, keypts=points, crop=5)
    assert torch.equal(cropped, whole[:, 5:-5, 5:-5])
    assert np.allclose(shifted, moved - 5)


def test_the_callers_image_and_points_stay_as_they_are():
    image, points = torch.full((3, H, W), 9.0), np.array([[10.0, 20.0]])
    torch.manual_seed(0)
    _, moved = WarperSingle(H, W)(image, keypts=points, crop=4)
    assert (image == 9).all() and points.tolist() == [[10, 20]]
    assert moved.tolist() != [[6, 16]]


def test_each_call_warps_anew_by_torchs_generator():
    warper, points = WarperSingle(H, W), np.array([[10.0, 20.0]])
    torch.manual_seed(4)
    first = warper(torch.zeros(3, H, W), keypts=points)[1]
    second = warper(torch.zeros(3, H, W), keypts=points)[1]
    torch.manual_seed(4)
    assert np.array_equal(warper(torch.zeros(3, H, W), keypts=points)[1], first)
    assert np.abs(first - second).max() > 0.01


def test_the_published_warp(use):
    truth = golden("tps.npz")
    weights, image = torch.tensor(truth["weights"]), torch.tensor(truth["image"])
    use(weights)
    warper = WarperSingle(H=136, W=136)
    assert relative(sub(warper.F @ weights), truth["grid"]) < 1e-4
    warped, moved = warper(image, keypts=truth["keypoints"].copy(), crop=20)
    assert list(warped.shape) == truth["warped_shape"].tolist() == [3, 96, 96]
    assert np.quantile(np.abs(sub(warped, 8192) - truth["warped"]), 0.999) < 0.05
    # The published points are whole pixels, ours lie between.
    assert np.abs(moved - truth["keypoints_out"]).max() < 1.01
    assert np.abs(moved - truth["keypoints_out"]).mean() < 0.35
