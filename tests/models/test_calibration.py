"""The map of confidence against rates that are known, and against sklearn."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from models.calibration import fit_calibration, from_entry

ALL = torch.ones(4000, 2, dtype=torch.bool)


def drawn(count, rate, seed=0):
    """Return confidence (N, 2) from 0 to 1, and hits at a rate that is a function of it."""
    generator = torch.Generator().manual_seed(seed)
    confidence = torch.rand(count, 2, generator=generator)
    return confidence, torch.rand(count, 2, generator=generator) < rate(confidence)


def test_a_map_of_many_points_is_the_logistic_regression_of_both_logarithms():
    confidence, hit = drawn(4000, lambda c: c**2)
    calibration = fit_calibration(confidence, hit, ALL, 0.05)
    c = confidence.clamp(1e-4, 1 - 1e-4).flatten().double().numpy()
    inputs = np.stack([np.log(c), -np.log1p(-c)], axis=1)
    model = LogisticRegression(C=1e6).fit(inputs, hit.flatten().numpy())
    expected = model.predict_proba(inputs)[:, 1]
    assert np.abs(calibration(confidence.double()).flatten().numpy() - expected).max() < 0.02


def test_more_confidence_never_means_less_probability():
    confidence, hit = drawn(4000, lambda c: 1 - c)  # the wrong way round
    told = fit_calibration(confidence, hit, ALL, 0.05)(torch.tensor([[0.0, 0.0], [1.0, 1.0]]))
    assert (told[1] >= told[0] - 1e-6).all() and (told - 0.5).abs().max() < 0.05


def test_a_landmark_has_a_rate_of_its_own():
    confidence, hit = drawn(4000, lambda c: torch.tensor([0.9, 0.3]).expand_as(c))
    told = fit_calibration(confidence, hit, ALL, 0.05)(torch.tensor([[0.5, 0.5]]))
    assert torch.allclose(told, torch.tensor([[0.9, 0.3]]), atol=0.03)


def test_points_that_are_not_annotated_do_not_count():
    confidence, hit = drawn(100, lambda c: c)
    judged = torch.arange(200).view(100, 2) % 3 > 0
    kept = fit_calibration(confidence, hit, judged, 0.05)
    changed = fit_calibration(confidence, hit ^ ~judged, judged, 0.05)
    assert kept == changed and kept.points == int(judged.sum())


def test_an_entry_comes_back():
    calibration = fit_calibration(*drawn(50, lambda c: c), ALL[:50], 0.1)
    entry = calibration._asdict()
    assert from_entry(entry, 2) == calibration
    for damage in ({"slopes": [-1.0, 0.0]}, {"offsets": [0.0]}, {"distance": float("nan")}):
        with pytest.raises(ValueError):
            from_entry({**entry, **damage}, 2)


def test_few_points_give_the_least_penalised_entropy():
    """Against a literal one: slopes have a spread of 1, a landmark's own offset one of 0.5."""
    confidence, hit = drawn(12, lambda c: c**2, seed=3)
    found = fit_calibration(confidence, hit, ALL[:12], 0.05)
    c = confidence.double().flatten().numpy()
    inputs, kind = np.stack([np.log(c), -np.log1p(-c)], axis=1), np.arange(24) % 2
    centre, scale = inputs.mean(axis=0), inputs.std(axis=0)
    wins = int(hit.sum())
    targets = np.where(hit.flatten(), (wins + 1) / (wins + 2), 1 / (24 - wins + 2))

    def penalised(slopes, own, common):
        chance = 1 / (1 + np.exp(-((inputs - centre) / scale @ slopes + common + own[kind])))
        entropy = -(targets * np.log(chance) + (1 - targets) * np.log(1 - chance)).sum()
        return entropy + (slopes**2).sum() / 2 + (own**2).sum() / (2 * 0.5**2)

    slopes = np.array(found.slopes) * scale
    together = np.array(found.offsets) + np.array(found.slopes) @ centre  # common and own
    common = together.mean()  # the own ones, penalised alone, sum up to 0
    least = penalised(slopes, together - common, common)
    for name, value in (("slopes", slopes), ("own", together - common)):
        for factor in (0.9, 1.1):
            values = {"slopes": slopes, "own": together - common, name: factor * value}
            assert penalised(**values, common=common) > least, name
