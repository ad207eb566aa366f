"""How good predictions on one's own images are, in the pixels of these.

Letters: N instances, A named points.
"""

import argparse
import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import Tensor

from data_loader.keypoints import Keypoints
from data_loader.readers.keypoint_table import places_of
from data_loader.splits import group_names
from engine.points.errors import (
    OKS_LEVELS,
    average_precision,
    mean_and_median,
    mean_of,
    object_keypoint_similarity,
    percentage_right,
)
from engine.run.settings import Settings
from models.landmarks import Landmarks
from utils.arguments import allow_change
from utils.errors import InputError
from utils.files import printable, write_text
from utils.log import RunLog

# Of the diagonal, or another length, within which a point is right.
PCK_FRACTIONS = (0.05, 0.1, 0.2)
FOLDS = "Folds"  # in place of a split: all images, each by the fold that hadn't seen it
PER_POINT, PER_IMAGE = "per_point.csv", "per_image.csv"


def add_score_arguments(group: argparse._ActionsContainer) -> None:
    """Declare what errors on one's own images are related to."""
    group.add_argument(
        "--normalise_by",
        nargs=2,
        metavar=("A", "B"),
        help="score errors in relation to the distance between these two points, too; instances "
        "that lack one of them don't count there",
    )
    allow_change("normalise_by")


@dataclass(frozen=True)
class ScoreSettings(Settings):
    """What errors are related to, and what the bootstrap draws together."""

    normalise_by: Sequence[str] | None
    group_by: str | None

    def check(self, names: Sequence[str]) -> None:
        """Raise an `InputError` unless points to normalise by are two of these names."""
        if self.normalise_by is None:
            return
        for name in self.normalise_by:
            if name not in names:
                shown = ", ".join(map(printable, names[:5])) + (", …" if len(names) > 5 else "")
                raise InputError(f"--normalise_by {printable(name)}: no such point ({shown})")
        if len(set(self.normalise_by)) == 1:
            raise InputError(f"--normalise_by: {printable(self.normalise_by[0])} is there twice")


def point_distances(dataset: Keypoints, predicted: Tensor) -> np.ndarray:
    """Return how far predictions (N, A, 2) in [-1, 1] are off, in pixels of their images, (N, A).

    NaN where a point isn't annotated.
    """
    found = np.stack([dataset.to_original(p, i) for i, p in enumerate(predicted.numpy())])
    distances = np.linalg.norm(found - dataset.annotations["keypoints"], axis=-1)
    return np.where(dataset.annotations["visible"], distances, np.nan)


def diagonals(dataset: Keypoints) -> np.ndarray:
    """Return the diagonal of each instance's box, or of its image where it has none, (N,)."""
    boxes, sizes = dataset.annotations["boxes"], dataset.annotations["sizes"]
    spans = np.where(np.isnan(boxes[:, :2]), sizes, boxes[:, 2:] - boxes[:, :2])
    return np.linalg.norm(spans, axis=1)


def distance_between(dataset: Keypoints, pair: Sequence[str]) -> np.ndarray:
    """Return the true distance of two points (N,), NaN where it is 0 or one isn't annotated."""
    first, second = (dataset.point_names.index(name) for name in pair)
    points, visible = dataset.annotations["keypoints"], dataset.annotations["visible"]
    distance = np.linalg.norm(points[:, first] - points[:, second], axis=1)
    return np.where(visible[:, first] & visible[:, second] & (distance > 0), distance, np.nan)


