"""The fit of the ridge readout: sums over the training images, and cross-validation.

[spec 12.] Letters: B images of a batch, A landmarks, N training images, n rows and columns of a
heatmap.
"""

import itertools
from collections.abc import Sequence
from operator import attrgetter
from typing import NamedTuple

import torch
from torch import Tensor

from data_loader.splits import folds
from engine.features.images import EncodedImages
from models.hypercolumn import read_shape
from models.ridge import NormalEquations, RidgeReadout, cell_axis, gaussian_profiles
from models.shape_prior import ShapePrior, coarse_look, fit_shape
from utils.log import RunLog, progress

WIDTHS = (0.04, 0.06, 0.1)  # standard deviations of heatmaps, in half sides of the image
PENALTIES = (0.0001, 0.001, 0.01, 0.1, 0.5)
SHARPNESSES = (40.0, 80.0, 160.0)
NOISES = (0.001, 0.003, 0.01, 0.03)
FOLDS, LEAST_IMAGES = 5, 5  # of the cross-validation; with fewer there is none
JUDGED_IMAGES = 400  # that candidates are judged by, at most
SHAPE_IMAGES = 1000  # that the prior of shape is fitted to, at most


class Choice(NamedTuple):
    """What the normal equations leave open; see the candidates above."""

    width: float = 0.06
    penalty: float = 0.1
    sharpness: float = 80.0
    noise: float = 0.01


Solution = tuple[Tensor, Tensor]  # weights (K, C) and biases (K,) of all widths' heatmaps


class Fold:
    """A part of the training images: its sums, its annotations, and features to judge by."""

    def __init__(self, equations: NormalEquations) -> None:
        self.equations = equations
        self.points: list[Tensor] = []  # (B, A, 2) each
        self.visible: list[Tensor] = []  # (B, A) each
        self.kept: list[list[Tensor]] = []  # the maps of the first images
        self.coarse: list[Tensor] = []  # (B, D) each, of the first images

    def add(self, maps: Sequence[Tensor], points: Tensor, visible: Tensor, num_folds: int) -> None:
        """Add images; keep the features of the first of them, and how more of them look."""
        axis = cell_axis(self.equations.cells, self.equations.side)
        self.equations.add(maps, *gaussian_profiles(points, visible, axis, WIDTHS))
        left = JUDGED_IMAGES // num_folds - sum(len(part[0]) for part in self.kept)
        if left > 0:
            self.kept.append([m[:left] for m in maps])
        left = SHAPE_IMAGES // num_folds - sum(len(part) for part in self.coarse)
        if left > 0:
            self.coarse.append(coarse_look(maps)[:left].cpu())
        self.points.append(points.cpu())
        self.visible.append(visible.cpu())

    def judged(self) -> tuple[list[Tensor], Tensor, Tensor]:
        """Return the maps that were kept, with their points and which of these are visible."""
        maps = [torch.cat(parts) for parts in zip(*self.kept, strict=True)]
        count = len(maps[0])
        return maps, torch.cat(self.points)[:count], torch.cat(self.visible)[:count]


def assign_folds(train: EncodedImages, count: int, groups: Sequence[str] | None = None) -> Tensor:
    """Return the fold of each of N images (N,), in the order of their batches, from 0.

    Args:
        train: the images.
        count: N.
        groups: of the images in the data set's order; each is one of its own, if None. Those of a
            group, such as an image's mirrored copy or its other instances, are in one fold.
    """
    num_folds = FOLDS if count >= LEAST_IMAGES else 1
    if groups is None or len(set(groups)) == count:
        return torch.arange(count) % num_folds
    num_folds = min(num_folds, len(set(groups)))
    if num_folds == 1:
        return torch.zeros(count, dtype=torch.int64)
    return torch.from_numpy(folds(groups, num_folds, seed=0))[train.order(epoch=0)]


def fit_ridge(readout: RidgeReadout, train: EncodedImages, fold_of: Tensor, log: RunLog) -> Choice:
    """Fit a readout in place; return what cross-validation chose.

    Each landmark is visible in some image; ``fold_of`` is `assign_folds`'s.

    One pass over the images sums up what a ridge regression needs, apart for each fold. Candidates
    are fitted to all folds but one and judged by the mean distance on some images of that one:
    first the heatmaps' width and the penalty, then the sharpness and the noise of the reading.
    The pass takes C^2 products for each cell of the native maps, a solution C^3 / 3, of which
    there are one for each fold and penalty; memory is C^2 numbers for each fold.
    """
    parts = sum_up(train, fold_of, readout)
    everything = total(parts)
    shape = fit_shape_of(parts)
    choice = Choice()
    if len(parts) > 1:
        judged = [part.judged() for part in parts]
        candidates = [solve_without(part, parts, everything) for part in parts]
        for names, values in (
            (("width", "penalty"), itertools.product(WIDTHS, PENALTIES)),
            (("sharpness", "noise"), itertools.product(SHARPNESSES, NOISES)),
        ):
            tried = [choice._replace(**dict(zip(names, some, strict=True))) for some in values]
            distances = mean_distances(readout, judged, candidates, tried)
            choice = tried[distances.index(min(distances))]
        chosen = ", ".join(f"{name} {value:g}" for name, value in choice._asdict().items())
        log.line(f"chosen by {len(parts)}-fold cross-validation: {chosen}")
    set_readout(readout, everything.solve([choice.penalty])[0], shape, choice)
    return choice


