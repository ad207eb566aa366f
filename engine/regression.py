"""Fitting of a landmark regressor on frozen features, and its evaluation [spec 5].

The face and the bird scripts share all of it; a `Task` says what differs between them.
Letters: B images of a batch, A landmarks.
"""

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from engine.features import Batch, EncodedImages
from models.encoders import weights_digest
from models.keypoint_prediction import IntermediateKeypointPredictor
from utils.arguments import adam_beta
from utils.checkpoint import load_checkpoint, load_weights
from utils.errors import InputError
from utils.log import RunLog, Stopwatch, progress
from utils.schedule import add_schedule_arguments, set_learning_rate

INTERMEDIATE_POINTS = 50  # [spec 5] for each landmark
SOFTARGMAX_MUL = 100.0  # [spec 5]
REGRESSOR_KEYS = ("opt", "epoch", "regressor", "optimizer")  # of a checkpoint [spec 7]

# (prediction (B, A, 2), truth (B, A, 2), visible (B, A)) to a scalar
Score = Callable[[Tensor, Tensor, Tensor], Tensor]
Scores = dict[str, float]


@dataclass(frozen=True)
class Task:
    """What differs between benchmarks.

    Args:
        loss: what is minimised.
        metrics: name to score.
        best: checkpoint entry to the (split, metric) it keeps; the first one decides which epoch
            is the best.
        lower_is_better: how it decides.
        unit: of the metrics, in words.
        mean_shape: points (N, A, 2) and visible (N, A) of the training images to a shape (A, 2).
    """

    loss: Score
    metrics: dict[str, Score]
    best: dict[str, tuple[str, str]]
    lower_is_better: bool
    unit: str
    mean_shape: Callable[[Tensor, Tensor], Tensor]

    def improves(self, new: Scores, old: Scores) -> bool:
        """Compare two epochs by the first entry of ``best``."""
        entry = next(iter(self.best))
        return new[entry] < old[entry] if self.lower_is_better else new[entry] > old[entry]

    def worst(self) -> Scores:
        """Return entries that any epoch improves on."""
        return dict.fromkeys(self.best, math.inf if self.lower_is_better else -math.inf)


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
    group.add_argument(
        "--multistep", action="store_true", help="decay tenfold at epochs 100 and 250"
    )
    group.add_argument("--adam", action="store_true", help="Adam instead of SGD")
    group.add_argument("--amsgrad", action="store_true", help="its AMSGrad variant")
    group.add_argument("--beta1", type=adam_beta, default=0.5, help="of Adam")
    group.add_argument("--beta2", type=adam_beta, default=0.999, help="of Adam")


