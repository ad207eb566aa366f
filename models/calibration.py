"""What a readout's confidence is worth: the probability that a point is near the truth [spec 18].

The map is that of Kull, Silva Filho and Flach (2017), beta calibration: the log odds of a hit are
a ln(c) - b ln(1 - c) + an offset, where c is the readout's own confidence and neither a nor b is
negative, so that more confidence never means less probability. Each landmark has an offset of its
own beside the common one. Letters: M points of images that weren't trained on, A landmarks.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

CLIP = 1e-4  # confidence nearer to 0 or 1 than this counts as this
# Standard deviations of normal priors, in log odds: of what a standardised confidence changes, and
# of a landmark's own offset. With few points these keep the map near the common rate of hits.
SLOPE_SPREAD, OFFSET_SPREAD = 1.0, 0.5
SURE = 0.9  # a probability
LEAST_POINTS = 10  # from which there is a map
# Of expected errors: spreads of an error's logarithm around what is expected and of a landmark's
# own offset; the slopes between which it is; the least error, as a fraction of the diagonal.
LOG_SPREAD, LOG_OFFSET_SPREAD, SLOPES, LEAST_ERROR = 0.7, 0.15, (0.1, 1.0), 1e-4


class Calibration(NamedTuple):
    """Maps from a readout's own confidence to the probability of a hit, and to the error.

    Args:
        slopes: a and b.
        offsets: (A,), the common offset and the landmark's own.
        distance: a hit is a point within this fraction of the diagonal of what was shown.
        points: M.
        error: the expected distance from the truth is exp(o) (1 - c)^s, as a fraction of that
            diagonal: s, and each landmark's o. Empty where an earlier version made no such map.
    """

    slopes: Sequence[float]
    offsets: list[float]
    distance: float
    points: int
    error: tuple[float, ...] = ()

    def __call__(self, confidence: Tensor) -> Tensor:
        """Return probabilities (..., A) for confidence (..., A)."""
        certain = confidence.clamp(CLIP, 1 - CLIP)
        rising, falling = self.slopes
        odds = rising * certain.log() - falling * (1 - certain).log()
        return (odds + torch.tensor(self.offsets, dtype=odds.dtype, device=odds.device)).sigmoid()

    def expected_error(self, confidence: Tensor) -> Tensor:
        """Return fractions of the diagonal (..., A) for confidence (..., A); NaN if none is known.

        It ranks a landmark's points as the confidence does, also where all were hits.
        """
        if not self.error:
            return torch.full_like(confidence, torch.nan)
        slope, *offsets = self.error
        doubt = (1 - confidence).clamp(CLIP, 1 - CLIP).log()
        return (slope * doubt + torch.tensor(offsets).to(doubt)).exp()


def fit_calibration(confidence: Tensor, off: Tensor, distance: float) -> Calibration:
    """Return the maps under which the errors in held-out images are most probable.

    One hit and one miss are added, so that no probability is 0 or 1 however many hits there were.

    Args:
        confidence: (N, A), the readout's own.
        off: (N, A), how far its points are from the truth, as a fraction of the diagonal; NaN where
            a point isn't annotated.
        distance: see `Calibration`.
    """
    landmarks = confidence.shape[1]
    rows = ~off.isnan().numpy()
    certain = confidence.double().numpy()[rows].clip(CLIP, 1 - CLIP)  # (M,)
    errors, kind = off.double().numpy()[rows], np.nonzero(rows)[1]
    error = fit_error(np.log(1 - certain), errors, kind, landmarks)
    hits = errors <= distance
    inputs = np.stack([np.log(certain), -np.log1p(-certain)], axis=1)  # (M, 2)
    centre, scale = inputs.mean(axis=0), inputs.std(axis=0) + 1e-6
    count, wins = len(hits), int(hits.sum())
    # Platt (1999): what would be 1 and 0 are the rates that one more hit and one more miss leave.
    targets = np.where(hits, (wins + 1) / (wins + 2), 1 / (count - wins + 2))
    inputs = (inputs - centre) / scale
    # Of two slopes, the common offset and A own ones.
    precision = np.array([SLOPE_SPREAD**-2] * 2 + [0.0] + [OFFSET_SPREAD**-2] * landmarks)

    def loss(values: np.ndarray) -> tuple[float, np.ndarray]:
        """Return the penalised cross-entropy and its gradient."""
        odds = inputs @ values[:2] + values[2] + values[3:][kind]
        off = 1 / (1 + np.exp(-odds)) - targets
        gradient = precision * values
        gradient[:2] += inputs.T @ off
        gradient[2] += off.sum()
        gradient[3:] += np.bincount(kind, off, landmarks)
        entropy = np.logaddexp(0, odds).sum() - targets @ odds
        return float(entropy + 0.5 * precision @ values**2), gradient

    bounds = [(0, None)] * 2 + [(-30, 30)] * (1 + landmarks)
    start = np.zeros(3 + landmarks)
    chosen = minimize(loss, start, jac=True, bounds=bounds, method="L-BFGS-B").x
    slopes = chosen[:2] / scale
    offsets = chosen[2] + chosen[3:] - slopes @ centre
    return Calibration(slopes.tolist(), offsets.tolist(), distance, count, error)


def fit_error(
    doubt: np.ndarray, errors: np.ndarray, kind: np.ndarray, landmarks: int
) -> tuple[float, ...]:
    """Return the slope and the offsets of `Calibration`'s ``error``.

    The logarithm of the error is a line in that of the doubt, with an offset of each landmark's
    own beside the common one, by ridge regression with the spreads above; the slope is one of
    `SLOPES`, so that more doubt always means more error, at most in proportion. The errors' mean is
    kept.

    Args:
        doubt: (M,), logarithm of 1 minus the confidence.
        errors: (M,), as a fraction of the diagonal.
        kind: (M,), the landmark's number.
        landmarks: A.
    """
    errors = errors.clip(LEAST_ERROR)
    logs = np.log(errors)
    own = np.eye(landmarks)[kind]  # (M, A)
    prior = np.diag([0.0, *[LOG_SPREAD**2 / LOG_OFFSET_SPREAD**2] * landmarks])

    def offsets_of(left: np.ndarray) -> np.ndarray:
        columns = np.column_stack([np.ones(len(left)), own])
        found = np.linalg.solve(columns.T @ columns + prior, columns.T @ left)
        return found[0] + found[1:]  # (A,)

    # What the landmarks alone leave of both says the slope, as far as there is something left.
    rest, said = (values - offsets_of(values)[kind] for values in (doubt, logs))
    slope = float((rest @ said / (rest @ rest + LOG_SPREAD**2)).clip(*SLOPES))
    offsets = offsets_of(logs - slope * doubt)
    offsets += np.log(errors.mean() / np.exp(slope * doubt + offsets[kind]).mean())
    return slope, *offsets.tolist()


def crossed_worth(confidence: Tensor, off: Tensor, distance: float) -> dict[str, float]:
    """Return how well such a map tells the errors of images that it wasn't fitted to.

    It is fitted to every other image, and judged by those between, and the reverse; for the
    arguments see `fit_calibration`.

    Returns:
        ``spearman``, the correlation of the ranks of expected and true errors; and, of the points
        that are right with a probability of 0.9 or more, ``sure``, the percentage that these are,
        and ``sure_right``, the percentage of these that is right; what can't be told isn't there.
    """
    from scipy.stats import spearmanr  # slow to import, and not needed to predict

    expected, probability = torch.full_like(off, torch.nan), torch.full_like(off, torch.nan)
    for half in (slice(0, None, 2), slice(1, None, 2)):
        if len(off[half]) and not off[half].isnan().all():
            rest = slice(1 - half.start, None, 2)
            fitted = fit_calibration(confidence[half], off[half], distance)
            expected[rest] = fitted.expected_error(confidence[rest]).to(off)
            probability[rest] = fitted(confidence[rest]).to(off)
    known = ~(off.isnan() | expected.isnan())
    found, true, sure = expected[known], off[known], probability[known] >= SURE
    several = min(len(values.unique()) for values in (found, true)) > 1
    told = {
        "spearman": float(spearmanr(found, true)[0]) if several else math.nan,
        "sure": 100 * float(sure.double().mean()),
        "sure_right": 100 * float((true[sure] <= distance).double().mean()),
    }
    return {name: value for name, value in told.items() if not math.isnan(value)}


def from_entry(entry: Any, landmarks: int) -> Calibration:
    """Return the map that a checkpoint's entry holds, a dictionary of its fields.

    Raises:
        ValueError: if it is no such entry; also of the kinds `KeyError` and `TypeError`.
    """
    slopes, offsets = ([float(value) for value in entry[name]] for name in ("slopes", "offsets"))
    distance, error = float(entry["distance"]), tuple(map(float, entry.get("error", ())))
    numbers = [*slopes, *offsets, distance, *error]
    if len(slopes) != 2 or len(offsets) != landmarks or min(slopes) < 0:
        raise ValueError("out of range")
    if len(error) not in (0, 1 + landmarks) or not np.isfinite(numbers).all():
        raise ValueError("not finite")
    return Calibration(slopes, offsets, distance, int(entry["points"]), error)
