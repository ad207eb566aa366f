"""The landmark regressor: soft-argmax over learned virtual points [spec 5; Thewlis et al. 2019].

It doesn't say itself how sure it is of a landmark; that is read from its softmaxes [spec 18].
Letters: B images, A annotated landmarks, I virtual ("intermediate") points for each of them,
C feature channels, H and W rows and columns of the map the soft-argmax runs on. Coordinates are
(x, y) in [-1, 1], where -1 and 1 are the centres of the first and the last pixel.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.hypercolumn import project_hypercolumn, read_shape
from models.ridge import PEAK_RADIUS
from models.soft_argmax import hypercolumn_soft_argmax, soft_argmax

SCORES_AT_ONCE = 1 << 24  # numbers of score maps that are held together: 64 MiB


class IntermediateKeypointPredictor(nn.Module):
    """Find each landmark as a linear function of I soft-argmax points of its own.

    ``descriptors`` and ``linear`` take no part in the computation and get no gradient. They are
    in the published state dict, and their places among the parameters fix the numbering of the
    published optimizer states, so they are here too.

    Args:
        descriptor_dimension: C, channels of the features (of all maps together).
        num_annotated_points: A.
        num_intermediate_points: I.
        softargmax_mul: inverse temperature of the softmax.
        map_shape: (H, W) of the hypercolumn of the maps that are given; None for a single map,
            which is read at its own size.
    """

    def __init__(
        self,
        descriptor_dimension: int,
        num_annotated_points: int,
        num_intermediate_points: int,
        softargmax_mul: float = 50.0,
        map_shape: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        self.num_annotated_points = a = num_annotated_points
        self.num_intermediate_points = i = num_intermediate_points
        self.softargmax_mul, self.map_shape = softargmax_mul, map_shape
        self.descriptors = nn.Parameter(torch.randn(a * i, descriptor_dimension, 1, 1))
        self.inner_conv = nn.Conv2d(descriptor_dimension, a * i, 1, bias=False)
        self.reg_conv = nn.Conv2d(2 * a * i, 2 * a, 1, groups=a, bias=False)
        linears = [nn.Linear(2 * i, 2, bias=False) for _ in range(a)]
        self.linear = nn.ModuleList(linears)
        with torch.no_grad():
            self.inner_conv.weight.copy_(self.descriptors)
            weights = torch.cat([linear.weight for linear in linears])  # (2 * A, 2 * I)
            self.reg_conv.weight.copy_(weights[:, :, None, None])

    def forward(self, features: Tensor | Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Predict the landmarks.

        Args:
            features: native maps (B, C, h, w), deepest first; or, as published, the one map or
                hypercolumn (B, C, H, W). Both give the same numbers, native maps much faster.

        Returns:
            Landmarks (B, A, 2) and virtual points (B, A, I, 2), in [-1, 1], x before y.
        """
        weight = self.inner_conv.weight.flatten(1) * self.softargmax_mul  # (A * I, C)
        if self.map_shape is None or isinstance(features, Tensor):
            dense = features if isinstance(features, Tensor) else features[0]
            scores = F.conv2d(dense, weight[:, :, None, None])  # (B, A * I, H, W)
            points = soft_argmax(scores)  # (B, A * I, 2)
        else:
            points = hypercolumn_soft_argmax(features, weight, self.map_shape)
        batch = points.shape[0]
        pred = self.reg_conv(points.reshape(batch, -1, 1, 1))  # (B, 2 * A, 1, 1): x1, y1, x2, ...
        return (
            pred.view(batch, self.num_annotated_points, 2),
            points.view(batch, self.num_annotated_points, self.num_intermediate_points, 2),
        )


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
