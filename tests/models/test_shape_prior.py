"""The prior of shape against refits with each image left out."""

import numpy as np
import pytest
import torch
from sklearn.covariance import LedoitWolf

from models.shape_prior import GRID, PENALTIES, SPREAD, coarse_look, fit_shape


def everything(count, landmarks=2):
    return torch.ones(count, landmarks, dtype=torch.bool)


def ridge(look, off, penalty, scale):
    """Return the weights (D, 2 A) of a ridge regression, with as many unknowns as numbers."""
    size = look.shape[1]
    return np.linalg.solve(look.T @ look + penalty * scale * np.eye(size), look.T @ off)


def left_out_errors(look, points, penalty, scale):
    """Return the error of each image when weights and mean are those of all others.

    The centre stays that of all images: the closed form takes the regression's mean alone out.
    """
    errors = []
    for i in range(len(look)):
        rest = np.arange(len(look)) != i
        inputs = np.hstack([look[rest], np.ones((len(look) - 1, 1))])
        size = inputs.shape[1]
        ridged = penalty * scale * np.eye(size)
        ridged[-1, -1] = 0  # the mean isn't penalised
        weights = np.linalg.solve(inputs.T @ inputs + ridged, inputs.T @ points[rest])
        errors.append(points[i] - np.append(look[i], 1) @ weights)
    return np.array(errors)


def test_penalty_weights_and_covariance_are_those_of_literal_refits():
    torch.manual_seed(1)
    coarse = torch.randn(14, 5) + 3
    points = 0.1 * (coarse @ torch.randn(5, 4)) + 0.1 * torch.randn(14, 4)
    prior = fit_shape(coarse, points.view(-1, 2, 2), everything(14))

    look = (coarse - coarse.mean(dim=0)).double().numpy()
    target = points.double().numpy()
    scale = np.square(look).sum(axis=1).mean()
    finite = PENALTIES[:-1]
    refits = {p: left_out_errors(look, target, p, scale) for p in finite}
    best = min(finite, key=lambda p: np.square(refits[p]).sum())
    expected = ridge(look, target - target.mean(axis=0), best, scale)
    assert np.allclose(prior.weight.numpy(), expected.T, atol=1e-5)
    found = LedoitWolf(assume_centered=True).fit(refits[best]).covariance_
    assert np.allclose(
        prior.covariance.numpy(), (14**2 * found + SPREAD**2 * np.eye(4)) / (14**2 + 1), atol=1e-6
    )
    guess = prior.expected(coarse)
    assert np.allclose(guess.flatten(1).numpy(), look @ expected + target.mean(axis=0), atol=1e-5)


def test_a_look_that_tells_nothing_leaves_the_mean_shape():
    torch.manual_seed(0)
    coarse, points = torch.randn(200, 20), 0.1 * torch.randn(200, 2, 2) + 0.2
    prior = fit_shape(coarse, points, everything(200))
    assert prior.weight.abs().max() < 0.01
    assert torch.allclose(prior.mean, points.mean(dim=0), atol=1e-6)
    # Of 200 normal samples a variance is known to a tenth or so.
    assert prior.covariance.diagonal().tolist() == pytest.approx([0.01] * 4, rel=0.4)


def test_few_images_are_vague_and_hidden_landmarks_are_no_obstacle():
    points = torch.rand(2, 2, 2)
    for count in (1, 2):
        prior = fit_shape(torch.rand(count, 3), points[:count], everything(count))
        assert torch.allclose(prior.covariance, SPREAD**2 * torch.eye(4))
        assert torch.equal(prior.expected(torch.rand(5, 3))[0], points[:count].mean(dim=0))
    shown = everything(12)
    shown[1:, 0] = False  # by one image alone
    prior = fit_shape(torch.rand(12, 3), torch.rand(12, 2, 2), shown)
    assert all(part.isfinite().all() for part in prior)
    blank = fit_shape(torch.ones(12, 3), torch.rand(12, 2, 2), everything(12))
    assert all(part.isfinite().all() for part in blank)


def test_the_coarse_look_is_a_mean_over_parts():
    maps = torch.rand(2, 4, 12, 12), torch.rand(2, 3, 3, 3)
    look = coarse_look(maps)
    assert look.shape == (2, 7 * GRID**2)
    assert look[1, GRID + 1] == pytest.approx(float(maps[0][1, 0, 2:4, 2:4].mean()))
    assert look[0, 4 * GRID**2 + 1] == pytest.approx(float(maps[1][0, 0, 0, 0]))


def test_a_hidden_landmark_leaves_the_mean_to_the_images_that_show_it():
    points, shown = torch.rand(6, 2, 2), everything(6)
    shown[3:, 1] = False
    mean = fit_shape(torch.rand(6, 3), points, shown).mean
    assert torch.allclose(mean, torch.stack([points[:, 0].mean(dim=0), points[:3, 1].mean(dim=0)]))


def test_three_images_are_enough_for_a_prior_of_their_own():
    coarse, points = torch.rand(3, 4), torch.rand(3, 2, 2)
    own, vague = (fit_shape(coarse[:n], points[:n], everything(n)).covariance for n in (3, 2))
    assert torch.equal(vague, SPREAD**2 * torch.eye(4)) and not torch.allclose(own, vague, rtol=0.1)
