"""Landmarks by ridge regression of heatmaps: a readout in closed form.

[spec 12; Hoerl and Kennard 1970 for the ridge; Cootes et al. 1995 for shapes as a normal
distribution, here around what `models.shape_prior` expects.] Letters: B images, A landmarks, L maps
of an image (deepest first), C channels of all maps together, h and w a map's native rows and
columns, n rows and columns of a heatmap, P = n * n its cells, K heatmaps. Points are (x, y) in
[-1, 1], where -1 and 1 are the centres of the first and the last pixel.
"""

from collections.abc import Sequence
from itertools import combinations_with_replacement
from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.hypercolumn import project_hypercolumn, read_shape, resize_matrix
from models.shape_prior import GRID, ShapePrior, coarse_look
from utils.errors import InputError

ROUNDS = 2  # of reading each landmark given the others
PEAK_RADIUS = 0.2  # of what counts as one peak, in half sides of the image
# Of a heatmap where confidence is read. The sharpness that finds landmarks best says of nearly each
# that it is certain.
CONFIDENT_SHARPNESS = 30.0
NUMBERS_AT_ONCE = 1 << 21  # cells of all landmarks of the images that are read together
FLOOR = 1e-4  # of a variance: a hundredth of the half side, squared


def cell_axis(cells: int, side: int) -> Tensor:
    """Return where the centres of heatmap cells lie along an image of ``side`` pixels."""
    edges = (torch.arange(cells, dtype=torch.float64) + 0.5) * 2 / cells - 1  # from edge to edge
    return edges * side / (side - 1)


def cell_places(shape: tuple[int, int], side: int, like: Tensor) -> Tensor:
    """Return where the cells of a heatmap of (rows, columns) lie, (P, 2), row by row.

    ``side`` is that of the images in pixels, ``like`` has the type and device.
    """
    y, x = (cell_axis(size, side).to(like) for size in shape)
    down, across = torch.meshgrid(y, x, indexing="ij")
    return torch.stack([across.flatten(), down.flatten()], dim=1)


