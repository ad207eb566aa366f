"""Losses of the landmark regressor [spec 5]. Letters: B images, A landmarks.

Points are (B, A, 2), x before y, in [-1, 1]; ``visible`` is (B, A), bool.
"""

import torch.nn.functional as F
from torch import Tensor


def regression_loss(pred: Tensor, gt: Tensor, alpha: float = 10.0) -> Tensor:
    """Return the smooth-L1 distance of ``alpha * pred`` and ``alpha * gt``, mean over everything.

    The loss turns from quadratic to linear at a distance of 1 / alpha.
    """
    return F.smooth_l1_loss(pred * alpha, gt * alpha)


def selected_regression_loss(
    pred: Tensor, gt: Tensor, visible: Tensor, alpha: float = 10.0
) -> Tensor:
    """Return `regression_loss` with invisible points zeroed on both sides, inputs left alone.

    The mean still runs over all points, so an image with few visible ones weighs less [spec 5].
    """
    hidden = ~visible.bool().unsqueeze(-1)  # (B, A, 1)
    return regression_loss(pred.masked_fill(hidden, 0), gt.masked_fill(hidden, 0), alpha)


def heatmap_loss(
    log_probability: Tensor, places: Tensor, points: Tensor, visible: Tensor, width: float
) -> Tensor:
    """Return how far heatmaps are from a Gaussian, and their expected places from the points.

    [spec 14] Cross-entropy plus the L1 distance, mean over the visible landmarks; 0 without any.

    Args:
        log_probability: (B, A, P), over P cells.
        places: (P, 2), of the cells, x before y.
        points: the true ones; where invisible, any finite number.
        visible: the annotated ones.
        width: standard deviation of the Gaussian, in the unit of the places.
    """
    distance = (points[:, :, None] - places).square().sum(dim=3)  # (B, A, P)
    target = (-distance / (2 * width**2)).softmax(dim=2)
    cross_entropy = -(target * log_probability).sum(dim=2)  # (B, A)
    off = (log_probability.exp() @ places - points).abs().sum(dim=2)  # (B, A)
    shown = visible.to(off)
    return ((cross_entropy + off) * shown).sum() / shown.sum().clamp(min=1)
