"""The published readout: a regressor trained by gradient descent on frozen features [spec 5, 7]."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from engine.features.images import EncodedImages
from engine.readouts.readout import EvaluationSettings, Readout
from engine.readouts.task import Scores, Task, WeightedMean
from models.keypoint_prediction import (
    ConfidentRegressor,
    IntermediateKeypointPredictor,
    read_with_confidence,
)
from models.landmarks import Landmarks
from utils.arguments import adam_beta
from utils.checkpoint import load_checkpoint
from utils.errors import InputError, check_finite
from utils.interruption import Interruption
from utils.log import RunLog, Stopwatch, progress
from utils.schedule import add_schedule_arguments, regressor_lr, set_learning_rate

INTERMEDIATE_POINTS = 50  # [spec 5] for each landmark
SOFTARGMAX_MUL = 100.0  # [spec 5]
OPTIMIZATION = (  # flags of its fit
    *("epochs", "learning_rate", "lr_decay_epochs", "lr_decay_rate", "cosine", "multistep"),
    *("momentum", "weight_decay", "adam", "amsgrad", "beta1", "beta2"),
)


class PublishedReadout(Readout):
    """`IntermediateKeypointPredictor`, which tells no confidence of its own."""

    kind, entry = "published", "regressor"
    keys = ("opt", "epoch", "regressor", "optimizer")  # [spec 7]
    counted = ("reg_conv.weight", 2)
    module: IntermediateKeypointPredictor
    optimizer: torch.optim.Optimizer
    best: Scores

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
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
            "--beta2",
            type=adam_beta,
            default=0.999,
            help="decay rate of Adam's mean squared gradient",
        )

    @staticmethod
    def build(
        channels: int, landmarks: int, side: int, shape: tuple[int, int] | None
    ) -> IntermediateKeypointPredictor:
        """Return a fresh regressor; see `Readout.build`."""
        return IntermediateKeypointPredictor(
            channels, landmarks, INTERMEDIATE_POINTS, softargmax_mul=SOFTARGMAX_MUL, map_shape=shape
        )

    def __call__(self, features: Sequence[Tensor]) -> Landmarks:
        """Return the landmarks in maps, without confidence."""
        points, _ = self.module(features)
        return Landmarks(points, points.new_full(points.shape[:2], torch.nan))

    def with_confidence(self, features: Sequence[Tensor]) -> Landmarks:
        """Return them with what the width of each soft-argmax tells."""
        return Landmarks(*read_with_confidence(self.module, features))

    def exportable(self) -> nn.Module:
        """Return the regressor with its confidence."""
        return ConfidentRegressor(self.module)

    def prepare(self) -> None:
        """Make the optimizer; no epoch is done."""
        self.optimizer = build_optimizer(self.module, self.settings)
        self.best = self.task.worst()

    def resume(self, path: Path, content: dict) -> None:
        """Restore regressor, optimizer and the best scores; see `Readout.resume`."""
        super().resume(path, content)
        load_optimizer(self.optimizer, path, content)
        worst = self.task.worst()
        best = {name: float(content.get(name, value)) for name, value in worst.items()}
        self.best = {**best, "best_epoch": int(best["best_epoch"])}

    def fit(
        self, train: EncodedImages, held_out: dict[str, EncodedImages], log: RunLog
    ) -> dict[str, object]:
        """Train, evaluate and save epoch by epoch; see `Readout.fit`.

        Raises:
            InputError: if the loss or the deciding score isn't finite any more.
        """
        settings, task = self.settings, self.task
        shape = self.score_mean_shape(*train.annotations(), held_out, log)
        last: dict[str, Scores] = {}
        with Interruption() as interruption:
            for epoch in range(self.done + 1, settings.epochs + 1):
                last = self.run_epoch(epoch, train, held_out, log)
                if interruption.received:
                    interruption.leave(interruption.received)
        epochs = max(self.done, settings.epochs)
        last = last or self.evaluate(held_out)  # the checkpoint was of the last epoch already
        log.line(f"after the last epoch ({epochs}): {task.in_words(last)}")
        log.line(self.best_in_words())
        if task.best and settings.best_path.is_file():
            path = settings.best_path
            self.load(path, load_checkpoint(path, (self.entry,)), settings.hint)
        return {"epochs": epochs, "last": last, "best": self.best, "mean_shape": shape}

    def run_epoch(
        self, epoch: int, train: EncodedImages, held_out: Mapping[str, EncodedImages], log: RunLog
    ) -> dict[str, Scores]:
        """Train and evaluate for one epoch, and save; return the scores by split."""
        task, settings = self.task, self.settings
        watch = Stopwatch()
        lr = regressor_lr(
            epoch,
            base=settings.learning_rate,
            epochs=settings.epochs,
            decay_epochs=settings.lr_decay_epochs,
            rate=settings.lr_decay_rate,
            cosine=settings.cosine,
            multistep=settings.multistep,
        )
        set_learning_rate(self.optimizer, lr)
        trained = train_one_epoch(
            self.module, self.optimizer, task, train, epoch, log, settings.print_freq
        )
        check_finite("the loss", trained["loss"], epoch)
        scores = self.evaluate(held_out)
        for split, name in list(task.best.values())[:1]:
            check_finite(f"{split} {name}", scores[split][name], epoch)
        entries = {entry: scores[split][name] for entry, (split, name) in task.best.items()}
        improved = task.improves(entries, self.best)
        if improved:
            self.best = {**entries, "best_epoch": epoch}
        scalars = {"train_loss": trained["loss"], **{n: trained[n] for n in task.metrics}}
        for split, values in scores.items():  # under their published names [spec 7]
            scalars[f"{split.lower()}_loss"] = values["loss"]
            scalars |= {f"{split}_{name}": values[name] for name in task.metrics}
        log.record(epoch, learning_rate=lr, **scalars)
        log.line(
            f"epoch {epoch}/{settings.epochs}  loss {trained['loss']:.5f}  "
            + "  ".join(
                f"{split} {name} {values[name]:.2f} %"
                for split, values in {"train": trained, **scores}.items()
                for name in task.metrics
            )
            + f"  learning rate {lr:.5f}  {watch.seconds():.1f} s"
        )
        self.done = epoch
        self.save(improved)
        return scores

    def save(self, improved: bool) -> None:
        """Write ``current.pth``, the best epoch's file, and files to be kept."""
        epoch, settings = self.done, self.settings
        optimizer = self.optimizer.state_dict()
        content = self.checkpoint(epoch, **self.best, **self.state(), optimizer=optimizer)
        keep = epoch % settings.save_freq == 0 or epoch == settings.epochs
        self.write(content, content if improved else None, keep)

    def best_in_words(self) -> str:
        """Return the best epoch's entries as one line, and by what it was picked."""
        task, settings = self.task, self.settings
        if not task.best:
            return f"no validation images: kept is the last epoch; {settings.best_path}"
        entries = "  ".join(f"{entry} {self.best[entry]:.2f}" for entry in task.best)
        split, _ = next(iter(task.best.values()))
        caution = ", as published: too good to quote" if split == "Test" else ""
        return (
            f"best epoch ({self.best['best_epoch']}): {entries}; picked on the {split} "
            f"set{caution}; {settings.best_path}"
        )


