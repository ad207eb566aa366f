"""The landmark regressor: soft-argmax over learned virtual points [spec 5; Thewlis et al. 2019].

Letters: B images, A annotated landmarks, I virtual ("intermediate") points for each of them,
C feature channels, H and W rows and columns of the map the soft-argmax runs on. Coordinates are
(x, y) in [-1, 1], where -1 and 1 are the centres of the first and the last pixel.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.soft_argmax import hypercolumn_soft_argmax, soft_argmax


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
