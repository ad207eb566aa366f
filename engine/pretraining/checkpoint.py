"""What a pre-training is between two steps: kept in checkpoints, and restored [spec 4, 7]."""

import math
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from engine.pretraining.objective import Descent, Objective
from engine.run.resumption import save_current, steps_begun
from engine.run.settings import RunSettings
from models.nce import MemoryMoCo
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

    @property
    def steps_an_epoch(self) -> int:
        """How many steps the epoch has, of those taken and left."""
        return self.steps + math.ceil((self.images_an_epoch - self.images) / self.batch_size)

    @property
    def step(self) -> int:
        """The number of the next step, counted from 0 over all epochs."""
        return self.epochs * self.steps_an_epoch + self.steps

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


@dataclass(eq=False)
class State:
    """All that a step changes, and the files that keep it."""

    run: RunSettings  # whose folder it is, and whose options are noted
    order: str  # what an epoch's order depends on, see `ImageSet.order_name`
    notes: Mapping[str, object]  # for users of the encoder, see `ImageSet.noted_colours`
    objective: Objective
    descent: Descent
    position: Position
    watch: Stopwatch = field(default_factory=Stopwatch)  # since a save within an epoch

    def save(self, kept: bool = False) -> None:
        """Write ``current.pth``, and the epoch's own file if it is to be kept [spec 7].

        ``epoch`` counts whole epochs, as the published code reads it; what stands under
        ``progress`` belongs to the one after. The first rank writes, after all have compared what
        they hold.

        Raises:
            RuntimeError: if the ranks don't hold the same.
        """
        run, position, modules = self.run, self.position, self.objective.modules
        # BatchNorm's statistics are each rank's own; the queue has to be the same in all.
        broadcast_buffers(*(m for m in modules.values() if not isinstance(m, MemoryMoCo)))
        check_identical(**modules)
        if not is_first_rank():
            return
        content = {
            "opt": run.options,
            "order": self.order,
            **{entry: module.state_dict() for entry, module in modules.items()},
            "epoch": position.epochs,
            "optimizer": self.objective.optimizer.state_dict(),
            **self.objective.numbers(),
            "scaler": self.descent.scaler.state_dict(),
            "progress": {
                "steps": position.steps,
                "images": position.images,
                "totals": position.totals,
            },
            "random_states": random_states(),
            **self.notes,
        }
        if kept:
            save_checkpoint(run.folder / f"ckpt_epoch_{position.epochs}.pth", content)
        save_current(run.folder, content, run.keep_last)

    def save_in_time(self, minutes: float, interruption: Interruption) -> None:
        """Save if these minutes have passed, or the run is interrupted, which ends it then.

        Call it after each step, in all ranks.

        Raises:
            InputError: if what would be saved isn't finite.
        """
        is_late = is_first_rank() and self.watch.seconds() > 60 * minutes
        number, late = all_reduce_max(interruption.received or 0, is_late)
        if number or late:
            if not self.position.totals.isfinite().all():
                raise InputError(
                    f"the loss isn't finite in epoch {self.position.epochs + 1}: not saved; try a "
                    "smaller --learning_rate"
                )
            self.save()
            self.watch = Stopwatch()
        if number:
            leave_process_group()  # when the first has saved: the others' end would end it, too
            interruption.leave(signal.Signals(number))

    def restore(self, path: Path, content: dict, log: RunLog) -> None:
        """Restore all of it from a checkpoint, ours or a published one, which the log receives.

        An epoch that began in another order isn't resumed, unless the run insists.

        Raises:
            InputError: if it doesn't fit, or an epoch can't be resumed as it began.
        """
        objective, position = self.objective, self.position
        begun_in = str(content.get("order", self.order))
        if steps_begun(content) and begun_in != self.order and not self.run.override:
            raise InputError(
                f"{path}: is within an epoch of {excerpt(begun_in)}, not of {self.order}; "
                "--override to insist"
            )
        options = self.run.options
        hint = " and ".join(f"--{flag} {getattr(options, flag)}" for flag in objective.flags)
        for entry, module in objective.modules.items():
            load_weights(module, content[entry], path, hint)
        try:
            objective.optimizer.load_state_dict(content["optimizer"])
            if content.get("scaler"):
                self.descent.scaler.load_state_dict(content["scaler"])
            position.epochs = content["epoch"]
            if begun := content.get("progress"):
                position.steps, position.images = int(begun["steps"]), int(begun["images"])
                position.totals.copy_(begun["totals"])
            if "random_states" in content:
                objective.restore_numbers(content)
                restore_random_states(content["random_states"])
        except Exception as error:  # whatever entries of other kinds lead to
            raise InputError(f"{path}: its state doesn't fit ({reason(error)})") from None
        if "random_states" not in content:
            log.line(
                f"{path}: a published checkpoint, without the queue's pointer and random states: "
                "the queue is overwritten from its start, random samples are new"
            )
