"""One run of pre-training: all of it but the step, which is the objective's.

Its folder, resumption, precision, epochs, learning rate, reports, saving, bad images and ranks.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch

from data_loader.bad_images import BadImages
from data_loader.loaders import check_batch_size, check_same_images, worker_notice
from data_loader.named_images import NamedImages
from data_loader.storage.image_cache import cache_images
from engine.pretraining.checkpoint import Position, State
from engine.pretraining.checks import check_rows, check_side
from engine.pretraining.images import (
    ImageSettings,
    UnlabelledSet,
    build_unlabelled_loader,
    open_images,
    rest_of_epoch,
)
from engine.pretraining.objective import Descent, Objective
from engine.run.acceleration import add_acceleration_arguments, choose_precision
from engine.run.parallel import wrap_distributed
from engine.run.resumption import open_checkpoint, start_run
from engine.run.settings import (
    RunSettings,
    add_device_arguments,
    add_output_arguments,
    choose_device,
    describe_device,
)
from models.dense_contrast import Trainable
from utils.arguments import ArgumentParser, allow_change, positive_float
from utils.errors import check_finite
from utils.interruption import Interruption
from utils.log import RunLog, Stopwatch
from utils.process_group import join_process_group, leave_process_group
from utils.randomness import seed_everything
from utils.schedule import set_learning_rate

Rate = Callable[[int, int], float]  # see `Pretraining.train`


def add_run_arguments(parser: ArgumentParser, *, amp: str) -> None:
    """Declare where a run writes, how it computes, and where; ``amp`` is the default precision."""
    add_output_arguments(parser, save_freq=20).add_argument(
        "--save_minutes",
        type=positive_float,
        default=30,
        metavar="MINUTES",
        help="write current.pth within an epoch, too, every so many minutes",
    )
    allow_change("save_minutes")
    add_acceleration_arguments(parser, amp=amp)
    add_device_arguments(parser)


@dataclass(frozen=True)
class PretrainingSettings(ImageSettings, RunSettings):
    """On which images a run trains which model, how long, where, and when it saves."""

    model: str
    epochs: int
    save_freq: int
    save_minutes: float
    print_freq: int
    amp: str
    device: str
    gpu: int | None


class Pretraining:
    """A run of pre-training, by whatever objective.

    Making one joins the processes of torchrun and seeds all random numbers; then come
    `open_images`, the script's own modules, and `train`.
    """

    def __init__(self, settings: PretrainingSettings) -> None:
        self.settings, self.log = settings, RunLog()
        self.device = choose_device(settings.device, settings.gpu)
        join_process_group(self.device)
        seed_everything(settings.seed)
        check_batch_size(settings.batch_size)
        self.log.line(*worker_notice(settings.num_workers))

    def open_images(self, **views: float) -> UnlabelledSet:
        """Return the images, the same in all ranks; see `engine.pretraining.images.open_images`."""
        settings = self.settings
        check_side(settings.image_size, settings.image_crop, settings.model)
        self.dataset = open_images(settings, **views)
        check_same_images(self.dataset)
        return self.dataset

    def train(self, objective: Objective, rate: Rate, steps: int | None = None) -> None:
        """Train to the last step, from the beginning or as the checkpoint to resume says.

        Args:
            objective: as it is at the beginning.
            rate: from the epoch, counted from 1, and the step, counted from 0 over all epochs, to
                the learning rate.
            steps: in all, of which the last may end within an epoch; those of ``--epochs`` if None.
        """
        settings, log, dataset = self.settings, self.log, self.dataset
        found = open_checkpoint(settings, objective.entries, log)
        state = self._begin(objective, found)
        descent, position = state.descent, state.position
        self._start(position.epochs, descent.amp)
        bad_images = BadImages(settings.folder, dataset, found is not None, log.line)
        loader = build_unlabelled_loader(settings, dataset, objective.sees_squares, self.device)
        with descent.autocast():
            embed = wrap_distributed(objective.embed, settings.batch_size, dataset.side)

        def steps_left() -> int:
            return (steps or settings.epochs * position.steps_an_epoch) - position.step

        log.line(f"{steps_left():,} steps of {settings.batch_size} images")
        with Interruption() as interruption:
            while (left := steps_left()) > 0:
                epoch, before, watch = position.epochs + 1, position.images, Stopwatch()
                epochs = epoch - 1 + math.ceil((position.steps + left) / position.steps_an_epoch)
                for images, batch_split in rest_of_epoch(loader, bad_images, position, left):
                    set_learning_rate(objective.optimizer, rate(epoch, position.step))
                    means = objective.step(embed, images, batch_split, descent)
                    position.count_step(batch_split, *means)
                    if position.steps % settings.print_freq == 0:
                        step = f"{position.steps}/{position.steps_an_epoch}"
                        words = objective.describe(*position.means())
                        log.step(f"epoch {epoch}  step {step}  {words}")
                    state.save_in_time(settings.save_minutes, interruption)
                speed = (position.images - before) / watch.seconds()
                self._report(objective, position, epochs, speed)
                if is_whole := position.images == len(dataset):
                    position.next_epoch()
                state.save(kept=is_whole and epoch % settings.save_freq == 0)
        log.line(f"done: {settings.folder / 'current.pth'}")
        leave_process_group()

    def _begin(self, objective: Objective, found: tuple[Path, dict] | None) -> State:
        """Return what the steps change, as it is at the beginning or in a checkpoint."""
        settings, dataset = self.settings, self.dataset
        amp = choose_precision(settings.amp, self.device, found, self.log)
        descent = Descent(objective.optimizer, self.device, amp)
        totals = torch.zeros(2, device=self.device)
        position = Position(totals, len(dataset), settings.batch_size)
        recorded, notes = settings.recording(amp=amp), dataset.noted_colours()
        state = State(recorded, dataset.order_name(), notes, objective, descent, position)
        if found is not None:
            state.restore(*found, self.log)
        encoder = cast(Trainable, objective.modules["model"])
        check_rows(encoder.encoder, dataset.side, position, objective.views_at_once)
        return state

    def _start(self, done: int, amp: str) -> None:
        """Make the run's folder, open its log, and fill the image cache, if there is to be one."""
        settings, log, dataset = self.settings, self.log, self.dataset
        start_run(settings, {"images": len(dataset), "amp": amp}, done, log)
        log.line(*dataset.count_notice())
        device = describe_device(self.device, settings.gpu)
        log.line(
            f"{len(dataset)} images of {settings.dataset}, {dataset.side} px; {settings.model} on "
            f"{device}; to {settings.folder}"
        )
        if settings.image_cache is not None and isinstance(dataset, NamedImages):
            folder = Path(settings.image_cache or f"{settings.model_path}_cache")
            log.line(cache_images(dataset, folder, settings.num_workers, log.line))

    def _report(self, objective: Objective, position: Position, epochs: int, speed: float) -> None:
        """Log the means, learning rate and images a second of one of the epochs.

        Raises:
            InputError: if the loss isn't finite.
        """
        epoch, lr = position.epochs + 1, objective.optimizer.param_groups[0]["lr"]
        loss, score = position.means()
        check_finite("the loss", loss, epoch, f" at a learning rate of {lr:g}")
        scalars = dict(zip(objective.scalars, (loss, score), strict=True))
        self.log.record(epoch, **scalars, learning_rate=lr)
        self.log.line(
            f"epoch {epoch}/{epochs}  {objective.describe(loss, score)}  "
            f"{objective.rate_words.format(lr)}  {speed:.1f} images/s"
        )
