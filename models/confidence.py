"""How sure the published regressor is of a landmark, which it doesn't say itself [spec 18].

Letters: B images, A landmarks, I virtual points for each of them, C channels, H and W rows and
columns of the map that the soft-argmax runs on.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.hypercolumn import project_hypercolumn, read_shape
from models.keypoint_prediction import IntermediateKeypointPredictor
from models.ridge import PEAK_RADIUS

SCORES_AT_ONCE = 1 << 24  # numbers of score maps that are held together: 64 MiB


class ConfidentRegressor(nn.Module):
    """The regressor as a module that returns confidence, too.

    A virtual point is the mean place under a softmax. The narrower that is, the surer the point:
    exp(-v / (2 r^2)), where v is the softmax's variance, of x and y together, and r = 0.2. A
    landmark's confidence is the mean over its virtual points, weighted by how far each of them
    moves it.
    """

    def __init__(self, regressor: IntermediateKeypointPredictor) -> None:
        super().__init__()
        self.regressor = regressor

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return the landmarks (B, A, 2) and confidence (B, A) of maps, deepest first."""
        regressor = self.regressor
        shape = read_shape(maps, regressor.map_shape)
        landmarks = regressor.num_annotated_points
        weight = regressor.inner_conv.weight.flatten(1) * regressor.softargmax_mul  # (A * I, C)
        scores = project_hypercolumn(maps, weight, shape)  # (B, A * I, H, W)
        heat = scores.flatten(2).softmax(dim=2).unflatten(2, shape)
        (x, x_variance), (y, y_variance) = (marginal_moments(heat.sum(dim=axis)) for axis in (2, 3))
        points = torch.stack([x, y], dim=2)  # (B, A * I, 2)
        found = regressor.reg_conv(points.flatten(1)[:, :, None, None])  # (B, 2 * A, 1, 1)
        moved = regressor.reg_conv.weight.view(landmarks, 2, -1, 2).square().sum(dim=(1, 3)).sqrt()
        share = moved / moved.sum(dim=1, keepdim=True).clamp(min=1e-12)  # (A, I)
        sure = torch.exp(-(x_variance + y_variance) / (2 * PEAK_RADIUS**2))  # (B, A * I)
        confidence = (sure.unflatten(1, share.shape) * share).sum(dim=2)
        return found.unflatten(1, (landmarks, 2))[..., 0, 0], confidence


def read_with_confidence(
    regressor: IntermediateKeypointPredictor, maps: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """Return what `ConfidentRegressor` does, of a few images at a time."""
    height, width = read_shape(maps, regressor.map_shape)
    at_once = max(1, SCORES_AT_ONCE // (len(regressor.inner_conv.weight) * height * width))
    batches = zip(*(m.split(at_once) for m in maps), strict=True)
    points, confidence = zip(*map(ConfidentRegressor(regressor), batches), strict=True)
    return torch.cat(points), torch.cat(confidence)


def marginal_moments(marginal: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and variance of places in [-1, 1] with probabilities (B, K, n), (B, K) each."""
    places = torch.linspace(-1, 1, marginal.shape[2]).to(marginal)
    mean = marginal @ places
    return mean, (marginal @ places.square() - mean.square()).clamp(min=0)