def score_split(
    dataset: Keypoints,
    distances: np.ndarray,
    groups: Sequence[str],
    confidence: np.ndarray | None = None,
    normalise_by: Sequence[str] | None = None,
) -> dict[str, float]:
    """Return the scores of predictions whose `point_distances` (N, A) are given.

    ``error_px`` is the mean distance over the annotated points, ``median_px`` their median; with
    ``_low`` and ``_high`` between which 95 % of the bootstrap's values are. ``…_scale_units`` are
    the same in the unit of length whose number per pixel is noted of all images
    (`KeypointTable.scales`), if it is. ``error_of_diagonal``
    and ``error_of_image`` are mean distances in percent of the `diagonals` and of the images' own,
    ``PCK_0.1`` the percentage within a tenth of the `diagonals`; ``…_of_distance`` are the same of
    the distance between two points. ``OKS_AP`` is there with COCO's points and areas.

    Args:
        dataset: N instances.
        distances: (N, A).
        groups: (N,), what the bootstrap draws together.
        confidence: (N, A), by which OKS-AP orders predictions; NaN and None are equal ones.
        normalise_by: two points' names.
    """
    scores: dict[str, float] = {}
    measured = {"px": distances}
    scales = [dataset.table.scales.get(name, 0) for name in dataset.filenames]
    if all(scales):
        measured["scale_units"] = distances * np.array(scales)[:, None]
    for unit, values in measured.items():
        of_all = mean_and_median(values, groups)
        for name, found in zip((f"error_{unit}", f"median_{unit}"), of_all, strict=True):
            scores[name] = found.value
            if len(set(groups)) > 1:  # else every resample is the same
                scores |= {f"{name}_low": found.low, f"{name}_high": found.high}
    scores |= relative_scores(distances, diagonals(dataset), "diagonal", "")
    sizes = np.linalg.norm(dataset.annotations["sizes"], axis=1)
    scores["error_of_image"] = mean_of(100 * distances / sizes[:, None])
    if normalise_by is not None:
        lengths = distance_between(dataset, normalise_by)
        scores |= relative_scores(distances, lengths, "distance", "_of_distance")
    scores |= oks_scores(dataset, distances, confidence)
    return {name: value for name, value in scores.items() if not np.isnan(value)}


def relative_scores(
    distances: np.ndarray, lengths: np.ndarray, of: str, ending: str
) -> dict[str, float]:
    """Return the mean of distances (N, A) in percent of lengths (N,), and the PCK by them."""
    right = {
        f"PCK_{fraction}{ending}": percentage_right(distances, fraction * lengths)
        for fraction in PCK_FRACTIONS
    }
    return {f"error_of_{of}": mean_of(100 * distances / lengths[:, None]), **right}


def oks_scores(
    dataset: Keypoints, distances: np.ndarray, confidence: np.ndarray | None
) -> dict[str, float]:
    """Return the average precisions by OKS, nothing without COCO's points and areas."""
    areas = dataset.annotations["areas"]
    if dataset.sigmas is None or np.isnan(areas).all():
        return {}
    oks = object_keypoint_similarity(distances, areas, np.asarray(dataset.sigmas))
    sure = np.zeros(len(oks)) if confidence is None else np.nan_to_num(confidence.mean(axis=1))
    precisions = [average_precision(oks, sure, level) for level in OKS_LEVELS]
    by_level = {f"OKS_AP_{round(100 * OKS_LEVELS[place])}": precisions[place] for place in (0, 5)}
    return {"OKS_AP": float(np.mean(precisions)), **by_level}


class Judged(NamedTuple):
    """How far a readout was off in N instances.

    Args:
        dataset: the instances.
        distances: (N, A), see `point_distances`.
        confidence: (N, A), the readout's own.
    """

    dataset: Keypoints
    distances: np.ndarray
    confidence: np.ndarray

    @property
    def relative(self) -> np.ndarray:
        """The distances as fractions of the `diagonals`, (N, A)."""
        return self.distances / diagonals(self.dataset)[:, None]


def judge(dataset: Keypoints, predicted: Landmarks) -> Judged:
    """Compare what was found in a data set with the truth."""
    distances = point_distances(dataset, predicted.points)
    return Judged(dataset, distances, predicted.confidence.numpy())


def pool(dataset: Keypoints, folds: Sequence[Judged]) -> Judged:
    """Return as one what was found in parts of a data set, each by another readout.

    What none was asked for is NaN. The data set is copied: the run that takes its images in another
    order, or leaves some out, doesn't change what was found.
    """
    dataset = copy(dataset)
    dataset.annotations = {**dataset.annotations}
    row_of = {key: row for row, key in enumerate(_keys(dataset))}
    shape = len(dataset), dataset.num_landmarks
    distances, confidence = np.full(shape, np.nan), np.full(shape, np.nan)
    for fold in folds:
        own = [row for row, key in enumerate(_keys(fold.dataset)) if key in row_of]
        rows = [row_of[key] for key in _keys(fold.dataset) if key in row_of]
        places = places_of(fold.dataset.point_names, dataset.point_names)
        distances[np.ix_(rows, places)] = fold.distances[own]
        confidence[np.ix_(rows, places)] = fold.confidence[own]
    return Judged(dataset, distances, confidence)


def _keys(dataset: Keypoints) -> list[tuple[str, str]]:
    """Return what tells instances apart."""
    return list(zip(dataset.filenames, map(str, dataset.item_names()), strict=True))


