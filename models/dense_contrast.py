"""Dense contrast: each place of one view must find itself in the other.

[spec 11; Cheng et al., arXiv:2006.14787 v2; van den Oord et al. 2018 for
InfoNCE.] Letters: B images, N places of an image, D dimensions of an embedding, h and w rows and
columns of the embedding's map, M = h * w its cells. Places are (x, y) in [-1, 1], where -1 and 1
are the outer edges of the first and the last cell.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.encoders import freeze
from models.projection import STAGES, project
from models.resnet import InsResNet
from models.timm_encoder import TimmEncoder

STRIDE = 4  # of the embedding's map, in pixels of the view


Trainable = InsResNet | TimmEncoder


class DenseEmbedding(nn.Module):
    """An encoder and a linear head on its deepest maps: a unit vector for every fourth pixel.

    The head is a projection of the hypercolumn (see `models.projection`). Where the encoder is
    trained, too, it may be left out afterwards: landmarks are found in the encoder's own maps.

    Args:
        encoder: its four deepest maps are embedded, or as many as it has; what none of them
            depends on takes no part and gets no gradient.
        dimensions: D.
        frozen: train the head alone; the encoder stays in eval mode, and as it is.
    """

    def __init__(self, encoder: Trainable, dimensions: int, frozen: bool = False) -> None:
        super().__init__()
        self.encoder, self.frozen = encoder, frozen
        self.levels = encoder.levels[:STAGES]
        if frozen:
            freeze(encoder)  # nothing in it wants a gradient, so autograd keeps none of its maps
        else:
            for parameter in encoder.unused_parameters(self.levels):
                parameter.requires_grad_(False)
        channels = [encoder.feature_channels([level]) for level in self.levels]
        self.head = nn.Linear(sum(channels), dimensions)  # of each place: a 1x1 convolution
        # As if each map had its own: a shallow one, of few channels, then counts as much as others.
        for part in self.head.weight.split(channels, dim=1):
            nn.init.uniform_(part, -(part.shape[1] ** -0.5), part.shape[1] ** -0.5)

    def train(self, mode: bool = True) -> "DenseEmbedding":
        """Set the mode of all but a frozen encoder."""
        super().train(mode)
        self.encoder.train(mode and not self.frozen)
        return self

    def forward(self, views: Tensor) -> Tensor:
        """Embed views (B, 3, H, W) as unit vectors (B, D, H / 4, W / 4)."""
        maps = self.encoder(views, levels=self.levels)
        return self.project(maps, (views.shape[2] // STRIDE, views.shape[3] // STRIDE))

    def project(self, maps: Sequence[Tensor], shape: tuple[int, int]) -> Tensor:
        """Return the embedding (B, D, h, w) of the encoder's maps, deepest first."""
        return F.normalize(project(maps, self.head, shape).float(), dim=1)


def cell_centres(height: int, width: int) -> Tensor:
    """Return the places (M, 2) of the centres of a map's cells, x running fastest."""
    x = (torch.arange(width) + 0.5) * 2 / width - 1
    y = (torch.arange(height) + 0.5) * 2 / height - 1
    return torch.cartesian_prod(y, x).flip(1)


def draw_cells(
    views: Tensor, shape: tuple[int, int], count: int, detail: float, generator: torch.Generator
) -> Tensor:
    """Return random cells (B, count), int64, as the queries of views (B, 3, H, W).

    Args:
        views: in any units.
        shape: h and w of the embedding's map.
        count: N, with replacement.
        detail: fraction that is drawn where there is something to see, in proportion to the
            variance of the colours of 3x3 cells around; the rest has the same chance everywhere.
        generator: on the CPU.
    """
    total = shape[0] * shape[1]
    if detail == 0:
        drawn = torch.randint(total, (len(views), count), generator=generator)
        return drawn.to(views.device, non_blocking=True)
    number = torch.rand(len(views), count, generator=generator)  # (B, N)
    variance = local_variance(views, shape).flatten(1)  # (B, M)
    whole = variance.sum(dim=1, keepdim=True)
    even = torch.full_like(variance, 1 / total)
    chance = torch.where(whole > 0, detail * variance / whole + (1 - detail) * even, even)
    below = chance.double().cumsum(dim=1)  # (B, M)
    number = number.to(below, non_blocking=True) * below[:, -1:]
    return torch.searchsorted(below, number, right=True).clamp(max=total - 1)


def local_variance(views: Tensor, shape: tuple[int, int]) -> Tensor:
    """Return the variance of colours, summed, of the 3x3 cells around each, (B, h, w)."""
    colours = F.adaptive_avg_pool2d(views.float(), shape)  # (B, 3, h, w)
    colours = colours - colours.mean(dim=(2, 3), keepdim=True)  # its square loses less to rounding
    mean, square = (
        F.avg_pool2d(values, 3, stride=1, padding=1, count_include_pad=False)
        for values in (colours, colours.square())
    )
    return (square - mean.square()).clamp(min=0).sum(dim=1)


def dense_contrast(
    query: Tensor,
    key: Tensor,
    cells: Tensor,
    places: Tensor,
    counts: Tensor,
    shown: Tensor,
    temperature: float,
    radius: float,
) -> tuple[Tensor, Tensor]:
    """Return the loss of finding places of one view in the other, and how often they are found.

    A query's positive is the other view's embedding at the same place of the image; its negatives
    are the cells of that view further than ``radius`` from there. The time and memory are those
    of B * N * M logits.

    Args:
        query: (B, D, h, w), unit vectors of the one view.
        key: (B, D, h, w), of the other.
        cells: (B, N), int64, of the one view, of which each is a query.
        places: (B, N, 2), where the other view shows the centres of these.
        counts: (B, N), bool; False where it doesn't, or where there is nothing to see.
        shown: (B, M), bool; the cells of the other view that show the image. Those beyond its
            borders show it mirrored, maybe the very place: they are no negatives.
        temperature: of the softmax.
        radius: in half sides of the view; nearer cells are no negatives.

    Returns:
        Two means over images, scalars: the loss, of which each image's is the mean over its
        queries that count, and the fraction of them that are nearer to their positive than to
        any negative. An image without any counts as 0.
    """
    height, width = key.shape[2:]
    centres = cell_centres(height, width).to(places)  # (M, 2)
    q = query.flatten(2).transpose(1, 2)  # (B, M, D)
    q = q.gather(1, cells[:, :, None].expand(-1, -1, q.shape[2])) / temperature  # (B, N, D)
    sampled = F.grid_sample(key, places[:, :, None], align_corners=False)  # (B, D, N, 1)
    right = F.normalize(sampled[..., 0].transpose(1, 2), dim=2)  # (B, N, D)
    positive = (q * right).sum(dim=2)  # (B, N)
    negative = q @ key.flatten(2)  # (B, N, M); passes over it are what the objective costs
    # Squared distances, but for |place|^2, which is on the other side.
    off = centres.square().sum(dim=1) - 2 * places @ centres.t()  # (B, N, M)
    near = off < radius**2 - places.square().sum(dim=2, keepdim=True)
    # Finite, so that a query without negatives has a gradient: 0.
    negative.masked_fill_(near | ~shown[:, None], torch.finfo(negative.dtype).min / 2)
    loss = F.softplus(negative.logsumexp(dim=2) - positive)  # (B, N)
    found = positive > negative.detach().amax(dim=2)  # (B, N)
    weights = counts / counts.sum(dim=1, keepdim=True).clamp(min=1)  # (B, N)
    return (loss * weights).sum(dim=1).mean(), (found * weights).sum(dim=1).mean()
