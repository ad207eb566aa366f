"""The normal equations against hypercolumns that were really made; the solution against sklearn."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from models.hypercolumn import hypercolumn
from models.ridge import (
    NormalEquations,
    RidgeReadout,
    cell_axis,
    cell_places,
    find_peak,
    gaussian_profiles,
)
from utils.errors import InputError

CELLS, SIDE = 12, 48
SIZES = ((5, 2, 2), (4, 3, 3), (3, 6, 6))  # channels, rows and columns of each map


def features(count):
    torch.manual_seed(count)
    return [torch.rand(count, *size) for size in SIZES], 1.6 * torch.rand(count, 3, 2) - 0.8


def stacked(maps, points, width):
    """Return every cell's hypercolumn (B * P, C) and targets (B * P, A), in float64."""
    made = hypercolumn(maps, (CELLS, CELLS)).double()
    axis = cell_axis(CELLS, SIDE)
    targets = []
    for x, y in points.double().flatten(0, 1):
        down, across = ((-((axis - v) ** 2) / (2 * width**2)).exp() for v in (y, x))
        targets.append(torch.outer(down, across))
    targets = torch.stack(targets).view(*points.shape[:2], CELLS * CELLS)
    return made.flatten(2).transpose(1, 2).reshape(-1, made.shape[1]), targets.transpose(
        1, 2
    ).flatten(0, 1)


def sums(batches, width, offset=None):
    equations = NormalEquations([c for c, _, _ in SIZES], 3, CELLS, SIDE, offset)
    axis = cell_axis(CELLS, SIDE)
    for maps, points in batches:
        shown = torch.ones(points.shape[:2], dtype=torch.bool)
        equations.add(maps, *gaussian_profiles(points, shown, axis, [width]))
    return equations


def test_cells_lie_between_the_outer_edges():
    # 4 cells on 8 pixels: their centres are between the pixels 0 and 1, 2 and 3, and so on.
    assert np.allclose((cell_axis(4, 8) + 1) / 2 * 7, [0.5, 2.5, 4.5, 6.5])


def test_sums_are_those_of_all_cells_without_making_them():
    batches = [features(7), features(4)]
    equations = sums(batches, 0.2)
    made = [stacked(maps, points, 0.2) for maps, points in batches]
    f, t = (torch.cat(parts) for parts in zip(*made, strict=True))
    assert equations.count == len(f) == 11 * CELLS**2
    for name, expected in (
        ("gram", f.t() @ f),
        ("cross", f.t() @ t),
        ("feature_sum", f.sum(dim=0)),
        ("target_sum", t.sum(dim=0)),
    ):
        assert torch.allclose(getattr(equations, name), expected, rtol=1e-5, atol=1e-4), name


def test_channels_far_from_zero_are_as_good_as_others():
    """As the few of a vision transformer whose activations are massive, and as constant ones."""
    maps, points = features(9)
    maps[2][:, 0] = 0.5
    far = [m.clone() for m in maps]
    for m in far:
        m[:, :2] += 3000
    near, offset = (torch.cat([m.mean(dim=(0, 2, 3)) for m in some]) for some in (maps, far))
    ((wanted, bias),) = sums([(maps, points)], 0.2, near).solve([0.001])
    ((found, far_bias),) = sums([(far, points)], 0.2, offset).solve([0.001])
    varied = [c for c in range(12) if c != 9]  # what a constant weighs doesn't matter
    # 3000 is held to 2e-4 in float32, of numbers that deviate by 0.3.
    assert torch.allclose(
        found[:, varied], wanted[:, varied], atol=0.01 * float(wanted.abs().max())
    )
    shift = 3000 * sum(found[:, c] for c in (0, 1, 5, 6, 9, 10))
    assert torch.allclose(far_bias + shift, bias, atol=0.01 * float(shift.abs().max()))


def test_solution_is_sklearns_on_standardised_channels():
    batches = [features(9)]
    f, t = stacked(*batches[0], 0.2)
    mean, std = f.mean(dim=0), f.std(dim=0, correction=0)
    for penalty, (weight, bias) in zip(
        (0.01, 1.0), sums(batches, 0.2).solve((0.01, 1.0)), strict=True
    ):
        fitted = Ridge(penalty * len(f)).fit(((f - mean) / std).numpy(), t.numpy())
        found = f.float() @ weight.t() + bias
        expected = fitted.predict(((f - mean) / std).numpy())
        assert np.allclose(found.numpy(), expected, atol=2e-4)


def test_parts_add_up():
    one, other = features(7), features(4)
    together, apart = sums([one, other], 0.2), sums([one], 0.2)
    apart.add_sums(sums([other], 0.2))
    assert torch.allclose(together.gram, apart.gram) and together.count == apart.count


def test_a_penalty_within_the_rounding_of_the_sums_is_raised():
    equations = NormalEquations([2], 1, CELLS, SIDE)
    # Two channels that are correlated by more than 1: an eigenvalue of -0.0005.
    equations.count, equations.gram = 1, torch.tensor([[1, 1.0005], [1.0005, 1]]).double()
    equations.cross = torch.tensor([[0.3], [0.2]]).double()
    (raised, _), (expected, _) = equations.solve([1e-4, 1e-3])
    assert torch.allclose(raised, expected) and raised.isfinite().all()
    equations.gram[1, 0] = torch.nan
    with pytest.raises(InputError, match="features aren't finite"):
        equations.solve([1e-4])