class NormalEquations:
    """Sums over all cells of all hypercolumns: what a ridge regression of heatmaps depends on.

    Hypercolumns are never made. A cell of one is a product of native maps X with the matrices U
    that resize them, so the sum over cells of the products of two maps' channels is
    ``X.T @ (U.T @ V) @ Y``, where ``U.T @ V`` has the size of the native maps and is separable.
    At 48x48 and ResNet-18 that is a hundredth of the work. Memory doesn't depend on the number of
    images: C * (C + K) float64 numbers.

    Args:
        channels: of each map, deepest first.
        heatmaps: K.
        cells: n.
        side: of the images, in pixels.
        offset: (C,), near the mean of each channel, which is taken from it. Some encoders have
            channels whose mean is hundreds of times their deviation: products of them as they are
            would leave nothing of it in float32.
    """

    def __init__(
        self,
        channels: Sequence[int],
        heatmaps: int,
        cells: int,
        side: int,
        offset: Tensor | None = None,
    ) -> None:
        self.channels, self.cells, self.side = list(channels), cells, side
        total = sum(channels)
        self.offset = torch.zeros(total) if offset is None else offset
        self.count = 0  # cells of all images
        self.gram = torch.zeros(total, total, dtype=torch.float64)
        self.cross = torch.zeros(total, heatmaps, dtype=torch.float64)
        self.feature_sum = torch.zeros(total, dtype=torch.float64)
        self.target_sum = torch.zeros(heatmaps, dtype=torch.float64)

    def add(self, maps: Sequence[Tensor], rows: Tensor, columns: Tensor) -> None:
        """Add images, given their heatmaps as outer products.

        Args:
            maps: L tensors (B, C, h, w), deepest first.
            rows: (B, K, n), a heatmap's profile from top to bottom.
            columns: (B, K, n), that from left to right; a cell is the product of the two.
        """
        offsets = self.offset.to(maps[0]).split(self.channels)
        maps = [m - offset[:, None, None] for m, offset in zip(maps, offsets, strict=True)]
        resizes = [[resize_matrix(s, self.cells).to(m) for s in m.shape[2:]] for m in maps]
        blocks = torch.split(self.feature_sum, self.channels)
        starts = torch.tensor([0, *self.channels]).cumsum(0).tolist()
        for m, (down, across), block, start in zip(maps, resizes, blocks, starts, strict=False):
            weights = torch.outer(down.sum(dim=0), across.sum(dim=0))  # (h, w)
            block += torch.einsum("bchw,hw->c", m, weights).double().cpu()
            profile = (
                torch.einsum("bkn,nh->bkh", rows, down),
                torch.einsum("bkn,nw->bkw", columns, across),
            )
            narrow = torch.einsum("bkh,bkw->bkhw", *profile)  # (B, K, h, w)
            cross = m.transpose(0, 1).flatten(1) @ narrow.transpose(0, 1).flatten(1).t()
            self.cross[start : start + m.shape[1]] += cross.double().cpu()
        for i, j in combinations_with_replacement(range(len(maps)), 2):
            # The finer map j is brought to the size of the coarser one, i: the cheaper way round.
            down = resizes[i][0].t() @ resizes[j][0]  # (h of i, h of j)
            across = resizes[i][1].t() @ resizes[j][1]  # (w of i, w of j)
            met = down @ maps[j] @ across.t()  # (B, C of j, h of i, w of i)
            product = maps[i].transpose(0, 1).flatten(1) @ met.transpose(0, 1).flatten(1).t()
            one = slice(starts[i], starts[i + 1])
            other = slice(starts[j], starts[j + 1])
            self.gram[one, other] += product.double().cpu()
            if i != j:
                self.gram[other, one] = self.gram[one, other].t()
        self.target_sum += (rows.sum(dim=2) * columns.sum(dim=2)).sum(dim=0).double().cpu()
        self.count += len(rows) * self.cells**2

    def empty(self) -> "NormalEquations":
        """Return the sums over no images, of the same sizes."""
        heatmaps = self.cross.shape[1]
        return NormalEquations(self.channels, heatmaps, self.cells, self.side, self.offset)

    def add_sums(self, other: "NormalEquations", sign: int = 1) -> None:
        """Add the sums of other images, or, with -1, take them away."""
        self.count += sign * other.count
        for name in ("gram", "cross", "feature_sum", "target_sum"):
            getattr(self, name).add_(getattr(other, name), alpha=sign)

    def solve(self, penalties: Sequence[float]) -> list[tuple[Tensor, Tensor]]:
        """Return weights (K, C) and biases (K,) of the ridge regression, for each penalty.

        The penalty is that of standardised channels: mean 0 and variance 1 over all cells. Weights
        are of the channels as they are. See `factor` for penalties within the sums' rounding.
        """
        mean, target = self.feature_sum / self.count, self.target_sum / self.count
        covariance = self.gram / self.count - torch.outer(mean, mean)
        std = covariance.diagonal().clamp(min=0).sqrt() + 1e-5
        correlation = covariance / std / std[:, None]
        cross = (self.cross / self.count - torch.outer(mean, target)) / std[:, None]  # (C, K)
        solutions = []
        for penalty in penalties:
            weight = torch.cholesky_solve(cross, factor(correlation, penalty)) / std[:, None]
            bias = target - (mean + self.offset.double()) @ weight
            solutions.append((weight.t().float(), bias.float()))
        return solutions


def factor(correlation: Tensor, penalty: float) -> Tensor:
    """Return the Cholesky factor of a correlation matrix plus a penalty.

    Products of features are rounded to float32 before they are summed, so a correlation may have
    eigenvalues a little below 0. A penalty that doesn't make up for them is taken tenfold.

    Raises:
        InputError: if no penalty up to 10 does.
    """
    ridged = correlation + penalty * torch.eye(len(correlation)).to(correlation)
    lower, failed = torch.linalg.cholesky_ex(ridged)
    if not failed:
        return lower
    if penalty > 1:
        raise InputError("--regressor ridge: the encoder's features aren't finite")
    return factor(correlation, 10 * penalty)


def gaussian_profiles(
    points: Tensor, visible: Tensor, axis: Tensor, widths: Sequence[float]
) -> tuple[Tensor, Tensor]:
    """Return rows and columns of Gaussian heatmaps, (B, len(widths) * A, n) each.

    Args:
        points: (B, A, 2).
        visible: (B, A), bool; where False the heatmap is empty: nothing is to be found there.
        axis: (n,), see `cell_axis`.
        widths: standard deviations.
    """
    distance = (points[..., None] - axis.to(points)) ** 2  # (B, A, 2, n)
    heat = torch.cat([(-distance / (2 * w * w)).exp() for w in widths], dim=1)
    shown = visible.repeat(1, len(widths))[:, :, None]  # (B, K, 1)
    return heat[:, :, 1] * shown, heat[:, :, 0]


