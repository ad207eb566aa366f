"""What a way to pre-train has of its own: modules, and a step.

Letters: B images a step, of which b are this process's.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from data_loader.items import PairItem, SquareItem
from engine.run.acceleration import autocast
from engine.run.parallel import weigh_loss
from utils.collectives import BatchSplit
from utils.errors import InputError

Images = PairItem | SquareItem  # each field stacked over b images
# The scale begins at 2 ** 16 and is halved each time; gradients that fit none of 20 scales are
# infinite themselves.
MAX_SKIPPED = 20


class Descent:
    """Gradient descent on the mean loss of all ranks, in the precision of ``--amp``.

    Args:
        optimizer: of all that is trained.
        device: of the model.
        amp: a key of `engine.run.acceleration.PRECISIONS`.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, device: torch.device, amp: str) -> None:
        self.optimizer, self.device, self.amp = optimizer, device, amp
        # Keeps float16's gradients from vanishing; elsewhere it does nothing.
        self.scaler = torch.amp.GradScaler(device.type, enabled=amp == "fp16")
        self.skipped = 0  # steps in a row, up to the last one

    def autocast(self) -> torch.autocast:
        """Return a context in which layers compute in the precision."""
        return autocast(self.device, self.amp)

    def step(self, loss: Tensor, batch_split: BatchSplit) -> bool:
        """Go backward from a mean over this rank's rows, and take the optimizer's step.

        Returns:
            Whether it was taken: with infinite gradients the scaler skips it.

        Raises:
            InputError: if too many were skipped in a row.
        """
        self.optimizer.zero_grad()
        self.scaler.scale(weigh_loss(loss, batch_split)).backward()
        scales = self.scaler.is_enabled()
        before = self.scaler.get_scale() if scales else 0.0  # reading it waits for a GPU
        self.scaler.step(self.optimizer)
        self.scaler.update()
        taken = not scales or self.scaler.get_scale() >= before
        self.skipped = 0 if taken else self.skipped + 1
        if self.skipped == MAX_SKIPPED:
            raise InputError(
                f"--amp fp16: the gradients of {MAX_SKIPPED} steps in a row are infinite or NaN, "
                "at whatever scale; try --amp bf16 or off, or a smaller --learning_rate"
            )
        return taken


class Objective(ABC):
    """What is trained, and one step of it; a script derives its own.

    Args:
        modules: what has weights or buffers, by its entry in a checkpoint; ``model`` is the
            encoder.
        embed: the one whose gradients all ranks average, in train mode.
        optimizer: of its parameters.
    """

    entries: tuple[str, ...]  # that a checkpoint to resume must have
    flags: tuple[str, ...]  # that the modules' shapes depend on, for messages
    scalars: tuple[str, str]  # the names of the two means of a step in log.jsonl
    rate_words = "learning rate {:.5f}"
    views_at_once = 1  # of an image, that BatchNorm normalises together
    sees_squares = True  # makes the views itself, of `SquareItem`s; else the readers make them

    def __init__(
        self, modules: Mapping[str, nn.Module], embed: nn.Module, optimizer: torch.optim.Optimizer
    ) -> None:
        self.modules, self.embed, self.optimizer = modules, embed, optimizer

    @abstractmethod
    def step(
        self, embed: nn.Module, images: Images, batch_split: BatchSplit, descent: Descent
    ) -> tuple[Tensor, Tensor]:
        """Take one step.

        Args:
            embed: the module of this name, which may be wrapped to average gradients.
            images: this rank's rows of the batch.
            batch_split: of the batch.
            descent: takes the optimizer's step.

        Returns:
            Two means over this rank's rows, scalars: the loss, and what else tells how it goes.
        """

    @abstractmethod
    def describe(self, loss: float, score: float) -> str:
        """Return the two means of a step in words."""

    def numbers(self) -> dict[str, int]:
        """Return what else a checkpoint keeps, by its entry."""
        return {}

    def restore_numbers(self, content: dict) -> None:
        """Take it from a checkpoint."""
        return


def squares(images: Images, device: torch.device) -> tuple[Tensor, torch.Generator]:
    """Return images (b, 3, S, S), uint8, on a device, and a generator that belongs to them."""
    assert isinstance(images, SquareItem)
    generator = torch.Generator().manual_seed(int(images.seed[0]))
    return images.image.to(device, non_blocking=True), generator


def as_channels_last(images: Tensor) -> Tensor:
    """Return images in the memory layout that convolutions are fastest in."""
    return images.contiguous(memory_format=torch.channels_last)
