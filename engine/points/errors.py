"""Errors of predicted points in pixels, and what is made of them.

Letters: N instances, A named points, V values (the annotated points of all instances), R resamples.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

RESAMPLES, INTERVAL = 1000, (2.5, 97.5)  # of the bootstrap; percentiles of its values
OKS_LEVELS = np.arange(10) * 0.05 + 0.5  # [COCO keypoint evaluation] 0.5, 0.55, ..., 0.95
RECALLS = np.linspace(0, 1, 101)  # [COCO] at which precision is read


class Interval(NamedTuple):
    """A value and between which its bootstrap's values lie, 95 % of them."""

    value: float
    low: float
    high: float


def mean_and_median(
    distances: np.ndarray, groups: Sequence[str] | np.ndarray, seed: int = 0
) -> tuple[Interval, Interval]:
    """Return the mean and the median of all distances, each with its bootstrap interval.

    What belongs together, such as an image's instances, is drawn together: in each of R resamples,
    as many groups as there are, with replacement.

    Args:
        distances: (N, A), NaN where a point isn't annotated; one has to be.
        groups: (N,), what each instance belongs to.
        seed: of the draws.
    """
    rows, points = np.nonzero(~np.isnan(distances))
    values = distances[rows, points]  # (V,)
    _, group_of = np.unique(np.asarray(groups)[rows], return_inverse=True)  # (V,)
    order = np.argsort(values, kind="stable")
    values, group_of = values[order], group_of[order]
    count, rng = int(group_of.max()) + 1, np.random.RandomState(seed % 2**32)
    found = np.empty((RESAMPLES, 2))
    for resample in found:
        drawn = np.bincount(rng.randint(count, size=count), minlength=count)[group_of]  # (V,)
        until = np.cumsum(drawn)
        middle = until[-1] - 1
        low, high = np.searchsorted(until, [middle // 2, (middle + 1) // 2], side="right")
        resample[:] = drawn @ values / until[-1], (values[low] + values[high]) / 2
    (mean_low, median_low), (mean_high, median_high) = np.percentile(found, INTERVAL, axis=0)
    return (
        Interval(float(values.mean()), float(mean_low), float(mean_high)),
        Interval(float(np.median(values)), float(median_low), float(median_high)),
    )


def percentage_right(distances: np.ndarray, allowed: np.ndarray) -> float:
    """Return PCK: the percentage of distances (N, A), NaN aside, of at most ``allowed`` (N,).

    NaN if none can be judged.
    """
    judged = ~np.isnan(distances - allowed[:, None])
    return mean_of(np.where(judged, 100.0 * (distances <= allowed[:, None]), np.nan))


def mean_of(values: np.ndarray) -> float:
    """Return the mean of values, those that are NaN aside; NaN of none."""
    values = values[~np.isnan(values)]
    return float(values.mean()) if values.size else float("nan")


def object_keypoint_similarity(
    distances: np.ndarray, areas: np.ndarray, sigmas: np.ndarray
) -> np.ndarray:
    """Return each instance's OKS (N,) in [0, 1]; NaN without area or annotated point.

    The mean over its annotated points of exp(-d^2 / (2 area (2 sigma)^2)) [COCO keypoint
    evaluation].

    Args:
        distances: (N, A), NaN where a point isn't annotated.
        areas: (N,) in square pixels.
        sigmas: (A,).
    """
    annotated = ~np.isnan(distances)
    with np.errstate(divide="ignore", invalid="ignore"):
        exponents = distances**2 / (2 * areas[:, None] * (2 * sigmas) ** 2)  # (N, A)
        sums = np.where(annotated, np.exp(-exponents), 0).sum(axis=1)
        similarity = sums / annotated.sum(axis=1)
    return np.where(areas > 0, similarity, np.nan)


def average_precision(similarity: np.ndarray, confidence: np.ndarray, level: float) -> float:
    """Return the average precision in percent, where an OKS of ``level`` is right; NaN of none.

    Each prediction belongs to one instance, whose box it was made in: there is nothing to match,
    and none in excess. As COCO reads it: predictions are taken in the order of confidence, equal
    ones in theirs, and precision, made to fall with recall, at 101 recalls.

    Args:
        similarity: (N,), OKS; instances of NaN aren't judged.
        confidence: (N,) of the predictions.
        level: of OKS.
    """
    judged = np.flatnonzero(~np.isnan(similarity))
    if not judged.size:
        return float("nan")
    order = judged[np.argsort(-confidence[judged], kind="stable")]
    right = np.cumsum(similarity[order] >= level)
    precision, recall = right / np.arange(1, len(order) + 1), right / len(order)
    falling = np.maximum.accumulate(precision[::-1])[::-1]
    places = np.searchsorted(recall, RECALLS, side="left")
    return 100 * float(np.append(falling, 0.0)[places].mean())
