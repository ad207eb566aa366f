"""Landmarks from heatmaps of a network that is trained as a whole.

[spec 14.] Letters: B images, A landmarks, C channels of an encoder's maps together, h and w rows
and columns of a heatmap, P = h * w its cells. Points are (x, y) in [-1, 1], where -1 and 1 are the
centres of the first and the last pixel.
"""

from collections.abc import Mapping, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from models.encoders import Encoder
from models.projection import project
from models.ridge import PEAK_RADIUS, cell_places

HIDDEN = 64  # channels within the head


class HeatmapHead(nn.Module):
    """A small network from an encoder's maps to one heatmap a landmark, at the finest map's cells.

    A 1x1 convolution of the maps, all at the size of the finest one; batch norm and ReLU; and a
    3x3 convolution.

    Args:
        channels: C.
        landmarks: A.
        side: of the images, in pixels.

    Attributes:
        expects_distance: whether the confidence is 1 minus the distance from the point that its
            heatmap lets expect, in half sides; else it is the probability around the point, as
            heads of earlier versions have it.
    """

    def __init__(self, channels: int, landmarks: int, side: int) -> None:
        super().__init__()
        self.side, self.expects_distance = side, True
        self.lateral = nn.Linear(channels, HIDDEN)  # of each place: a 1x1 convolution
        self.norm = nn.BatchNorm2d(HIDDEN)
        self.output = nn.Conv2d(HIDDEN, landmarks, 3, padding=1)

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return the landmarks (B, A, 2) and the confidence (B, A) in [0, 1] in each.

        Args:
            maps: (B, C of each, h of each, w of each), deepest first.
        """
        log_probability, places = self.heatmaps(maps)
        probability = log_probability.exp()
        points, confidence = read_peak(probability, places)
        if self.expects_distance:
            off = (places - points[:, :, None]).norm(dim=3)  # (B, A, P)
            confidence = 1 - (probability * off).sum(dim=2).clamp(max=1)
        return points, confidence

    def heatmaps(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return log probabilities (B, A, P) and the places (P, 2) of their cells."""
        height, width = maps[-1].shape[2:]
        hidden = F.relu(self.norm(project(maps, self.lateral, (height, width))))
        scores = self.output(hidden).flatten(2).float()  # (B, A, P)
        places = cell_places((height, width), self.side, scores)
        return scores.log_softmax(dim=2), places


def head_levels(encoder: Encoder, weights: Mapping[str, object] | None = None) -> tuple[int, ...]:
    """Return the numbers of the maps that a head takes: all of them.

    Of a head whose ``weights`` are given, it is as many of the deepest maps as fit these: a head
    of an earlier version takes the four stages alone.
    """
    lateral = (weights or {}).get("lateral.weight")
    channels = lateral.shape[-1] if isinstance(lateral, Tensor) and lateral.dim() else None
    deepest = (encoder.levels[: n + 1] for n in range(len(encoder.levels)))
    fits = (levels for levels in deepest if encoder.feature_channels(levels) == channels)
    return next(fits, encoder.levels)


def read_peak(probability: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
    """Return points (B, A, 2) and their confidence (B, A).

    A point is the mean of the cells around the most probable one, weighted by their probabilities.
    The confidence is the sum of these.

    Args:
        probability: (B, A, P), whose sum over P is 1.
        places: (P, 2).
    """
    best = places[probability.argmax(dim=2, keepdim=True)]  # (B, A, 1, 2)
    near = (best - places).square().sum(dim=3) < PEAK_RADIUS**2  # (B, A, P)
    weights = probability * near
    confidence = weights.sum(dim=2)
    return (weights @ places) / confidence[..., None], confidence
