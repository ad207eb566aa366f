"""The map of confidence against rates that are known, and against sklearn."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from models.calibration import crossed_worth, fit_calibration, from_entry


def drawn(count, rate, seed=0):
    """Return confidence (N, 2) from 0 to 1, and errors, hits at a rate that is a function of it."""
    generator = torch.Generator().manual_seed(seed)
    confidence = torch.rand(count, 2, generator=generator)
    hit = torch.rand(count, 2, generator=generator) < rate(confidence)
    return confidence, torch.where(hit, 0.01, 0.3)


def test_a_map_of_many_points_is_the_logistic_regression_of_both_logarithms():
    confidence, off = drawn(4000, lambda c: c**2)
    calibration = fit_calibration(confidence, off, 0.05)
    c = confidence.clamp(1e-4, 1 - 1e-4).flatten().double().numpy()
    inputs = np.stack([np.log(c), -np.log1p(-c)], axis=1)
    model = LogisticRegression(C=1e6).fit(inputs, (off < 0.05).flatten().numpy())
    expected = model.predict_proba(inputs)[:, 1]
    assert np.abs(calibration(confidence.double()).flatten().numpy() - expected).max() < 0.02


def test_more_confidence_never_means_less_probability():
    confidence, off = drawn(4000, lambda c: 1 - c)  # the wrong way round
    told = fit_calibration(confidence, off, 0.05)(torch.tensor([[0.0, 0.0], [1.0, 1.0]]))
    assert (told[1] >= told[0] - 1e-6).all() and (told - 0.5).abs().max() < 0.05


def test_a_landmark_has_a_rate_of_its_own():
    confidence, off = drawn(4000, lambda c: torch.tensor([0.9, 0.3]).expand_as(c))
    told = fit_calibration(confidence, off, 0.05)(torch.tensor([[0.5, 0.5]]))
    assert torch.allclose(told, torch.tensor([[0.9, 0.3]]), atol=0.03)


def test_points_that_are_not_annotated_do_not_count():
    confidence, off = drawn(100, lambda c: c)
    judged = torch.arange(200).view(100, 2) % 3 > 0
    kept = fit_calibration(confidence, torch.where(judged, off, torch.nan), 0.05)
    assert kept.points == int(judged.sum())
    for k in (0, 1):  # what isn't judged may be anything
        changed = torch.where(judged[:, k], confidence[:, k], 0.5)
        confidence = torch.stack([changed, confidence[:, 1 - k]][:: 1 - 2 * k], dim=1)
    assert fit_calibration(confidence, torch.where(judged, off, torch.nan), 0.05) == kept


def test_an_entry_comes_back():
    calibration = fit_calibration(*drawn(50, lambda c: c), 0.1)
    entry = calibration._asdict()
    assert from_entry(entry, 2) == calibration
    older = from_entry({name: entry[name] for name in entry if name != "error"}, 2)
    assert older == calibration._replace(error=())
    assert older.expected_error(torch.rand(3, 2)).isnan().all()
    nan = float("nan")
    for damage in (
        *({"slopes": [-1.0, 0.0]}, {"offsets": [0.0]}, {"distance": nan}),
        *({"error": (0.5, 1.0)}, {"error": (0.5, 1.0, nan)}),
    ):
        with pytest.raises(ValueError):
            from_entry({**entry, **damage}, 2)


def test_few_points_give_the_least_penalised_entropy():
    """Against a literal one: slopes have a spread of 1, a landmark's own offset one of 0.5."""
    confidence, off = drawn(12, lambda c: c**2, seed=3)
    found = fit_calibration(confidence, off, 0.05)
    c = confidence.double().flatten().numpy()
    inputs, kind = np.stack([np.log(c), -np.log1p(-c)], axis=1), np.arange(24) % 2
    centre, scale = inputs.mean(axis=0), inputs.std(axis=0)
    hit = off < 0.05
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


def of_known_errors(count, slope, offsets, noise=0.5, seed=0):
    """Return confidence (N, 2), and errors whose logarithm is a line in that of 1 - confidence."""
    generator = torch.Generator().manual_seed(seed)
    doubt = torch.rand(count, 2, generator=generator) * 0.3 + 0.01
    logs = slope * doubt.log() + torch.tensor(offsets)
    return 1 - doubt, (logs + noise * torch.randn(count, 2, generator=generator)).exp()


def test_the_line_of_errors_is_found_and_their_mean_kept():
    confidence, off = of_known_errors(4000, 0.8, [-2.0, -3.0])
    found = fit_calibration(confidence, off, 0.05)
    slope, *offsets = found.error
    assert slope == pytest.approx(0.8, abs=0.02)
    assert offsets[0] - offsets[1] == pytest.approx(1.0, abs=0.05)
    expected = found.expected_error(confidence)
    assert expected.mean() == pytest.approx(float(off.mean()), rel=1e-4)


@pytest.mark.parametrize("slope", [0.0, -0.8])
def test_more_doubt_always_means_more_error_also_where_all_were_right(slope):
    confidence, off = of_known_errors(20, slope, [-8.0, -8.0])
    found = fit_calibration(confidence, off, 0.05)
    told = found.expected_error(torch.tensor([[0.99, 0.99], [0.9, 0.9], [0.5, 0.5]]))
    assert (told[1:] > told[:-1]).all() and (told > 0).all()


def test_few_points_of_a_landmark_hardly_move_it_from_the_others():
    confidence, off = of_known_errors(60, 0.5, [-3.0, -3.0])
    off[1:, 1], off[0, 1] = torch.nan, 0.9
    _, first, second = fit_calibration(confidence, off, 0.05).error
    assert 0.05 < second - first < 0.5  # its one error is some e^4 times what is usual


def test_what_a_map_is_worth_is_told_by_images_between_those_it_is_fitted_to():
    confidence, off = of_known_errors(400, 1.0, [-2.0, -2.0], noise=0.01)
    worth = crossed_worth(confidence, off, 0.02)
    assert worth["spearman"] > 0.99
    assert 0 < worth["sure"] < 100 and worth["sure_right"] > 90
    confidence, off = of_known_errors(400, 0.0, [-2.0, -2.0])
    assert abs(crossed_worth(confidence, off, 0.02)["spearman"]) < 0.2
    # Of the second half of the pairs the errors are turned round: what one half learns, the other
    # refutes.
    confidence, off = of_known_errors(400, 1.0, [-2.0, -2.0], noise=0.01)
    off[1::2] = 1 / off[1::2]
    assert crossed_worth(confidence, off, 0.02)["spearman"] < 0.9


def test_what_cannot_be_told_is_not_said():
    confidence, off = of_known_errors(6, 0.0, [-2.0, -2.0])
    assert "sure_right" not in crossed_worth(confidence, off, 1e-6)  # none is right
    alike = torch.zeros(6, 2)  # all where they should be; six hits of six are less than 0.9
    assert crossed_worth(confidence, alike, 0.05) == {"sure": 0}
    assert np.isfinite(fit_calibration(confidence, alike, 0.05).error).all()
    off[1:], off[0, 1] = torch.nan, torch.nan
    assert "spearman" not in crossed_worth(confidence, off, 0.05)  # of one point
