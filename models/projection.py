"""Hypercolumns projected to fewer channels by a linear map that was trained [spec 11].

Letters: B images, L maps of one image (deepest first), C channels of the hypercolumn, D after the
projection, H and W rows and columns.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from models.hypercolumn import SHAPE, project_hypercolumn

STAGES = 4  # of an encoder, whose maps are projected


def project(maps: Sequence[Tensor], head: nn.Linear, output_shape: tuple[int, int]) -> Tensor:
    """Return the (B, D, H, W) hypercolumn of L maps, projected: a 1x1 convolution with a bias."""
    projected = project_hypercolumn(maps, head.weight, output_shape)
    return projected + head.bias[:, None, None]


class ProjectedEncoder(nn.Module):
    """An encoder whose features are the projection of its hypercolumn: one dense map.

    To its caller it is an encoder like any other. Its state, and so its digest, is that of the
    encoder and of the projection.

    Args:
        encoder: whose maps are projected.
        head: from C to D channels.
        projected: numbers of the maps, deepest first.
    """

    levels = (1,)  # its map, whatever is asked for

    def __init__(self, encoder: nn.Module, head: nn.Linear, projected: Sequence[int]) -> None:
        super().__init__()
        self.encoder, self.head, self.projected = encoder, head, projected

    def forward(self, x: Tensor, *, levels: Sequence[int]) -> list[Tensor]:
        """Map images (B, 3, H, W) to a list of one map (B, D, 48, 48)."""
        return [project(self.encoder(x, levels=self.projected), self.head, SHAPE)]

    def feature_channels(self, levels: Sequence[int]) -> int:
        """Return D."""
        return self.head.out_features
