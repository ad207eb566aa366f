"""The training of a landmark regressor on frozen features, and its evaluation [spec 5].

The face and the bird scripts share all of it; a `Task` says what differs between them.
Letters: B images of a batch, A landmarks.
"""

import argparse
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor, nn, vmap

from data_loader.landmark_dataset import LandmarkDataset
from engine.encoded_images import Batch, EncodedImages
from models.encoders import weights_digest
from models.heatmap_head import HeatmapHead
from models.keypoint_prediction import IntermediateKeypointPredictor
from models.ridge import RidgeReadout
from utils.arguments import adam_beta, integer, positive_float, positive_int, unit_interval
from utils.checkpoint import load_checkpoint, load_weights
from utils.errors import InputError
from utils.files import excerpt
from utils.log import RunLog, progress
from utils.schedule import add_schedule_arguments

INTERMEDIATE_POINTS = 50  # [spec 5] for each landmark
SOFTARGMAX_MUL = 100.0  # [spec 5]
AUTO = "auto"  # of ``--regressor``: chosen by cross-validation
# Of a checkpoint's entry.
KINDS = {"regressor": "published", "ridge": "ridge", "heatmaps": "finetune"}
RIDGE_KEYS = ("opt", "epoch", "ridge")  # of a checkpoint
FINETUNE_KEYS = (
    *("opt", "epoch", "model", "heatmaps", "optimizer"),
    *("best", "best_epoch", "best_px"),
)  # of a checkpoint
REGRESSOR_KEYS = ("opt", "epoch", "regressor", "optimizer")  # of a checkpoint [spec 7]

Score = Callable[[Tensor, Tensor, Tensor], Tensor]
Scores = dict[str, float]
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

    loss: Score
    metrics: dict[str, Score]
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
        """Return entries that any epoch improves on, of no epoch yet."""
        worst = math.inf if self.lower_is_better else -math.inf
        return {**dict.fromkeys(self.best, worst), "best_epoch": 0}


def add_regressor_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the regressor's optimization."""
    group = add_schedule_arguments(
        parser,
        epochs=60,
        learning_rate=0.1,
        lr_decay_epochs="30,40,50",
        lr_decay_rate=0.2,
        momentum=0.9,
        weight_decay=0.0,
    )
    add_kind_argument(group)
    group.add_argument(
        "--multistep",
        action="store_true",
        help="divide the learning rate by 10 at epochs 100 and 250",
    )
    group.add_argument("--adam", action="store_true", help="Adam instead of SGD")
    group.add_argument("--amsgrad", action="store_true", help="the AMSGrad variant of Adam")
    group.add_argument(
        "--beta1", type=adam_beta, default=0.5, help="decay rate of Adam's mean gradient"
    )
    group.add_argument(
        "--beta2", type=adam_beta, default=0.999, help="decay rate of Adam's mean squared gradient"
    )


def add_kind_argument(group: argparse._ArgumentGroup) -> None:
    """Declare which kind of readout finds the landmarks."""
    group.add_argument(
        "--regressor",
        choices=[*KINDS.values(), AUTO],
        default="published",
        help="the published one, trained by gradient descent; or a ridge regression of heatmaps "
        "with a prior of shape, in closed form: no flags of the optimization matter then; or a "
        "small head on all maps and the encoder itself, both trained: see --finetune_steps; "
        "auto: the best of them in cross-validation on the annotated images, or in vis_*.py the "
        "one that --ckpt_path holds",
    )


def add_readout_argument(group: argparse._ArgumentGroup) -> None:
    """Declare the checkpoint of a readout that is used as it is."""
    group.add_argument("--ckpt_path", metavar="FILE", help="checkpoint of the regressor")