def sum_up(train: EncodedImages, fold_of: Tensor, readout: RidgeReadout) -> list[Fold]:
    """Return the folds of N images, in one pass over them; ``fold_of`` is `assign_folds`'s."""
    num_folds = int(fold_of.max()) + 1
    parts: list[Fold] = []
    first = 0
    for batch in progress(train.batches(epoch=0), "summing up"):
        maps = batch.features
        if not parts:
            cells, _ = read_shape(maps, readout.map_shape)
            heatmaps = len(WIDTHS) * batch.points.shape[1]
            sizes = [m.shape[1] for m in maps]
            offset = torch.cat([m.mean(dim=(0, 2, 3)) for m in maps]).cpu()  # (C,)
            parts = [
                Fold(NormalEquations(sizes, heatmaps, cells, readout.side, offset))
                for _ in range(num_folds)
            ]
        numbers = fold_of[first : first + len(batch.points)]
        for number, fold in enumerate(parts):
            if (rows := (numbers == number).nonzero().flatten().to(batch.points.device)).numel():
                fold.add(
                    [m[rows] for m in maps], batch.points[rows], batch.visible[rows], num_folds
                )
        first += len(batch.points)
    return parts


def total(parts: Sequence[Fold]) -> NormalEquations:
    """Return the sums over all folds."""
    everything = parts[0].equations.empty()
    for fold in parts:
        everything.add_sums(fold.equations)
    return everything


def solve_without(
    fold: Fold, parts: Sequence[Fold], everything: NormalEquations
) -> tuple[list[Solution], ShapePrior]:
    """Return the solutions for each penalty, and the shape, of all folds but one."""
    rest = everything.empty()
    rest.add_sums(everything)
    rest.add_sums(fold.equations, sign=-1)
    return rest.solve(PENALTIES), fit_shape_of([other for other in parts if other is not fold])


def fit_shape_of(parts: Sequence[Fold]) -> ShapePrior:
    """Return the prior of shape of those images of folds whose look was kept."""
    looks = [torch.cat(fold.coarse) for fold in parts]
    points = [torch.cat(fold.points)[: len(look)] for fold, look in zip(parts, looks, strict=True)]
    shown = [torch.cat(fold.visible)[: len(look)] for fold, look in zip(parts, looks, strict=True)]
    return fit_shape(torch.cat(looks), torch.cat(points), torch.cat(shown))


def set_readout(
    readout: RidgeReadout, solution: Solution, shape: ShapePrior, choice: Choice
) -> None:
    """Set a readout to a solution's heatmaps of one width, a shape and a way of reading."""
    landmarks = len(readout.bias)
    first = WIDTHS.index(choice.width) * landmarks
    weight, bias = (part[first : first + landmarks] for part in solution)
    numbers = torch.tensor(choice.sharpness), torch.tensor(choice.noise)
    shape_names = ("shape_weight", "shape_centre", "mean", "covariance")
    names = ("weight", "bias", *shape_names, "sharpness", "noise")
    values = (weight, bias, *shape, *numbers)
    readout.load_state_dict(dict(zip(names, values, strict=True)))


@torch.no_grad()
def mean_distances(
    readout: RidgeReadout,
    judged: Sequence[tuple[Sequence[Tensor], Tensor, Tensor]],
    candidates: Sequence[tuple[list[Solution], ShapePrior]],
    choices: Sequence[Choice],
) -> list[float]:
    """Return, for each choice, the mean distance of each fold's images from its candidate.

    In [-1, 1] units. Choices of one width and penalty that follow each other have the same
    heatmaps, which are computed once; all have the same coarse look.
    """
    distances: list[list[Tensor]] = [[] for _ in choices]  # of each fold
    for (maps, points, visible), (solutions, shape) in zip(judged, candidates, strict=True):
        readout.to(maps[0].device)
        expected: Tensor | None = None
        number = 0
        for (_, penalty), group in itertools.groupby(choices, attrgetter("width", "penalty")):
            same = list(group)
            set_readout(readout, solutions[PENALTIES.index(penalty)], shape, same[0])
            if expected is None:
                expected = readout.prior.expected(coarse_look(maps))  # (B, A, 2)
            heat, places = readout.heatmaps(maps)
            for choice in same:
                readout.sharpness.fill_(choice.sharpness)
                readout.noise.fill_(choice.noise)
                found, _ = readout.read(heat, places, expected)  # (B, A, 2)
                distances[number].append((found.cpu() - points).norm(dim=2)[visible])
                number += 1
    return [float(torch.cat(parts).mean()) for parts in distances]
