"""Hypercolumns projected to fewer channels by a linear map that was trained [spec 11].

Letters: B images, L maps of one image (deepest first), C channels of the hypercolumn, D after the
projection, H and W rows and columns.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from models.hypercolumn import project_hypercolumn

STAGES = 4  # of an encoder, whose maps are projected
SHAPE = (48, 48)  # of the published hypercolumn, whose place the projection takes


def project(maps: Sequence[Tensor], head: nn.Linear, output_shape: tuple[int, int]) -> Tensor:
    """Return the (B, D, H, W) hypercolumn of L maps, projected: a 1x1 convolution with a bias."""
    projected = project_hypercolumn(maps, head.weight, output_shape)
    return projected + head.bias[:, None, None]


class ProjectedEncoder(nn.Module):
    """An encoder whose features are the projection of its hypercolumn: one dense map.

    To its caller it is an encoder like any other. Its state, and so its digest, is that of the
    encoder and of the projection.

    Args:
        encoder: returns native maps where it is asked for no shape.
        head: from C to D channels.
    """

    map_count = every_map = 1  # of a hypercolumn, which isn't one here

    def __init__(self, encoder: nn.Module, head: nn.Linear) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head

    def forward(
        self,
        x: Tensor,
        layer: int = STAGES,
        use_hypercol: bool = True,
        output_shape: tuple[int, int] | None = None,
    ) -> Tensor:
        """Map images (B, 3, H, W) to (B, D, 48, 48), or to another shape.

        Layer and hypercolumn are those that the projection was trained on, and have no other
        values.
        """
        maps = self.encoder(x, layer, use_hypercol, None)
        return project(maps, self.head, output_shape or SHAPE)

    def feature_channels(self, layer: int, use_hypercol: bool) -> int:
        """Return D."""
        return self.head.out_features