def add_finetune_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``--regressor finetune``."""
    group = parser.add_argument_group("fine-tuning (--regressor finetune), in place of those above")
    group.add_argument(
        "--finetune_steps",
        type=positive_int,
        default=300,
        help="steps; the learning rate rises over 20 of them and falls to 0 along a half cosine",
    )
    group.add_argument(
        "--finetune_batch",
        type=integer(2, 10_000),
        default=16,
        help="random views a step, of images in a random order",
    )
    group.add_argument(
        "--finetune_rate", type=positive_float, default=0.001, help="AdamW's learning rate"
    )
    group.add_argument(
        "--finetune_spread",
        type=unit_interval,
        default=1.0,
        metavar="FACTOR",
        help="multiplies how far views are turned (30 degrees), scaled, shifted and stretched: "
        "less than 1 for objects that are all posed alike, such as 0.4 for mounted wings",
    )


def build_regressor(
    channels: int, landmarks: int, map_shape: tuple[int, int] | None
) -> IntermediateKeypointPredictor:
    """Return a fresh regressor for maps of so many channels together."""
    return IntermediateKeypointPredictor(
        channels, landmarks, INTERMEDIATE_POINTS, SOFTARGMAX_MUL, map_shape
    )


def build_readout(
    kind: str, channels: int, landmarks: int, side: int, map_shape: tuple[int, int] | None
) -> nn.Module:
    """Return a fresh readout of one of `KINDS` for images of ``side`` pixels.

    See `models.encoders.Levels` for ``map_shape``, which a fine-tuned one has no use for.
    """
    if kind == "ridge":
        return RidgeReadout(channels, landmarks, side, map_shape)
    if kind == "finetune":
        return HeatmapHead(channels, landmarks, side)
    return build_regressor(channels, landmarks, map_shape)


def build_optimizer(
    regressor: nn.Module,
    *,
    learning_rate: float,
    momentum: float,
    weight_decay: float,
    adam: bool,
    amsgrad: bool,
    betas: tuple[float, float],
) -> torch.optim.Optimizer:
    """Return Adam or SGD over all parameters, in the published order."""
    shared: dict[str, Any] = {"lr": learning_rate, "weight_decay": weight_decay}
    if adam or amsgrad:
        return torch.optim.Adam(regressor.parameters(), betas=betas, amsgrad=amsgrad, **shared)
    return torch.optim.SGD(regressor.parameters(), momentum=momentum, **shared)


def train_one_epoch(
    regressor: nn.Module,
    optimizer: torch.optim.Optimizer,
    task: Task,
    images: EncodedImages,
    epoch: int,
    log: RunLog,
    print_freq: int,
) -> Scores:
    """Take one step a batch; return the epoch's mean loss and metrics."""
    regressor.train()
    mean = WeightedMean()
    for step, batch in enumerate(progress(images.batches(epoch), f"epoch {epoch}"), 1):
        pred, loss = predict(regressor, task, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        mean.add({"loss": loss.detach()}, len(batch.points))
        mean.add_metrics(task, pred.detach(), batch.points, batch.visible)
        if step % print_freq == 0:
            log.step(f"epoch {epoch}  step {step}/{len(images)}  loss {mean.result()['loss']:.5f}")
    return mean.result()


@torch.no_grad()
def evaluate(regressor: nn.Module, task: Task, images: EncodedImages) -> Scores:
    """Return loss and metrics over a data set: means by the batches' sizes, and by `judged`."""
    regressor.eval()
    mean = WeightedMean()
    for batch in images.batches(epoch=0):
        pred, loss = predict(regressor, task, batch)
        mean.add({"loss": loss}, len(batch.points))
        mean.add_metrics(task, pred, batch.points, batch.visible)
    return mean.result()


class Landmarks(NamedTuple):
    """What a readout found in N images, on the CPU.

    Args:
        points: (N, A, 2) in [-1, 1].
        confidence: (N, A) in [0, 1]; NaN of the published regressor, which tells none.
    """

    points: Tensor
    confidence: Tensor


@torch.no_grad()
def predict_landmarks(regressor: nn.Module, images: EncodedImages) -> Landmarks:
    """Return what a readout finds in a data set that isn't shuffled."""
    regressor.eval()
    found = [read_landmarks(regressor(batch.features)) for batch in images.batches(epoch=0)]
    return Landmarks(*map(torch.cat, zip(*found, strict=True)))


def read_landmarks(output: tuple[Tensor, Tensor]) -> Landmarks:
    """Return a readout's output as landmarks; the published one's other output are points."""
    points, other = (part.cpu() for part in output)
    nothing = torch.full(points.shape[:2], math.nan)
    return Landmarks(points, other if other.shape == nothing.shape else nothing)


def judged_split(held_out: Mapping[str, T]) -> tuple[str, T]:
    """Return the split that baselines are judged by: ``Test``, or else the first one."""
    name = "Test" if "Test" in held_out else next(iter(held_out))
    return name, held_out[name]


def predict(regressor: nn.Module, task: Task, batch: Batch) -> tuple[Tensor, Tensor]:
    """Return the landmarks (B, A, 2) in [-1, 1] and their loss."""
    pred, _ = regressor(batch.features)
    return pred, task.loss(pred, batch.points, batch.visible)


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


def load_regressor(
    path: str | None,
    regressor: nn.Module,
    encoder: nn.Module,
    hint: str,
    frame: Mapping[str, int] | None = None,
) -> list[str]:
    """Load a regressor to be used on an encoder; return what the user should know about it.

    Without a path it stays untrained. The encoder is compared with the one that the regressor was
    trained on, where that is noted; ``hint`` names the flags behind the regressor's shape. So is
    the ``frame`` of the images, which are flags with their values.

    Raises:
        InputError: if the checkpoint doesn't fit.
    """
    if path is None:
        return ["no --ckpt_path: the regressor is untrained too, its landmarks are noise"]
    kinds = {RidgeReadout: "ridge", HeatmapHead: "heatmaps"}
    entry = kinds.get(type(regressor), "regressor")
    content = check_kind(path, entry)
    load_weights(regressor, content[entry], path, hint)
    held = vars(content["opt"])
    other = {
        name: held[name] for name, value in (frame or {}).items() if held.get(name, value) != value
    }
    notices = [f"warning: {path} was trained with {in_flags(other)}"] if other else []
    if entry == "heatmaps":  # which holds its encoder
        return notices
    if content.get("encoder_digest", digest := weights_digest(encoder)) != digest:
        notices.append(
            f"warning: {path} was trained on the features of another encoder than this one"
        )
    return notices


def in_flags(values: Mapping[str, object]) -> str:
    """Return options as they are given on a command line."""
    return " ".join(f"--{name} {excerpt(str(value))}" for name, value in values.items())


def check_own_maps(projection: str | None) -> None:
    """Raise an `InputError` if fine-tuning, which trains an encoder's own maps, is to project."""
    if projection is not None:
        raise InputError(
            f"--projection {projection}: not with --regressor finetune, which changes the encoder "
            "that it belongs to"
        )


def check_kind(path: str, entry: str) -> dict:
    """Return a checkpoint's content, which must have the entry of one of `KINDS`.

    Raises:
        InputError: if it is of another kind of readout, or of none.
    """
    refuse_other_kind(path, load_checkpoint(path, ("opt", "epoch")), entry)
    return load_checkpoint(path, ("opt", "epoch", entry))


def find_entry(path: str, content: dict) -> str:
    """Return the entry, a key of `KINDS`, of the readout that a checkpoint's content holds.

    Raises:
        InputError: if it holds none.
    """
    for entry in KINDS:
        if entry in content:
            return entry
    raise InputError(f"{path}: holds no readout ({', '.join(KINDS)}), but an encoder at most")


def refuse_other_kind(path: str | Path, content: dict, entry: str) -> None:
    """Raise an `InputError` if a checkpoint has the entry of another one of `KINDS` instead."""
    if entry not in content and (others := [kind for key, kind in KINDS.items() if key in content]):
        raise InputError(f"{path}: of --regressor {others[0]}, not {KINDS[entry]}")
