"""The fit of a regressor as a run: epochs, scores, checkpoints [spec 5, 7]."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from engine.encoded_images import EncodedImages
from engine.encoder_loading import EncoderSettings
from engine.regressor_training import (
    Scores,
    Task,
    baseline,
    build_optimizer,
    evaluate,
    judged_split,
    mean_shape,
    train_one_epoch,
)
from engine.resumption import save_current
from engine.run import RunSettings
from utils.checkpoint import load_checkpoint, load_weights, save_checkpoint
from utils.errors import InputError, check_finite
from utils.interruption import Interruption
from utils.log import RunLog, Stopwatch
from utils.schedule import regressor_lr, set_learning_rate


@dataclass(frozen=True)
class EvaluationSettings(EncoderSettings, RunSettings):
    """How a regressor is fitted, scored and saved."""

    regressor: str
    epochs: int
    learning_rate: float
    lr_decay_epochs: Sequence[int]
    lr_decay_rate: float
    cosine: bool
    multistep: bool
    momentum: float
    weight_decay: float
    adam: bool
    amsgrad: bool
    beta1: float
    beta2: float
    print_freq: int
    save_freq: int
    restrict_annos: int
    repeat: bool
    num_per_epoch: int
    finetune_steps: int
    finetune_batch: int
    finetune_rate: float
    finetune_spread: float
    feature_cache: str
    cache_folder: Path | None
    cache_gb: float | None

    @property
    def best_path(self) -> Path:
        """The checkpoint that is named after the encoder; some systems take no colon in a name."""
        return self.folder / f"{self.model.replace(':', '_')}.pth"


class RegressorRun:
    """A regressor with its optimizer, the epochs done and the best scores.

    ``encoder_digest`` is that of the encoder's weights; checkpoints note it, and have further
    entries, ``notes``.
    """

    def __init__(
        self,
        settings: EvaluationSettings,
        task: Task,
        regressor: nn.Module,
        encoder_digest: str,
        notes: Mapping[str, object] | None = None,
    ) -> None:
        self.settings, self.task, self.regressor = settings, task, regressor
        self.encoder_digest, self.notes = encoder_digest, notes or {}
        self.optimizer = build_optimizer(
            regressor,
            learning_rate=settings.learning_rate,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
            adam=settings.adam,
            amsgrad=settings.amsgrad,
            betas=(settings.beta1, settings.beta2),
        )
        self.done, self.best = 0, task.worst()

    def resume(self, path: Path, content: dict) -> None:
        """Restore what a checkpoint holds.

        Raises:
            InputError: if it doesn't fit, or was trained on another encoder's features.
        """
        settings, digest = self.settings, self.encoder_digest
        if content.get("encoder_digest", digest) != digest and not settings.override:
            raise InputError(
                f"{path}: was trained on the features of another encoder; --override to insist"
            )
        load_weights(self.regressor, content["regressor"], path, settings.hint)
        try:
            self.optimizer.load_state_dict(content["optimizer"])
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path}: the optimizer's state doesn't fit ({error})") from None
        best = {name: float(content.get(name, worst)) for name, worst in self.task.worst().items()}
        self.done, self.best = content["epoch"], {**best, "best_epoch": int(best["best_epoch"])}

    def fit(
        self, train: EncodedImages, held_out: dict[str, EncodedImages], log: RunLog
    ) -> dict[str, object]:
        """Train, evaluate and save epoch by epoch; return what ``result.json`` holds of the fit.

        Raises:
            InputError: if the loss or the deciding score isn't finite any more.
        """
        split, judged = judged_split(held_out)
        shape = baseline(self.task, mean_shape(*train.annotations()), judged)
        log.line(f"mean shape: {in_words(self.task, {split: shape})}")
        last: dict[str, Scores] = {}
        with Interruption() as interruption:
            for epoch in range(self.done + 1, self.settings.epochs + 1):
                last = self.run_epoch(epoch, train, held_out, log)
                if interruption.received:
                    interruption.leave(interruption.received)
        epochs = max(self.done, self.settings.epochs)
        last = last or self.evaluate(held_out)  # the checkpoint was of the last epoch already
        log.line(f"after the last epoch ({epochs}): {in_words(self.task, last)}")
        log.line(self.best_in_words())
        return {"epochs": epochs, "last": last, "best": self.best, "mean_shape": shape}

    @property
    def readout(self) -> nn.Module:
        """The regressor of the best epoch."""
        path = self.settings.best_path
        if self.task.best and path.is_file():
            content = load_checkpoint(path, ("regressor",))
            load_weights(self.regressor, content["regressor"], path, self.settings.hint)
        return self.regressor

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
            self.regressor, self.optimizer, task, train, epoch, log, settings.print_freq
        )
        check_finite("the loss", trained["loss"], epoch)
        scores = self.evaluate(held_out)
        for split, name in list(task.best.values())[:1]:
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
            + f"  learning rate {lr:.5f}  {watch.seconds():.1f} s"
        )
        self.save(epoch, improved)
        return scores

    def save(self, epoch: int, improved: bool) -> None:
        """Write ``current.pth``, the best epoch's file, and files to be kept."""
        settings = self.settings
        content = {
            "opt": settings.options,
            "encoder_digest": self.encoder_digest,
            "epoch": epoch,
            **self.best,
            "regressor": self.regressor.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            **self.notes,
        }
        if improved:
            save_checkpoint(settings.best_path, content)
        if epoch % settings.save_freq == 0 or epoch == settings.epochs:
            save_checkpoint(settings.folder / f"ckpt_epoch_{epoch}.pth", content)
        save_current(settings.folder, content, settings.keep_last)

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
