"""What a pre-training run is made of between two steps: kept in checkpoints, and restored.

[spec 4, 7.]
"""

import argparse
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol, cast

import torch
from torch import Tensor, nn

from engine.acceleration import accelerate
from engine.resumption import save_current, steps_begun
from engine.run import RunSettings
from models.dense_contrast import DenseEmbedding
from models.encoders import build_random_encoder
from models.momentum import copy_parameters, set_key_mode
from models.nce import MemoryMoCo
from models.resnet import InsResNet
from utils.arguments import allow_change, positive_float
from utils.checkpoint import load_weights, save_checkpoint
from utils.collectives import (
    BatchSplit,
    all_reduce_max,
    all_reduce_sum,
    broadcast_buffers,
    check_identical,
)
from utils.errors import InputError
from utils.files import excerpt, reason
from utils.interruption import Interruption
from utils.log import RunLog, Stopwatch
from utils.process_group import is_first_rank, leave_process_group
from utils.randomness import random_states, restore_random_states

CHECKPOINT_KEYS = ("opt", "model", "contrast", "optimizer", "epoch", "model_ema")
# The scale begins at 2 ** 16 and is halved each time; gradients that fit none of 20 scales are
# infinite themselves.
MAX_SKIPPED = 20


class TrainingState(Protocol):
    """What a step changes: what `save_run` writes and `restore` reads."""

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """Of all that is trained."""

    @property
    def scaler(self) -> torch.amp.GradScaler:
        """Of the gradients."""

    def modules(self) -> dict[str, nn.Module]:
        """Return what has weights or buffers, by its entry in a checkpoint."""

    def numbers(self) -> dict[str, int]:
        """Return further entries."""

    def restore_numbers(self, content: dict) -> None:
        """Take these from a checkpoint."""


class MoCoState(NamedTuple):
    """What a step of momentum contrast changes; a `TrainingState`."""

    query: InsResNet
    key: InsResNet
    contrast: MemoryMoCo
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler

    def modules(self) -> dict[str, nn.Module]:
        """Return what has weights or buffers, by its entry in a checkpoint."""
        return {"model": self.query, "model_ema": self.key, "contrast": self.contrast}

    def numbers(self) -> dict[str, int]:
        """Return the row of the queue that the next keys overwrite."""
        return {"queue_index": self.contrast.index}

    def restore_numbers(self, content: dict) -> None:
        """Take it from a checkpoint."""
        self.contrast.index = int(content["queue_index"]) % self.contrast.queue_size


class DenseState(NamedTuple):
    """What a step of dense contrast changes; a `TrainingState`."""

    embedding: DenseEmbedding
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler

    def modules(self) -> dict[str, nn.Module]:
        """Return what has weights or buffers, by its entry in a checkpoint."""
        return {"model": self.embedding.encoder, "head": self.embedding.head}

    def numbers(self) -> dict[str, int]:
        """Return further entries: none."""
        return {}

    def restore_numbers(self, content: dict) -> None:
        """Do nothing, for there are none."""


def build_encoders(
    model: str,
    side: int,
    seed: int,
    device: torch.device,
    virtual_gpus: int = 1,
    compiled: bool = False,
    recompute: bool = False,
) -> tuple[InsResNet, InsResNet]:
    """Return the query encoder and its copy, the key encoder, in their training modes.

    See `build_random_encoder`, `accelerate` and `models.parallel.DataParallel`.
    """
    query, key = (
        cast(InsResNet, build_random_encoder(model, side, seed).to(device)) for _ in range(2)
    )
    copy_parameters(query, key)
    for encoder in (query, key):
        encoder.encoder.virtual_gpus = virtual_gpus
        accelerate(encoder, compiled=compiled, recompute=recompute)
    query.train()
    set_key_mode(key)
    return query, key


@dataclass
class Position:
    """How far a run is: whole epochs, and steps, images and sums of the one under way.

    ``totals`` are sums over the epoch's images, such as of the loss, on the device. All counts
    are over all ranks.
    """

    totals: Tensor
    images_an_epoch: int
    batch_size: int
    epochs: int = 0
    steps: int = 0
    images: int = 0
    skipped: int = 0  # steps in a row, up to the last one

    def next_batch(self) -> int:
        """Return how many images the next step has, over all ranks."""
        return min(self.batch_size, self.images_an_epoch - self.images)

    def count_skipped(self, is_skipped: bool) -> None:
        """Count a step that the gradient scaler skipped, or begin anew after one that was taken.

        Raises:
            InputError: if too many were skipped in a row.
        """
        self.skipped = self.skipped + 1 if is_skipped else 0
        if self.skipped == MAX_SKIPPED:
            raise InputError(
                f"--amp fp16: the gradients of {MAX_SKIPPED} steps in a row are infinite or NaN, "
                "at whatever scale; try --amp bf16 or off, or a smaller --learning_rate"
            )

    def count_step(self, batch_split: BatchSplit, *means: Tensor) -> None:
        """Count a step, given what `totals` sums up as means over this rank's rows, scalars.

        Summed on the device: reading a number there would hold the next step up.
        """
        self.totals += all_reduce_sum(torch.stack(means).detach() * batch_split.own)
        self.images += batch_split.total
        self.steps += 1

    def means(self) -> list[float]:
        """Return the means of the epoch so far, of what `totals` sums up."""
        return (self.totals / self.images).tolist()

    def next_epoch(self) -> None:
        """Count the epoch as done."""
        self.epochs, self.steps, self.images = self.epochs + 1, 0, 0
        self.totals.zero_()


