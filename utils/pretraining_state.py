"""What a pre-training run is made of between two steps: kept in checkpoints, and restored.

[SPEC 4, 7.]
"""

import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.nce import MemoryMoCo
from utils.checkpoint import load_weights, save_checkpoint
from utils.damage import reason
from utils.distributed import agree, check_same, is_first, leave_ranks, share_buffers
from utils.errors import InputError
from utils.interruption import Interruption
from utils.log import Stopwatch
from utils.randomness import random_states, restore_random_states
from utils.resumption import save_current

CHECKPOINT_KEYS = ("opt", "model", "contrast", "optimizer", "epoch", "model_ema")


class Learned(NamedTuple):
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
    learned: Learned,
    so_far: Progress,
    kept: bool = False,
) -> None:
    """Write ``current.pth``, and the epoch's own file if it is to be kept [SPEC 7].

    ``epoch`` counts whole epochs, as the published code reads it; what stands under ``progress``
    belongs to the one after. The first rank writes, after all have compared what they hold.

    Raises:
        RuntimeError: if the ranks don't hold the same.
    """
    share_buffers(learned.query, learned.key)
    check_same(query=learned.query, key=learned.key, contrast=learned.contrast)
    if not is_first():
        return
    content = {
        **entries,
        "epoch": so_far.epochs,
        "model": learned.query.state_dict(),
        "contrast": learned.contrast.state_dict(),
        "optimizer": learned.optimizer.state_dict(),
        "model_ema": learned.key.state_dict(),
        "queue_index": learned.contrast.index,
        "scaler": learned.scaler.state_dict(),
        "progress": {"steps": so_far.steps, "images": so_far.images, "totals": so_far.totals},
        "random_states": random_states(),
    }
    if kept:
        save_checkpoint(folder / f"ckpt_epoch_{so_far.epochs}.pth", content)
    save_current(folder, content, keep_last)


class SaveInTime:
    """Save within an epoch when minutes have passed, and before an interruption ends the run."""

    def __init__(
        self, save: Callable[[Progress], None], minutes: float, interruption: Interruption
    ) -> None:
        self.save, self.seconds, self.interruption = save, 60 * minutes, interruption
        self.watch = Stopwatch()

    def __call__(self, so_far: Progress) -> None:
        """See the class; call it after each step, in all ranks.

        Raises:
            InputError: if what would be saved isn't finite.
        """
        is_late = is_first() and self.watch.seconds() > self.seconds
        number, is_late = agree(self.interruption.received or 0, is_late)
        if number or is_late:
            if not so_far.totals.isfinite().all():
                raise InputError(
                    f"the loss isn't finite in epoch {so_far.epochs + 1}: not saved; try a "
                    "smaller --learning_rate"
                )
            self.save(so_far)
            self.watch = Stopwatch()
        if number:
            leave_ranks()  # when the first has saved: the others' end would end it, too
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


def restore(path: Path, content: dict, model: str, learned: Learned, so_far: Progress) -> list[str]:
    """Restore all state from a checkpoint, ours or a published one; return lines for the log."""
    contrast = learned.contrast
    load_weights(learned.query, content["model"], path, f"--model {model}")
    load_weights(learned.key, content["model_ema"], path, f"--model {model}")
    load_weights(contrast, content["contrast"], path, f"--nce_k {contrast.queue_size}")
    try:
        learned.optimizer.load_state_dict(content["optimizer"])
        if content.get("scaler"):
            learned.scaler.load_state_dict(content["scaler"])
        so_far.epochs = content["epoch"]
        if begun := content.get("progress"):
            so_far.steps, so_far.images = begun["steps"], begun["images"]
            so_far.totals.copy_(begun["totals"])
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
