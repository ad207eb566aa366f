"""Where landmarks probably are, given what an image looks like at a coarse resolution.

[spec 12; Hoerl and Kennard 1970 for the ridge; Allen 1974 for its leave-one-out errors; Ledoit and
Wolf 2004 for the covariance.] Letters: B images, N training images, A landmarks, C channels of all
maps together, D = 36 C numbers of an image. Points are (x, y) in [-1, 1].
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from sklearn.covariance import LedoitWolf
from torch import Tensor

GRID = 6  # rows and columns that each map is averaged over
PENALTIES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 10.0, math.inf)  # the last: the mean shape
SPREAD = 0.3  # standard deviation of a landmark before any image is seen
LEAST_SHAPES = 3  # from which a covariance, or a regression, can be told


class ShapePrior(NamedTuple):
    """A normal distribution of shapes whose mean is linear in the coarse look of an image.

    Args:
        weight: (2 A, D).
        centre: (D,), taken from an image's coarse look first.
        mean: (A, 2), the shape at the centre.
        covariance: (2 A, 2 A), of the shapes around their means.
    """

    weight: Tensor
    centre: Tensor
    mean: Tensor
    covariance: Tensor

    def expected(self, coarse: Tensor) -> Tensor:
        """Return the mean shapes (B, A, 2) of images that look like (B, D)."""
        offset = (coarse - self.centre) @ self.weight.t()  # (B, 2 A)
        return self.mean + offset.unflatten(1, (-1, 2))


def coarse_look(maps: Sequence[Tensor]) -> Tensor:
    """Return maps (B, C of each, h, w), each averaged over 6x6 parts of the image, as (B, D)."""
    return torch.cat([F.adaptive_avg_pool2d(m, GRID).flatten(1) for m in maps], dim=1)


def fit_shape(coarse: Tensor, points: Tensor, visible: Tensor) -> ShapePrior:
    """Return the prior that is fitted to training images.

    The ridge regression is solved for N unknowns, not D: it takes N^2 D products and N^3. Its
    penalty, relative to the mean square of what images look like, is the one with the least error
    on each image when all others are fitted to, which has a closed form. The covariance is that of
    these errors, so it is honest where there are few images, too.

    Args:
        coarse: (N, D).
        points: (N, A, 2).
        visible: (N, A), bool. A landmark that an image doesn't show is taken to be at its mean
            there; one that no image shows, in the middle.
    """
    count, landmarks = visible.shape
    shown = visible[..., None]
    mean = (points * shown).sum(dim=0) / visible.sum(dim=0).clamp(min=1)[:, None]  # (A, 2)
    off = torch.where(shown, points - mean, 0).flatten(1).double()  # (N, 2 A)
    centre = coarse.mean(dim=0)
    look = coarse - centre  # (N, D)
    vague = SPREAD**2 * torch.eye(2 * landmarks, dtype=torch.float64)
    if count < LEAST_SHAPES:
        return ShapePrior(torch.zeros(2 * landmarks, len(centre)), centre, mean, vague.float())
    kernel = (look @ look.t()).double()
    scale = kernel.diagonal().mean().clamp(min=1e-12)  # of blank images 0
    values, vectors = torch.linalg.eigh(kernel / scale)
    values, spectrum = values.clamp(min=0), vectors.t() @ off  # (N,), (N, 2 A)

    def errors(penalty: float) -> Tensor:
        """Return each image's error when the others are fitted to, (N, 2 A)."""
        kept = values / (values + penalty)  # (N,)
        own = vectors.square() @ kept + 1 / count  # (N,): the mean is fitted, too
        left = off - vectors @ (kept[:, None] * spectrum)
        return left / (1 - own).clamp(min=1e-6)[:, None]

    penalty = min(
        PENALTIES,
        key=lambda p: float((errors(p) * shown.expand_as(points).flatten(1)).square().sum()),
    )
    weight = look.t() @ (vectors @ (spectrum / (values + penalty)[:, None]) / scale).to(look)
    found = torch.from_numpy(
        LedoitWolf(assume_centered=True).fit(errors(penalty).numpy()).covariance_
    )
    # A mean with the vague covariance, which weighs 1 / (N^2 + 1): hardly anything for large N.
    covariance = (count**2 * found + vague) / (count**2 + 1)
    return ShapePrior(weight.t().contiguous(), centre, mean, covariance.float())
