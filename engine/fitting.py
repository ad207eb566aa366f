"""The fit of a regressor as a run: epochs, scores, checkpoints [spec 5, 7]."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from engine.encoded_images import EncodedImages
from engine.regression import Scores, Task, evaluate, regressor_states, train_one_epoch
from engine.resumption import save_current
from utils.checkpoint import save_checkpoint
from utils.errors import InputError
from utils.interruption import Interruption
from utils.log import RunLog, Stopwatch
from utils.schedule import set_learning_rate


@dataclass(frozen=True)
class FitSettings:
    """How long a regressor is fitted, and what is written.

    Args:
        epochs: the last one; epochs are counted from 1.
        lr_of_epoch: an epoch to its learning rate.
        print_freq: steps between lines of the log.
        save_freq: epochs between checkpoints that are kept.
        keep_last: versions of ``current.pth`` that are kept.
        folder: of the checkpoints.
        best_name: file name of the best epoch's checkpoint.
        entries: further ones of each checkpoint.
    """

    epochs: int
    lr_of_epoch: Callable[[int], float]
    print_freq: int
    save_freq: int
    keep_last: int
    folder: Path
    best_name: str
    entries: dict[str, object]


class RegressorRun:
    """A regressor with its optimizer, the epochs done and the best scores.

    Args:
        task: loss and metrics.
        regressor: is trained.
        optimizer: of the regressor.
        settings: see `FitSettings`.
    """

    def __init__(
        self,
        task: Task,
        regressor: nn.Module,
        optimizer: torch.optim.Optimizer,
        settings: FitSettings,
    ) -> None:
        self.task, self.regressor, self.optimizer = task, regressor, optimizer
        self.settings = settings
        self.done, self.best = 0, task.worst()

    def fit(
        self, train: EncodedImages, held_out: dict[str, EncodedImages], log: RunLog
    ) -> dict[str, Scores]:
        """Train, evaluate and save epoch by epoch; return the last epoch's scores by split.

        Raises:
            InputError: if the loss or the deciding score isn't finite any more.
        """
        last: dict[str, Scores] = {}
        with Interruption() as interruption:
            for epoch in range(self.done + 1, self.settings.epochs + 1):
                last = self.run_epoch(epoch, train, held_out, log)
                if interruption.received:
                    interruption.leave(interruption.received)
        return last or self.evaluate(held_out)  # all epochs lay behind the checkpoint already

    def evaluate(self, held_out: dict[str, EncodedImages]) -> dict[str, Scores]:
        """Return the scores of each split."""
        return {s: evaluate(self.regressor, self.task, images) for s, images in held_out.items()}

    def run_epoch(
        self,
        epoch: int,
        train: EncodedImages,
        held_out: dict[str, EncodedImages],
        log: RunLog,
    ) -> dict[str, Scores]:
        """Train and evaluate for one epoch, and save; return the scores by split."""
        task, settings = self.task, self.settings
        lr, watch = settings.lr_of_epoch(epoch), Stopwatch()
        set_learning_rate(self.optimizer, lr)
        trained = train_one_epoch(
            self.regressor, self.optimizer, task, train, epoch, log, settings.print_freq
        )
        check_finite("the loss", trained["loss"], epoch)
        scores = self.evaluate(held_out)
        split, name = next(iter(task.best.values()))
        check_finite(f"{split} {name}", scores[split][name], epoch)
        entries = {entry: scores[split][name] for entry, (split, name) in task.best.items()}
        improved = task.improves(entries, self.best)
        if improved:
            self.best = {**entries, "best_epoch": epoch}
        log.record(epoch, learning_rate=lr, **named_scalars(task, trained, scores))
        log.line(
            f"epoch {epoch}/{settings.epochs}  loss {trained['loss']:.5f}  "
            + "  ".join(
                f"{split} {name} {values[name]:.2f} %"
                for split, values in {"train": trained, **scores}.items()
                for name in task.metrics
            )
            + f"  rate {lr:.5f}  {watch.seconds():.1f} s"
        )
        self.save(epoch, improved)
        return scores

    def save(self, epoch: int, improved: bool) -> None:
        """Write ``current.pth``, the best epoch's file, and files to be kept."""
        settings = self.settings
        content = regressor_states(
            self.regressor, self.optimizer, **settings.entries, epoch=epoch, **self.best
        )
        if improved:
            save_checkpoint(settings.folder / settings.best_name, content)
        if epoch % settings.save_freq == 0 or epoch == settings.epochs:
            save_checkpoint(settings.folder / f"ckpt_epoch_{epoch}.pth", content)
        save_current(settings.folder, content, settings.keep_last)

    def best_in_words(self) -> str:
        """Return the best epoch's entries as one line, and by what it was picked."""
        task, settings = self.task, self.settings
        entries = "  ".join(f"{entry} {self.best[entry]:.2f}" for entry in task.best)
        split, _ = next(iter(task.best.values()))
        caution = ", as published: too good to quote" if split == "Test" else ""
        path = settings.folder / settings.best_name
        return (
            f"best epoch ({self.best['best_epoch']}): {entries}; picked on the {split} "
            f"set{caution}; {path}"
        )


def check_finite(what: str, value: float, epoch: int) -> None:
    """Raise an `InputError` that advises a smaller learning rate unless a value is finite."""
    if not math.isfinite(value):
        raise InputError(
            f"{what} is {value} after epoch {epoch}: not saved; try a smaller --learning_rate"
        )


def named_scalars(task: Task, trained: Scores, last: dict[str, Scores]) -> Scores:
    """Return an epoch's scores under the scalars' published names [spec 7]."""
    named = {"train_loss": trained["loss"], **{name: trained[name] for name in task.metrics}}
    for split, values in last.items():
        named[f"{split.lower()}_loss"] = values["loss"]
        named.update({f"{split}_{name}": values[name] for name in task.metrics})
    return named


def in_words(task: Task, scores: dict[str, Scores]) -> str:
    """Return each split's metrics as one line."""
    return (
        "  ".join(
            f"{split} {name} {values[name]:.2f}"
            for split, values in scores.items()
            for name in task.metrics
        )
        + f" ({task.unit})"
    )