class RidgeReadout(nn.Module):
    """Heatmaps that are linear in the hypercolumn, read with a prior of shape and place.

    The prior is one normal distribution of all landmarks, around what the coarse look of an image
    lets expect (`models.shape_prior`). A landmark's place is where heatmap and prior agree best: at
    first with its own part of the prior, then with what the prior says given the places found for
    all others; in the end places found and expected are weighed against each other. It needs no
    training: every part has a closed form.

    Args:
        channels: C.
        landmarks: A.
        side: of the images, in pixels.
        map_shape: rows and columns of the hypercolumn of the maps that are given; None for a
            single map, which is read at its own size.
    """

    weight: Tensor
    bias: Tensor
    shape_weight: Tensor
    shape_centre: Tensor
    mean: Tensor
    covariance: Tensor
    sharpness: Tensor
    noise: Tensor

    def __init__(
        self, channels: int, landmarks: int, side: int, map_shape: tuple[int, int] | None
    ) -> None:
        super().__init__()
        self.side, self.map_shape = side, map_shape
        self.register_buffer("weight", torch.zeros(landmarks, channels))
        self.register_buffer("bias", torch.zeros(landmarks))
        looks = channels * GRID**2
        self.register_buffer("shape_weight", torch.zeros(2 * landmarks, looks))
        self.register_buffer("shape_centre", torch.zeros(looks))
        self.register_buffer("mean", torch.zeros(landmarks, 2))
        self.register_buffer("covariance", torch.eye(2 * landmarks))
        self.register_buffer("sharpness", torch.tensor(80.0))  # of a heatmap, as log probability
        self.register_buffer("noise", torch.tensor(0.01))  # variance of a place that was found

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return the landmarks (B, A, 2) in [-1, 1] and the confidence (B, A) in [0, 1] in each.

        Args:
            maps: L tensors (B, C, h, w), deepest first.
        """
        heat, places = self.heatmaps(maps)
        return self.read(heat, places, self.prior.expected(coarse_look(maps)))

    @property
    def prior(self) -> ShapePrior:
        """Of shapes."""
        return ShapePrior(self.shape_weight, self.shape_centre, self.mean, self.covariance)

    def heatmaps(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return heatmaps (B, A, P) and the places (P, 2) of their cells; see `forward`."""
        shape = read_shape(maps, self.map_shape)
        heat = project_hypercolumn(maps, self.weight, shape)  # (B, A, n, n)
        places = cell_places(shape, self.side, heat)
        return (heat + self.bias[:, None, None]).flatten(2), places

    def read(self, heat: Tensor, places: Tensor, expected: Tensor) -> tuple[Tensor, Tensor]:
        """Return landmarks and confidence of heatmaps (B, A, P); see `forward`.

        The prior's mean shapes are ``expected``, (B, A, 2).
        """
        # A few images at a time, whose numbers for each landmark and cell fit into a cache or so.
        at_once = max(1, NUMBERS_AT_ONCE // heat[0].numel())
        inference = self.inference()
        batches = zip(heat.split(at_once), expected.split(at_once), strict=True)
        parts = [self.infer(*batch, places, inference) for batch in batches]
        points, confidence = zip(*parts, strict=True)
        return torch.cat(points), torch.cat(confidence)

    def infer(
        self, heat: Tensor, expected: Tensor, places: Tensor, inference: "Inference"
    ) -> tuple[Tensor, Tensor]:
        """Return landmarks and confidence of all heatmaps at once; see `read`."""
        evidence = self.sharpness * heat
        prior = log_density(places, expected, inference.own)  # (B, A, P)
        points, near = find_peak(evidence + prior, heat, places)
        for _ in range(ROUNDS):
            off = (points - expected).flatten(1)  # (B, 2 A)
            means = expected + (off @ inference.gain.flatten(0, 1).t()).view_as(points)
            prior = log_density(places, means, inference.rest)  # (B, A, P)
            points, near = find_peak(evidence + prior, heat, places)
        milder = (evidence + prior) * (CONFIDENT_SHARPNESS / self.sharpness)
        confidence = (milder.softmax(dim=2) * near).sum(dim=2)
        off = (points - expected).flatten(1) @ inference.trust
        return expected + off.view_as(points), confidence

    def inference(self) -> "Inference":
        """Return what reading needs of the prior, which is the same for all images."""
        rows = torch.arange(len(self.mean))
        own = self.covariance.unflatten(0, (-1, 2)).unflatten(2, (-1, 2))[rows, :, rows]
        gain, rest = self.given_the_others()
        # The mean of all landmarks given all that were found, each with a variance of ``noise``.
        trust = torch.linalg.solve(self.noisy_covariance(), self.covariance)  # (2 A, 2 A)
        return Inference(precision(own), gain, precision(rest), trust)

    def noisy_covariance(self) -> Tensor:
        """Return the covariance (2 A, 2 A) of places that are found, given what is expected."""
        return self.covariance + self.noise * torch.eye(len(self.covariance)).to(self.covariance)

    def given_the_others(self) -> tuple[Tensor, Tensor]:
        """Return how the mean of each landmark depends on the others, and what variance is left.

        The others were found with a variance of ``noise`` each.

        Returns:
            (A, 2, 2 A), by which the distances of all landmarks from their means are multiplied,
            zero for the landmark's own; and covariances (A, 2, 2).
        """
        size = 2 * len(self.mean)
        noisy = self.noisy_covariance()
        gains, covariances = torch.zeros(len(self.mean), 2, size).to(self.mean), []
        for k in range(len(self.mean)):
            own = torch.arange(2 * k, 2 * k + 2)
            others = torch.cat([torch.arange(2 * k), torch.arange(2 * k + 2, size)])
            across = self.covariance[own][:, others]  # (2, 2 A - 2)
            gain = torch.linalg.solve(noisy[others][:, others], across.t()).t()
            gains[k][:, others] = gain
            covariances.append(self.covariance[own][:, own] - gain @ across.t())
        return gains, torch.stack(covariances)


class Inference(NamedTuple):
    """What a prior of shape says on reading heatmaps, whatever the image.

    Args:
        own: (A, 2, 2), precision of a landmark by itself.
        gain: (A, 2, 2 A), see `RidgeReadout.given_the_others`.
        rest: (A, 2, 2), precision of a landmark given the others.
        trust: (2 A, 2 A), how far all landmarks follow the places found.
    """

    own: Tensor
    gain: Tensor
    rest: Tensor
    trust: Tensor


def precision(covariance: Tensor) -> Tensor:
    """Return the inverses of covariances (A, 2, 2) and a small multiple of the identity."""
    return torch.linalg.inv(covariance + FLOOR * torch.eye(2).to(covariance))


def log_density(places: Tensor, mean: Tensor, precision: Tensor) -> Tensor:
    """Return logarithms of normal densities, up to a constant, (B, A, P).

    Args:
        places: (P, 2).
        mean: (B, A, 2).
        precision: (A, 2, 2), the inverse covariances.
    """
    x, y = (places - mean[:, :, None]).unbind(dim=3)  # (B, A, P) each
    (own_x, across), (other, own_y) = (row.t()[..., None] for row in precision.unbind(dim=1))
    return -0.5 * (own_x * x * x + (across + other) * x * y + own_y * y * y)


def find_peak(score: Tensor, heat: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
    """Return the place of the largest score, (B, A, 2), and which cells are near it, (B, A, P).

    The place is the mean of those around the best cell, weighted by what their heat has above half
    of that cell's: a fraction of a cell where the heatmap is clear.

    Args:
        score: (B, A, P), log probabilities up to a constant.
        heat: (B, A, P).
        places: (P, 2).
    """
    best = score.argmax(dim=2, keepdim=True)  # (B, A, 1)
    near = (places[best] - places).square().sum(dim=3) < PEAK_RADIUS**2  # (B, A, P)
    weights = (heat - 0.5 * heat.gather(2, best)).clamp(min=0) * near
    cells = torch.arange(len(places), device=best.device)
    weights = weights + 1e-6 * (cells == best)  # where heat is below 0
    return (weights @ places) / weights.sum(dim=2)[:, :, None], near
