"""What a readout finds in images. Letters: B images, A landmarks."""

import math
from typing import NamedTuple

import torch
from torch import Tensor


class Landmarks(NamedTuple):
    """Landmarks of B images.

    Args:
        points: (B, A, 2) in [-1, 1], x before y; -1 and 1 are the centres of the first and the
            last pixel.
        confidence: (B, A) in [0, 1]; NaN where a readout tells none.
    """

    points: Tensor
    confidence: Tensor


def without_confidence(points: Tensor) -> Landmarks:
    """Return points (B, A, 2) of which nothing is said."""
    return Landmarks(points, torch.full(points.shape[:2], math.nan, device=points.device))