def save_run(
    run: RunSettings,
    order: str,
    state: TrainingState,
    position: Position,
    kept: bool = False,
    notes: Mapping[str, object] | None = None,
) -> None:
    """Write ``current.pth``, and the epoch's own file if it is to be kept [spec 7].

    ``epoch`` counts whole epochs, as the published code reads it; what stands under ``progress``
    belongs to the one after. The first rank writes, after all have compared what they hold.
    ``notes`` are entries of whom the encoder is handed to, see `ImageSet.noted_colours`.

    Raises:
        RuntimeError: if the ranks don't hold the same.
    """
    modules = state.modules()
    # BatchNorm's statistics are each rank's own; the queue has to be the same in all.
    broadcast_buffers(*(m for m in modules.values() if not isinstance(m, MemoryMoCo)))
    check_identical(**modules)
    if not is_first_rank():
        return
    content = {
        "opt": run.options,
        "order": order,
        **{entry: module.state_dict() for entry, module in modules.items()},
        "epoch": position.epochs,
        "optimizer": state.optimizer.state_dict(),
        **state.numbers(),
        "scaler": state.scaler.state_dict(),
        "progress": {
            "steps": position.steps,
            "images": position.images,
            "totals": position.totals,
        },
        "random_states": random_states(),
        **(notes or {}),
    }
    if kept:
        save_checkpoint(run.folder / f"ckpt_epoch_{position.epochs}.pth", content)
    save_current(run.folder, content, run.keep_last)


def add_save_argument(group: argparse._ArgumentGroup) -> None:
    """Declare how often a run is saved within an epoch."""
    group.add_argument(
        "--save_minutes",
        type=positive_float,
        default=30,
        metavar="MINUTES",
        help="write current.pth within an epoch, too, every so many minutes",
    )
    allow_change("save_minutes")


class PeriodicSave:
    """Save within an epoch when minutes have passed, and before an interruption ends the run."""

    def __init__(
        self, save: Callable[[Position], None], minutes: float, interruption: Interruption
    ) -> None:
        self.save, self.seconds, self.interruption = save, 60 * minutes, interruption
        self.watch = Stopwatch()

    def __call__(self, position: Position) -> None:
        """See the class; call it after each step, in all ranks.

        Raises:
            InputError: if what would be saved isn't finite.
        """
        is_late = is_first_rank() and self.watch.seconds() > self.seconds
        number, late = all_reduce_max(self.interruption.received or 0, is_late)
        if number or late:
            if not position.totals.isfinite().all():
                raise InputError(
                    f"the loss isn't finite in epoch {position.epochs + 1}: not saved; try a "
                    "smaller --learning_rate"
                )
            self.save(position)
            self.watch = Stopwatch()
        if number:
            leave_process_group()  # when the first has saved: the others' end would end it, too
            self.interruption.leave(signal.Signals(number))


def restore(
    path: Path,
    content: dict,
    state: TrainingState,
    position: Position,
    *,
    hint: str,
    order: str,
    override: bool,
    log: RunLog,
) -> None:
    """Restore all state from a checkpoint, ours or a published one, which the log receives.

    ``hint`` names the flags that the state was built from, for messages; ``override`` allows an
    epoch that began in another order (see `ImageSet.order_name`) to be resumed.

    Raises:
        InputError: if it doesn't fit, or an epoch can't be resumed as it began.
    """
    begun_in = str(content.get("order", order))
    if steps_begun(content) and begun_in != order and not override:
        raise InputError(
            f"{path}: is within an epoch of {excerpt(begun_in)}, not of {order}; --override to "
            "insist"
        )
    for entry, module in state.modules().items():
        load_weights(module, content[entry], path, hint)
    try:
        state.optimizer.load_state_dict(content["optimizer"])
        if content.get("scaler"):
            state.scaler.load_state_dict(content["scaler"])
        position.epochs = content["epoch"]
        if begun := content.get("progress"):
            position.steps, position.images = int(begun["steps"]), int(begun["images"])
            position.totals.copy_(begun["totals"])
        if "random_states" in content:
            state.restore_numbers(content)
            restore_random_states(content["random_states"])
    except Exception as error:  # whatever entries of other kinds lead to
        raise InputError(f"{path}: its state doesn't fit ({reason(error)})") from None
    if "random_states" not in content:
        log.line(
            f"{path}: a published checkpoint, without the queue's pointer and random states: "
            "the queue is overwritten from its start, random samples are new"
        )