def build_optimizer(regressor: nn.Module, settings: EvaluationSettings) -> torch.optim.Optimizer:
    """Return Adam or SGD over all parameters, in the published order."""
    shared: dict[str, Any] = {"lr": settings.learning_rate, "weight_decay": settings.weight_decay}
    if settings.adam or settings.amsgrad:
        betas = settings.beta1, settings.beta2
        return torch.optim.Adam(
            regressor.parameters(), betas=betas, amsgrad=settings.amsgrad, **shared
        )
    return torch.optim.SGD(regressor.parameters(), momentum=settings.momentum, **shared)


def load_optimizer(optimizer: torch.optim.Optimizer, path: Path, content: dict) -> None:
    """Take the optimizer's state of a checkpoint.

    Raises:
        InputError: if it is of other parameters.
    """
    try:
        optimizer.load_state_dict(content["optimizer"])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: the optimizer's state doesn't fit ({error})") from None


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
        pred, _ = regressor(batch.features)  # (B, A, 2)
        loss = task.loss(pred, batch.points, batch.visible)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        mean.add({"loss": loss.detach()}, len(batch.points))
        mean.add_metrics(task, pred.detach(), batch.points, batch.visible)
        if step % print_freq == 0:
            log.step(f"epoch {epoch}  step {step}/{len(images)}  loss {mean.result()['loss']:.5f}")
    return mean.result()
