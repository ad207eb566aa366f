"""What a benchmark wants of a readout: loss and metrics, and how they are summed up [spec 5].

Letters: B images of a batch, N of a data set, A landmarks.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, vmap

from data_loader.landmark_dataset import LandmarkDataset
from engine.features.images import EncodedImages
from models.landmarks import Landmarks
from utils.errors import InputError

Metric = Callable[[Tensor, Tensor, Tensor], Tensor]
Scores = dict[str, float]
Find = Callable[[list[Tensor]], Landmarks]  # a readout
T = TypeVar("T")


@dataclass(frozen=True)
class Task:
    """What differs between benchmarks.

    Args:
        loss: what is minimised; takes what a metric takes.
        metrics: name to a function of prediction (B, A, 2), truth (B, A, 2), both in [-1, 1], and
            visible (B, A), bool, that returns a scalar; it may be NaN where nothing is judged.
        judged: truth (B, A, 2) and visible (B, A) to the number of images, a scalar, that a
            batch's metrics stand for: its weight in the mean over a data set.
        best: checkpoint entry to the (split, metric) it keeps; the first one decides which epoch
            is the best. Without any it is the last one.
        lower_is_better: how it decides.
        unit: of the metrics, in words.
    """

    loss: Metric
    metrics: dict[str, Metric]
    judged: Callable[[Tensor, Tensor], Tensor]
    best: dict[str, tuple[str, str]]
    lower_is_better: bool
    unit: str

    def improves(self, new: Scores, old: Scores) -> bool:
        """Compare two epochs by the first entry of ``best``; without any, the later is better."""
        if not self.best:
            return True
        entry = next(iter(self.best))
        return new[entry] < old[entry] if self.lower_is_better else new[entry] > old[entry]

    def worst(self) -> Scores:
        """Return the entries of ``best`` before the first epoch, which any epoch improves on."""
        worst = math.inf if self.lower_is_better else -math.inf
        return {**dict.fromkeys(self.best, worst), "best_epoch": 0}

    def in_words(self, scores: Mapping[str, Scores]) -> str:
        """Return each split's metrics as one line."""
        words = (
            f"{split} {name} {values[name]:.2f}"
            for split, values in scores.items()
            for name in self.metrics
        )
        return f"{'  '.join(words)} ({self.unit})"


class WeightedMean:
    """Weighted mean of batches' scores, read from the device only when asked for."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.weights: dict[str, Tensor | float] = {}

    def add(self, values: dict[str, Tensor], weight: Tensor | float) -> None:
        """Add a batch's scalars; those of weight 0 may be NaN and count for nothing."""
        for name, value in values.items():
            weighted = torch.where(torch.as_tensor(weight, device=value.device) > 0, value, 0)
            self.sums[name] = self.sums.get(name, 0) + weighted * weight
            self.weights[name] = self.weights.get(name, 0) + weight

    def add_metrics(self, task: Task, pred: Tensor, truth: Tensor, visible: Tensor) -> None:
        """Add the metrics of predictions (B, A, 2), given truth (B, A, 2) and visible (B, A)."""
        values = {name: metric(pred, truth, visible) for name, metric in task.metrics.items()}
        self.add(values, task.judged(truth, visible))

    def result(self) -> Scores:
        """Return the means; NaN where all weights are 0."""
        weights = {name: float(weight) for name, weight in self.weights.items()}
        return {n: float(v) / weights[n] if weights[n] else math.nan for n, v in self.sums.items()}


@torch.no_grad()
def evaluate(find: Find, task: Task, images: EncodedImages) -> Scores:
    """Return a readout's loss and metrics: means by the batches' sizes, and by `Task.judged`."""
    mean = WeightedMean()
    for batch in images.batches(epoch=0):
        pred = find(batch.features).points
        loss = task.loss(pred, batch.points, batch.visible)
        mean.add({"loss": loss}, len(batch.points))
        mean.add_metrics(task, pred, batch.points, batch.visible)
    return mean.result()


@torch.no_grad()
def find_landmarks(find: Find, images: EncodedImages) -> Landmarks:
    """Return what a readout finds in a data set that isn't shuffled, of N images, on the CPU."""
    found = [find(batch.features) for batch in images.batches(epoch=0)]
    points, confidence = (torch.cat(parts).cpu() for parts in zip(*found, strict=True))
    return Landmarks(points, confidence)


def mean_shape(points: Tensor, visible: Tensor) -> Tensor:
    """Return the mean (A, 2) of points (N, A, 2) over the images where they are visible (N, A)."""
    total = (points * visible[..., None]).sum(dim=0)  # (A, 2)
    return total / visible.sum(dim=0).clamp(min=1)[:, None]


def baseline(task: Task, shape: Tensor, images: EncodedImages) -> Scores:
    """Return the scores of predicting one shape (A, 2) for every image."""
    mean = WeightedMean()
    for batch in images.batches(epoch=0):
        pred = shape.to(batch.points).expand_as(batch.points)
        mean.add_metrics(task, pred, batch.points, batch.visible)
    return mean.result()


def judged_split(held_out: Mapping[str, T]) -> tuple[str, T]:
    """Return the split that baselines are judged by: ``Test``, or else the first one."""
    name = "Test" if "Test" in held_out else next(iter(held_out))
    return name, held_out[name]


def check_judged(task: Task, held_out: Mapping[str, LandmarkDataset]) -> list[str]:
    """Return a line for each split of which some landmarks aren't judged.

    Raises:
        InputError: if a split has no image that the metrics can judge.
    """
    notices = []
    for split, images in held_out.items():
        # In the files' pixels: whether there is an eye distance doesn't depend on the frame.
        points = torch.tensor(np.ascontiguousarray(images.annotations["keypoints"]))  # (N, A, 2)
        visible = images.visible()  # (N, A)
        # One by one, as a batch is judged as a whole.
        unjudged = vmap(lambda p, v: task.judged(p[None], v[None]))(points, visible) == 0  # (N,)
        if unjudged.all():
            raise InputError(
                f"{split}: none of its {len(points)} images can be judged: no landmark, or no "
                "pair of eyes, is annotated"
            )
        if unjudged.any() or not visible.all():
            said = (
                f"{split}: {int((~visible).sum())} of {visible.numel()} landmarks aren't annotated"
            )
            if unjudged.any():
                said += f"; {int(unjudged.sum())} of {len(points)} images can't be judged"
            notices.append(said)
    return notices