def score_splits(
    held_out: Mapping[str, Keypoints],
    folds: Judged | None,
    settings: ScoreSettings,
    predicted: Mapping[str, Landmarks],
    folder: Path,
    log: RunLog,
) -> dict[str, object]:
    """Score the predictions of a run by split; return what ``result.json`` holds of it.

    ``per_point.csv`` and ``per_image.csv``, worst first, are written into the run's folder.

    Args:
        held_out: split to its images.
        folds: what the folds of a run say, if there are some: a split of its own.
        settings: what errors are related to.
        predicted: split to what was found in them.
        folder: of the run.
        log: receives a line.
    """
    judged = {split: judge(dataset, predicted[split]) for split, dataset in held_out.items()}
    judged |= {} if folds is None else {FOLDS: folds}
    if not judged:
        log.line("no image is held out: the error on new images isn't known")
        return {}
    scores, points, images = {}, list[list[object]](), list[list[object]]()
    for split, (dataset, distances, confidence) in judged.items():
        groups = group_names(dataset.filenames, settings.group_by)
        scores[split] = score_split(dataset, distances, groups, confidence, settings.normalise_by)
        points += [[split, *row] for row in point_rows(dataset, distances, groups)]
        images += [[split, *row] for row in image_rows(dataset, distances)]
    spread = ("mean_px", "mean_low", "mean_high", "median_px", "median_low", "median_high")
    write_csv(folder / PER_POINT, ("split", "point", "images", *spread, "of_diagonal"), points)
    worst = ("mean_px", "of_diagonal", "worst_point", "worst_px")
    write_csv(folder / PER_IMAGE, ("split", "image", "instance", "points", *worst), images)
    log.line(in_words(scores))
    return {"scores": scores}


def point_rows(
    dataset: Keypoints, distances: np.ndarray, groups: Sequence[str]
) -> Iterator[list[object]]:
    """Yield what ``per_point.csv`` says of each point that is annotated in an image."""
    relative = 100 * distances / diagonals(dataset)[:, None]
    for place, name in enumerate(dataset.point_names):
        own = distances[:, place : place + 1]  # (N, 1)
        if count := int((~np.isnan(own)).sum()):
            mean, median = mean_and_median(own, groups)
            numbers = *mean, *median, np.nanmean(relative[:, place])
            yield [printable(name), count, *(f"{number:.3f}" for number in numbers)]


def image_rows(dataset: Keypoints, distances: np.ndarray) -> Iterator[list[object]]:
    """Yield what ``per_image.csv`` says of each instance, the largest mean error first."""
    judged = np.flatnonzero(~np.isnan(distances).all(axis=1))
    means = np.full(len(distances), np.nan)
    means[judged] = np.nanmean(distances[judged], axis=1)
    relative = 100 * means / diagonals(dataset)
    for index in judged[np.argsort(-means[judged], kind="stable")].tolist():
        own, worst = distances[index], int(np.nanargmax(distances[index]))
        yield [
            printable(dataset.filenames[index]),
            printable(str(dataset.annotations["ids"][index])),
            int((~np.isnan(own)).sum()),
            *(f"{number:.3f}" for number in (means[index], relative[index])),
            *(printable(dataset.point_names[worst]), f"{own[worst]:.3f}"),
        ]


def write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Write a table."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    write_text(path, text.getvalue())


def in_words(scores: Mapping[str, Mapping[str, float]]) -> str:
    """Return each split's scores as one line."""
    lines = []
    for split, s in scores.items():
        between = ""
        if "error_px_low" in s:
            between = f", 95 % interval {s['error_px_low']:.2f} to {s['error_px_high']:.2f}"
        line = (
            f"{split} error {s['error_px']:.2f} px (median {s['median_px']:.2f}{between}), PCK "
            f"{s['PCK_0.1']:.1f} % within 0.1 of the diagonal"
        )
        if "error_scale_units" in s:
            mean, median = s["error_scale_units"], s["median_scale_units"]
            line += f", error {mean:.4g} in the unit of SCALE= (median {median:.4g})"
        if "error_of_distance" in s:
            line += f", error {s['error_of_distance']:.2f} % of the distance between the two points"
        if "OKS_AP" in s:
            line += f", OKS-AP {s['OKS_AP']:.1f} %"
        lines.append(line)
    return "; ".join(lines)
