"""What a pre-training run is made of between two steps: kept in checkpoints, and restored.

[spec 4, 7.]
"""

import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from engine.resumption import save_current
from models.nce import MemoryMoCo
from utils.checkpoint import load_weights, save_checkpoint
from utils.collectives import all_reduce_max, broadcast_buffers, check_identical
from utils.errors import InputError
from utils.files import reason
from utils.interruption import Interruption
from utils.log import Stopwatch
from utils.process_group import is_first_rank, leave_process_group
from utils.randomness import random_states, restore_random_states

CHECKPOINT_KEYS = ("opt", "model", "contrast", "optimizer", "epoch", "model_ema")


class MoCoState(NamedTuple):
    """What a step changes."""

    query: nn.Module
    key: nn.Module
    contrast: MemoryMoCo
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler


@dataclass
class Progress:
    """How far the run is: whole epochs, and steps, images and sums of the one that goes on.

    ``totals`` are the sums of loss and positive logit over images, on the device. All counts are
    over all ranks.
    """

    totals: Tensor
    images_an_epoch: int
    batch_size: int
    epochs: int = 0
    steps: int = 0
    images: int = 0

    def next_batch(self) -> int:
        """Return how many images the next step has, over all ranks."""
        return min(self.batch_size, self.images_an_epoch - self.images)

    def next_epoch(self) -> None:
        """Count the epoch as done."""
        self.epochs, self.steps, self.images = self.epochs + 1, 0, 0
        self.totals.zero_()


def save_run(
    folder: Path,
    keep_last: int,
    entries: dict,
    state: MoCoState,
    progress_state: Progress,
    kept: bool = False,
) -> None:
    """Write ``current.pth``, and the epoch's own file if it is to be kept [spec 7].

    ``epoch`` counts whole epochs, as the published code reads it; what stands under ``progress``
    belongs to the one after. The first rank writes, after all have compared what they hold.

    Raises:
        RuntimeError: if the ranks don't hold the same.
    """
    broadcast_buffers(state.query, state.key)
    check_identical(query=state.query, key=state.key, contrast=state.contrast)
    if not is_first_rank():
        return
    content = {
        **entries,
        "epoch": progress_state.epochs,
        "model": state.query.state_dict(),
        "contrast": state.contrast.state_dict(),
        "optimizer": state.optimizer.state_dict(),
        "model_ema": state.key.state_dict(),
        "queue_index": state.contrast.index,
        "scaler": state.scaler.state_dict(),
        "progress": {
            "steps": progress_state.steps,
            "images": progress_state.images,
            "totals": progress_state.totals,
        },
        "random_states": random_states(),
    }
    if kept:
        save_checkpoint(folder / f"ckpt_epoch_{progress_state.epochs}.pth", content)
    save_current(folder, content, keep_last)


class PeriodicSave:
    """Save within an epoch when minutes have passed, and before an interruption ends the run."""

    def __init__(
        self, save: Callable[[Progress], None], minutes: float, interruption: Interruption
    ) -> None:
        self.save, self.seconds, self.interruption = save, 60 * minutes, interruption
        self.watch = Stopwatch()

    def __call__(self, progress_state: Progress) -> None:
        """See the class; call it after each step, in all ranks.

        Raises:
            InputError: if what would be saved isn't finite.
        """
        is_late = is_first_rank() and self.watch.seconds() > self.seconds
        number, is_late = all_reduce_max(self.interruption.received or 0, is_late)
        if number or is_late:
            if not progress_state.totals.isfinite().all():
                raise InputError(
                    f"the loss isn't finite in epoch {progress_state.epochs + 1}: not saved; try a "
                    "smaller --learning_rate"
                )
            self.save(progress_state)
            self.watch = Stopwatch()
        if number:
            leave_process_group()  # when the first has saved: the others' end would end it, too
            self.interruption.leave(signal.Signals(number))


def check_order(path: Path, content: dict, order: str, override: bool) -> None:
    """Raise an `InputError` if an epoch can't go on as it began, unless that is insisted on.

    Args:
        path: of the checkpoint.
        content: of the checkpoint; its ``order`` is compared.
        order: see `order_name`.
        override: of ``--override``.
    """
    begun = content.get("progress")
    within = isinstance(begun, dict) and begun.get("steps")
    if within and content.get("order", order) != order and not override:
        raise InputError(
            f"{path}: is within an epoch of {content['order']}, not of {order}; --override to "
            "insist"
        )


def restore(
    path: Path, content: dict, model: str, state: MoCoState, progress_state: Progress
) -> list[str]:
    """Restore all state from a checkpoint, ours or a published one; return lines for the log."""
    contrast = state.contrast
    load_weights(state.query, content["model"], path, f"--model {model}")
    load_weights(state.key, content["model_ema"], path, f"--model {model}")
    load_weights(contrast, content["contrast"], path, f"--nce_k {contrast.queue_size}")
    try:
        state.optimizer.load_state_dict(content["optimizer"])
        if content.get("scaler"):
            state.scaler.load_state_dict(content["scaler"])
        progress_state.epochs = content["epoch"]
        if begun := content.get("progress"):
            progress_state.steps, progress_state.images = begun["steps"], begun["images"]
            progress_state.totals.copy_(begun["totals"])
        if "random_states" in content:
            contrast.index = int(content["queue_index"]) % contrast.queue_size
            restore_random_states(content["random_states"])
    except Exception as error:  # whatever entries of other kinds lead to
        raise InputError(f"{path}: its state doesn't fit ({reason(error)})") from None
    if "random_states" in content:
        return []
    return [
        f"{path}: a published checkpoint, without the queue's pointer and random states: "
        "the queue is overwritten from its start, the draws are new"
    ]
