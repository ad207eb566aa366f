"""What a readout is: how landmarks are found in an encoder's maps, and how that is learnt.

A kind of readout is a subclass of `Readout` in a file of its own, listed in `kinds.READOUTS`.
Letters: B images, A landmarks, C channels of all maps together, W the side of the network input.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from data_loader.landmark_dataset import LandmarkDataset
from engine.features.encoder_loading import EncoderSettings
from engine.features.images import EncodedImages
from engine.readouts.task import Scores, Task, baseline, evaluate, judged_split, mean_shape
from engine.run.resumption import save_current
from engine.run.settings import RunSettings
from models.encoders import Encoder, Levels, choose_levels, weights_digest
from models.landmarks import Landmarks
from utils.checkpoint import load_weights, save_checkpoint
from utils.errors import InputError
from utils.log import RunLog


@dataclass(frozen=True)
class EvaluationSettings(EncoderSettings, RunSettings):
    """How a readout is fitted, scored and saved."""

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
    finetune_steps: int | str
    finetune_batch: int
    finetune_rate: float
    finetune_spread: float | str
    amp: str
    feature_cache: str
    cache_folder: Path | None
    cache_gb: float | None

    @property
    def best_path(self) -> Path:
        """The checkpoint that is named after the encoder; some systems take no colon in a name."""
        return self.folder / f"{self.model.replace(':', '_')}.pth"


class Readout:
    """Finds landmarks in an encoder's maps, or with an encoder of its own in the pixels.

    Call `load`, or `begin` and `fit`; then call the readout itself.

    A subclass says, as class attributes: ``kind``, its name as ``--regressor`` has it; ``entry`` of
    a checkpoint, which holds its weights; ``keys`` that a checkpoint must have to be resumed;
    ``counted``, the weight whose first size, divided, is A; ``ignored``, flags of training that it
    has no use for; and ``trains_encoder``, whether the encoder is trained on, too, so that the
    checkpoint holds it as ``model``.

    Args:
        encoder: gives the maps.
        levels: the maps that landmarks are found in.
        landmarks: A.
        side: W.

    Attributes:
        module: its weights: maps, deepest first, to points (B, A, 2) and something more.
        network: all that is trained.
        sees: numbers of the encoder's maps that it is called with.
        done: epochs of the fit.
        settings, task, device: of the fit, see `begin`.
        encoder_digest: of the encoder's weights at its start; checkpoints note it.
        notes: further entries of its checkpoints.
        groups: of the training images; those of one group aren't parted. Each is one of its own,
            if None.
    """

    kind: ClassVar[str]
    entry: ClassVar[str]
    keys: ClassVar[tuple[str, ...]]
    counted: ClassVar[tuple[str, int]]
    ignored: ClassVar[tuple[str, ...]] = ()
    trains_encoder: ClassVar[bool] = False
    settings: EvaluationSettings
    task: Task
    device: torch.device
    encoder_digest: str
    notes: Mapping[str, object]
    groups: Sequence[str] | None

    def __init__(self, encoder: Encoder, levels: Levels, landmarks: int, side: int) -> None:
        self.encoder, self.levels = encoder, levels
        channels = encoder.feature_channels(levels.numbers)
        self.module = self.build(channels, landmarks, side, levels.shape)
        self.network: nn.Module = self.module
        self.sees: tuple[int, ...] = levels.numbers
        self.done = 0

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """Declare the options of its fit."""

    @staticmethod
    def build(channels: int, landmarks: int, side: int, shape: tuple[int, int] | None) -> nn.Module:
        """Return a fresh module for maps of C channels, read at a shape; see `Levels`."""
        raise NotImplementedError

    @classmethod
    def choose_levels(
        cls, encoder: Encoder, layer: int, use_hypercol: bool, state: Mapping[str, Any]
    ) -> Levels:
        """Return the maps that flags ask for, or that fit weights, if there are some."""
        return choose_levels(encoder, layer, use_hypercol)

    # ---- use ----

    def __call__(self, features: Sequence[Tensor]) -> Landmarks:
        """Return the landmarks in the maps that it ``sees``, (B, C, h, w) each."""
        return Landmarks(*self.module(features))

    def with_confidence(self, features: Sequence[Tensor]) -> Landmarks:
        """Return the same, with a confidence also where the readout itself tells none."""
        return self(features)

    def exportable(self) -> nn.Module:
        """Return a module of plain operations, for other runtimes; see `models.exported`.

        It takes the maps of ``levels`` to points and confidence.
        """
        return self.module

    # ---- checkpoints ----

    def state(self) -> dict[str, dict[str, Tensor]]:
        """Return the entries of a checkpoint that hold its weights."""
        return {self.entry: self.module.state_dict()}

    def load(self, path: str | Path, content: Mapping[str, Any], hint: str) -> None:
        """Take the weights of a checkpoint; ``hint`` names the flags behind their shapes.

        Raises:
            InputError: if they don't fit.
        """
        load_weights(self.module, content[self.entry], path, hint)

    def checkpoint(self, epoch: int, **state: Any) -> dict[str, Any]:
        """Return a checkpoint's content: options, encoder's digest, notes, and a state."""
        head = {"opt": self.settings.options, "encoder_digest": self.encoder_digest}
        return {**head, "epoch": epoch, **state, **self.notes}

    def write(self, content: dict[str, Any], best: dict[str, Any] | None, keep: bool) -> None:
        """Write ``current.pth``.

        Also the ``best`` checkpoint, if it is new, as the file named after the encoder, and one of
        the epoch's own that stays, to ``keep`` it.
        """
        settings = self.settings
        if best is not None:
            save_checkpoint(settings.best_path, best)
        if keep:
            save_checkpoint(settings.folder / f"ckpt_epoch_{self.done}.pth", content)
        save_current(settings.folder, content, settings.keep_last)

    # ---- fit ----

    def begin(
        self,
        settings: EvaluationSettings,
        task: Task,
        device: torch.device,
        train_set: LandmarkDataset,
        found: tuple[Path, dict] | None,
    ) -> None:
        """Prepare a fit to a data set, as a checkpoint left it if one was found.

        Raises:
            InputError: if the checkpoint doesn't fit, or belongs to another encoder.
        """
        self.settings, self.task, self.device = settings, task, device
        self.groups, self.notes = train_set.item_groups(), train_set.checkpoint_notes()
        if self.trains_encoder:
            self.notes = {**self.notes, **train_set.noted_colours()}
        self.encoder_digest = weights_digest(self.encoder)
        self.network.to(device)
        self.prepare()
        if found is None:
            return
        path, content = found
        digest = content.get("encoder_digest", self.encoder_digest)
        if digest != self.encoder_digest and not settings.override:
            raise InputError(
                f"{path}: was fitted to the features of another encoder; --override to insist"
            )
        self.resume(path, content)

    def prepare(self) -> None:
        """Make the optimizer."""

    def resume(self, path: Path, content: dict) -> None:
        """Restore what a checkpoint holds of a fit.

        Raises:
            InputError: if it doesn't fit.
        """
        self.load(path, content, self.settings.hint)
        self.done = content["epoch"]

    def fit(self, train: Any, held_out: dict[str, EncodedImages], log: RunLog) -> dict[str, object]:
        """Train, evaluate and save; return what ``result.json`` holds of it.

        Afterwards the readout has its best weights, as far as that is defined, and ``done`` is the
        number of its last checkpoint. ``last`` of the result has the scores by split, of which
        ``auto`` reads those of ``Test``.

        Args:
            train: training images as `EncodedImages`, or, to train the encoder on, as
                `AnnotatedSquares`.
            held_out: split to its images.
            log: receives lines and scalars.

        Raises:
            InputError: if the loss isn't finite, or a landmark can't be learnt.
        """
        raise NotImplementedError

    def evaluate(self, held_out: Mapping[str, EncodedImages]) -> dict[str, Scores]:
        """Return the scores of each split."""
        self.network.eval()
        return {s: evaluate(self, self.task, images) for s, images in held_out.items()}

    def score_mean_shape(
        self, points: Tensor, visible: Tensor, held_out: Mapping[str, EncodedImages], log: RunLog
    ) -> Scores:
        """Log and return the scores of the mean of the training images' points (N, A, 2).

        None where nothing is held out.
        """
        if not held_out:
            return {}
        split, judged = judged_split(held_out)
        scores = baseline(self.task, mean_shape(points, visible), judged)
        log.line(f"mean shape: {self.task.in_words({split: scores})}")
        return scores

    def check_shown(self, visible: Tensor) -> None:
        """Raise an `InputError` if a landmark is visible (N, A) in no training image."""
        seen = visible.any(dim=0)  # (A,)
        if not seen.all():
            number = int(seen.int().argmin()) + 1
            raise InputError(f"--regressor {self.kind}: no training image shows landmark {number}")
