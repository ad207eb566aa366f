"""What a readout finds in images. Letters: B images, A landmarks."""

from typing import NamedTuple

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
