"""What a readout's confidence is worth: the probability that a point is near the truth [spec 18].

The map is that of Kull, Silva Filho and Flach (2017), beta calibration: the log odds of a hit are
a ln(c) - b ln(1 - c) + an offset, where c is the readout's own confidence and neither a nor b is
negative, so that more confidence never means less probability. Each landmark has an offset of its
own beside the common one. Letters: M points of images that weren't trained on, A landmarks.
"""

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
LEAST_POINTS = 10  # from which there is a map


class Calibration(NamedTuple):
    """A map from a readout's own confidence to the probability of a hit.

    Args:
        slopes: a and b.
        offsets: (A,), the common offset and the landmark's own.
        distance: a hit is a point within this fraction of the diagonal of what was shown.
        points: M.
    """

    slopes: Sequence[float]
    offsets: list[float]
    distance: float
    points: int

    def __call__(self, confidence: Tensor) -> Tensor:
        """Return probabilities (..., A) for confidence (..., A)."""
        certain = confidence.clamp(CLIP, 1 - CLIP)
        rising, falling = self.slopes
        odds = rising * certain.log() - falling * (1 - certain).log()
        return (odds + torch.tensor(self.offsets, dtype=odds.dtype, device=odds.device)).sigmoid()


def fit_calibration(
    confidence: Tensor, hit: Tensor, judged: Tensor, distance: float
) -> Calibration:
    """Return the map under which hits of held-out images are most probable.

    One hit and one miss are added, so that no probability is 0 or 1 however many hits there were.

    Args:
        confidence: (N, A), the readout's own.
        hit: (N, A), bool.
        judged: (N, A), bool; False where a point isn't annotated.
        distance: see `Calibration`.
    """
    landmarks = confidence.shape[1]
    rows = judged.numpy()
    certain = confidence.double().numpy()[rows].clip(CLIP, 1 - CLIP)  # (M,)
    hits, kind = hit.numpy()[rows], np.nonzero(rows)[1]
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
    return Calibration(slopes.tolist(), offsets.tolist(), distance, count)


def from_entry(entry: Any, landmarks: int) -> Calibration:
    """Return the map that a checkpoint's entry holds, a dictionary of its fields.

    Raises:
        ValueError: if it is no such entry; also of the kinds `KeyError` and `TypeError`.
    """
    slopes, offsets = ([float(value) for value in entry[name]] for name in ("slopes", "offsets"))
    distance = float(entry["distance"])
    if len(slopes) != 2 or len(offsets) != landmarks or min(slopes) < 0:
        raise ValueError("out of range")
    if not np.isfinite([*slopes, *offsets, distance]).all():
        raise ValueError("not finite")
    return Calibration(slopes, offsets, distance, int(entry["points"]))