def build_regressor(channels: int, landmarks: int) -> IntermediateKeypointPredictor:
    """Return a fresh regressor for features of so many channels."""
    return IntermediateKeypointPredictor(
        channels, landmarks, INTERMEDIATE_POINTS, softargmax_mul=SOFTARGMAX_MUL
    )


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
    if adam or amsgrad:
        return torch.optim.Adam(
            regressor.parameters(),
            lr=learning_rate,
            betas=betas,
            weight_decay=weight_decay,
            amsgrad=amsgrad,
        )
    return torch.optim.SGD(
        regressor.parameters(), lr=learning_rate, momentum=momentum, weight_decay=weight_decay
    )


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
        pred, loss, count = predict(regressor, task, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        mean.add(scores(pred.detach(), loss.detach(), task, batch), count)
        if step % print_freq == 0:
            log.step(f"epoch {epoch}  step {step}/{len(images)}  loss {mean.result()['loss']:.5f}")
    return mean.result()


@torch.no_grad()
def evaluate(regressor: nn.Module, task: Task, images: EncodedImages) -> Scores:
    """Return loss and metrics over a data set, averaged over batches by their size."""
    regressor.eval()
    mean = WeightedMean()
    for batch in images.batches(epoch=0):
        pred, loss, count = predict(regressor, task, batch)
        mean.add(scores(pred, loss, task, batch), count)
    return mean.result()


def predict(regressor: nn.Module, task: Task, batch: Batch) -> tuple[Tensor, Tensor, int]:
    """Return the landmarks (B, A, 2) in [-1, 1], their loss and B."""
    pred, _ = regressor(batch.features)
    return pred, task.loss(pred, batch.points, batch.visible), len(batch.points)


def scores(pred: Tensor, loss: Tensor, task: Task, batch: Batch) -> dict[str, Tensor]:
    """Return loss and metrics of a batch, still on the device."""
    metrics = task.metrics.items()
    return {"loss": loss} | {n: metric(pred, batch.points, batch.visible) for n, metric in metrics}


class WeightedMean:
    """Mean of batches' scores by their size, read from the device only when asked for."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.count = 0

    def add(self, values: dict[str, Tensor], count: int) -> None:
        """Add a batch of ``count`` images."""
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0) + value * count
        self.count += count

    def result(self) -> Scores:
        """Return the means so far."""
        return {name: float(value) / self.count for name, value in self.sums.items()}


def fit(
    regressor: nn.Module,
    optimizer: torch.optim.Optimizer,
    task: Task,
    train: EncodedImages,
    held_out: dict[str, EncodedImages],
    *,
    lr_of_epoch: Callable[[int], float],
    first_epoch: int,
    epochs: int,
    best: Scores,
    log: RunLog,
    print_freq: int,
    save: Callable[[int, Scores, bool], None],
) -> tuple[dict[str, Scores], Scores]:
    """Train and evaluate epoch by epoch.

    Args:
        regressor: is trained.
        optimizer: of the regressor.
        task: losses and scores.
        train: training images.
        held_out: split to its images.
        lr_of_epoch: learning rate of an epoch.
        first_epoch: counted from 1.
        epochs: the last one.
        best: entries of ``task.best`` so far, and ``best_epoch``.
        log: receives lines and scalars.
        print_freq: steps between lines.
        save: called with the epoch, the best entries and whether this epoch improved on them.

    Returns:
        The last epoch's scores by split, and the best entries with ``best_epoch``.
    """
    last: dict[str, Scores] = {}
    for epoch in range(first_epoch, epochs + 1):
        rate, watch = lr_of_epoch(epoch), Stopwatch()
        set_learning_rate(optimizer, rate)
        trained = train_one_epoch(regressor, optimizer, task, train, epoch, log, print_freq)
        if not math.isfinite(trained["loss"]):
            raise InputError(
                f"the loss is {trained['loss']} after epoch {epoch}: not saved; try a smaller "
                "--learning_rate"
            )
        last = {split: evaluate(regressor, task, images) for split, images in held_out.items()}
        entries = {entry: last[split][name] for entry, (split, name) in task.best.items()}
        improved = task.improves(entries, best)
        if improved:
            best = {**entries, "best_epoch": epoch}
        log.record(epoch, learning_rate=rate, **named_scalars(task, trained, last))
        log.line(
            f"epoch {epoch}/{epochs}  loss {trained['loss']:.5f}  "
            + "  ".join(
                f"{split} {name} {values[name]:.2f} %"
                for split, values in {"train": trained, **last}.items()
                for name in task.metrics
            )
            + f"  rate {rate:.5f}  {watch.seconds():.1f} s"
        )
        save(epoch, best, improved)
    if not last:  # all epochs lay behind the checkpoint already
        last = {split: evaluate(regressor, task, images) for split, images in held_out.items()}
    return last, best


def named_scalars(task: Task, trained: Scores, last: dict[str, Scores]) -> Scores:
    """Return an epoch's scores under the scalars' published names [spec 7]."""
    named = {"train_loss": trained["loss"], **{name: trained[name] for name in task.metrics}}
    for split, values in last.items():
        named[f"{split.lower()}_loss"] = values["loss"]
        named.update({f"{split}_{name}": values[name] for name in task.metrics})
    return named


def baseline(task: Task, shape: Tensor, images: EncodedImages) -> Scores:
    """Return the scores of predicting one shape (A, 2) for every image."""
    mean = WeightedMean()
    for batch in images.batches(epoch=0):
        pred = shape.to(batch.points).expand_as(batch.points)
        metrics = task.metrics.items()
        values = {name: metric(pred, batch.points, batch.visible) for name, metric in metrics}
        mean.add(values, len(batch.points))
    return mean.result()


def regressor_states(
    regressor: nn.Module, optimizer: torch.optim.Optimizer, **entries: object
) -> dict:
    """Return a regressor's checkpoint [spec 7] with further entries."""
    return {**entries, "regressor": regressor.state_dict(), "optimizer": optimizer.state_dict()}


def load_regressor(path: str, regressor: nn.Module, hint: str) -> dict:
    """Load a regressor's weights; return the checkpoint.

    Args:
        path: the file.
        regressor: receives the weights.
        hint: the flags the regressor was built from, for the message.

    Raises:
        InputError: if the checkpoint doesn't fit.
    """
    content = load_checkpoint(path, REGRESSOR_KEYS)
    load_weights(regressor, content["regressor"], path, hint)
    return content


def load_regressor_for(
    path: str | None, regressor: nn.Module, encoder: nn.Module, hint: str
) -> list[str]:
    """Load a regressor to be used on an encoder; return what the user should know about it.

    Args:
        path: the checkpoint; None leaves the regressor untrained.
        regressor: receives the weights.
        encoder: compared with the one that the regressor was trained on, where that is noted.
        hint: see `load_regressor`.
    """
    if path is None:
        return ["no --ckpt_path: the regressor is untrained too, its landmarks are noise"]
    content = load_regressor(path, regressor, hint)
    if content.get("encoder_digest", digest := weights_digest(encoder)) != digest:
        return [f"warning: {path} was trained on the features of another encoder than this one"]
    return []


def resume_regressor(
    path: str | Path,
    content: dict,
    regressor: nn.Module,
    optimizer: torch.optim.Optimizer,
    task: Task,
    hint: str,
) -> tuple[int, Scores]:
    """Restore a regressor and its optimizer from a checkpoint that was read from a path.

    Returns:
        The epochs done and the best entries.
    """
    load_weights(regressor, content["regressor"], path, hint)
    try:
        optimizer.load_state_dict(content["optimizer"])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: the optimizer's state doesn't fit ({error})") from None
    best = {entry: float(content.get(entry, worst)) for entry, worst in task.worst().items()}
    return content["epoch"], {**best, "best_epoch": content.get("best_epoch", 0)}