# ---- reading ----


def readout(landmarks=3):
    """Return a readout with a random shape, whose landmarks depend on each other."""
    torch.manual_seed(3)
    made = RidgeReadout(4, landmarks, SIDE, None)
    root = torch.randn(2 * landmarks, 2 * landmarks) * 0.2
    made.covariance.copy_(root @ root.t() + 0.01 * torch.eye(2 * landmarks))
    made.mean.copy_(torch.rand(landmarks, 2) - 0.5)
    return made


def test_each_landmark_given_the_others_is_the_conditional_of_a_normal_distribution():
    made = readout()
    points = torch.rand(2, 3, 2) - 0.5
    gain, covariances = made.given_the_others()
    means = made.mean + torch.einsum("aij,bj->bai", gain, (points - made.mean).flatten(1))
    # By the precision matrix of (own, others + noise), another formula for the same.
    for k in range(3):
        own = [2 * k, 2 * k + 1]
        rest = [i for i in range(6) if i not in own]
        joint = made.covariance.double().numpy().copy()
        joint[np.ix_(rest, rest)] += float(made.noise) * np.eye(4)
        precision = np.linalg.inv(joint)
        covariance = np.linalg.inv(precision[np.ix_(own, own)])
        assert np.allclose(covariances[k].numpy(), covariance, atol=1e-4)
        for image, point in enumerate(points):
            off = (point - made.mean).flatten().double().numpy()[rest]
            expected = made.mean[k].numpy() - covariance @ precision[np.ix_(own, rest)] @ off
            assert np.allclose(means[image, k].numpy(), expected, atol=1e-4)


def test_a_clear_heatmap_is_read_to_a_fraction_of_a_cell():
    made = readout()
    made.covariance.copy_(torch.eye(6) * 4)  # hardly any prior
    points = torch.tensor([[[-0.31, 0.22], [0.4, -0.47], [0.05, 0.6]]])
    axis = cell_axis(48, 96)
    rows, columns = gaussian_profiles(points, torch.ones(1, 3, dtype=torch.bool), axis, [0.1])
    heat = torch.einsum("bkh,bkw->bkhw", rows, columns).flatten(2).float()
    places = torch.cartesian_prod(axis, axis).flip(1).float()
    found, confidence = made.read(heat, places, made.mean[None])
    assert (found - points).norm(dim=2).max() < 0.25 * 2 / 48
    assert confidence.min() > 0.9


def test_of_two_equal_peaks_the_others_decide():
    """Three landmarks in a row, a fixed distance apart: where two are sure, so is the third."""
    made = RidgeReadout(4, 3, SIDE, None)
    made.mean.copy_(torch.tensor([[-0.5, 0.0], [0.0, 0.0], [0.5, 0.0]]))
    # All move together, by about 0.3, and by 0.03 each.
    together = torch.kron(torch.ones(3, 3), torch.eye(2))
    made.covariance.copy_(0.09 * together + 0.001 * torch.eye(6))
    axis = cell_axis(CELLS, SIDE)
    places = torch.cartesian_prod(axis, axis).flip(1).float()

    def bump(x):
        return torch.exp(-(places - torch.tensor([x, 0.0])).square().sum(dim=1) / (2 * 0.1**2))

    shift = 0.25
    sure = [bump(x + shift) for x in (-0.5, 0.0)]
    doubtful = torch.maximum(bump(0.5 + shift), bump(0.5 - shift))
    heat = torch.stack([*sure, doubtful])[None]
    found, _ = made.read(heat, places, made.mean[None])
    assert abs(found[0, 2, 0] - (0.5 + shift)) < 0.1


def test_confidence_tells_clear_peaks_from_doubtful_ones_however_sharply_they_are_read():
    readout = RidgeReadout(4, 1, 48, None)
    readout.sharpness.fill_(160.0)
    readout.covariance.mul_(1e6)  # a prior that says nothing
    places = cell_places((8, 8), 48, torch.zeros(()))
    heat = torch.zeros(3, 1, 64)
    heat[:, :, 9] = 0.9  # the peak
    heat[:, :, 54] = torch.tensor([0.1, 0.6, 0.8])[:, None]  # another one, far away
    points, confidence = readout.read(heat, places, torch.zeros(3, 1, 2))
    assert torch.allclose(points, places[9].expand(3, 1, 2), atol=1e-4)
    # exp(30 h) of each cell, of which no neighbour is within 0.2
    others = 62 + (30 * torch.tensor([0.1, 0.6, 0.8])).exp()
    peak = torch.tensor(30 * 0.9).exp()
    assert torch.allclose(confidence[:, 0], peak / (peak + others), rtol=1e-3)


def test_a_peak_is_the_mean_of_the_cells_above_half_of_it():
    """Weighted by what they have above half; cells far away and lower ones have no part in it."""
    places = torch.tensor([[0.0, 0.0], [0.1, 0.0], [0.0, 0.1], [0.9, 0.9]])
    heat = torch.tensor([[[1.0, 0.75, 0.45, 0.9]]])
    points, near = find_peak(heat, heat, places)
    assert torch.allclose(points, torch.tensor([[[0.1 * 0.25 / 0.75, 0.0]]]), atol=1e-6)
    assert near.tolist() == [[[True, True, True, False]]]
