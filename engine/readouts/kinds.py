"""The kinds of readout: by their names, by what a checkpoint holds, and loaded from one."""

import argparse
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor, nn

from engine.features.encoder_loading import EncoderSettings
from engine.readouts.finetune import Finetune
from engine.readouts.published import PublishedReadout
from engine.readouts.readout import Readout
from engine.readouts.ridge import Ridge
from models.encoders import Encoder, weights_digest
from utils.checkpoint import check_entries, load_checkpoint
from utils.errors import InputError
from utils.log import RunLog

# In the order in which ``auto`` tries them.
READOUTS: dict[str, type[Readout]] = {
    kind.kind: kind for kind in (Ridge, PublishedReadout, Finetune)
}
AUTO = "auto"  # of ``--regressor``: chosen by cross-validation
S = TypeVar("S", bound=EncoderSettings)
MOST_LANDMARKS = 10_000  # a file that claims more isn't believed


def add_kind_argument(group: argparse._ActionsContainer) -> None:
    """Declare which kind of readout finds the landmarks."""
    group.add_argument(
        "--regressor",
        choices=[*READOUTS, AUTO],
        default="published",
        help="the published one, trained by gradient descent; or a ridge regression of heatmaps "
        "with a prior of shape, in closed form: no flags of the optimization matter then; or a "
        "small head on all maps and the encoder itself, both trained: see --finetune_steps; "
        "auto: the best of them in cross-validation on the annotated images, or in vis_*.py the "
        "one that --ckpt_path holds",
    )


def add_readout_argument(group: argparse._ActionsContainer) -> None:
    """Declare the checkpoint of a readout that is used as it is."""
    group.add_argument("--ckpt_path", metavar="FILE", help="checkpoint of the regressor")


def refuse_other_kind(path: str | Path, content: Mapping[str, Any], kind: type[Readout]) -> None:
    """Raise an `InputError` if a checkpoint holds another kind of readout instead."""
    if kind.entry in content:
        return
    for other in READOUTS.values():
        if other.entry in content:
            raise InputError(f"{path}: of --regressor {other.kind}, not {kind.kind}")


def read_readout(path: str, kind: type[Readout] | None = None) -> tuple[type[Readout], dict]:
    """Return the kind of readout that a checkpoint holds, and the checkpoint's content.

    Raises:
        InputError: if it holds none, or not the kind that is wanted.
    """
    content = load_checkpoint(path, ("opt",))
    if kind is None:
        kind = next((kind for kind in READOUTS.values() if kind.entry in content), None)
    if kind is None:
        entries = ", ".join(kind.entry for kind in READOUTS.values())
        raise InputError(f"{path}: holds no readout ({entries}), but an encoder at most")
    refuse_other_kind(path, content, kind)
    check_entries(path, content, ("opt", kind.entry))
    return kind, content


def count_landmarks(path: str, kind: type[Readout], content: Mapping[str, Any]) -> int:
    """Return how many landmarks a readout's weights find.

    Raises:
        InputError: if they find none.
    """
    name, divisor = kind.counted
    weight = content[kind.entry].get(name)
    count = len(weight) // divisor if isinstance(weight, Tensor) and weight.dim() else 0
    if not 0 < count <= MOST_LANDMARKS:
        raise InputError(f"{path}: its readout finds {count} landmarks, expected 1 or more")
    return count


def build_readout(
    kind: type[Readout],
    encoder: Encoder,
    settings: EncoderSettings,
    landmarks: int,
    side: int,
    content: Mapping[str, Any] | None = None,
) -> Readout:
    """Return a readout for inputs of ``side`` pixels, whose weights fit those of a checkpoint."""
    state = {} if content is None else content[kind.entry]
    levels = kind.choose_levels(encoder, settings.layer, settings.use_hypercol, state)
    return kind(encoder, levels, landmarks, side)


def is_fitted_to(kind: type[Readout], content: Mapping[str, Any], encoder: nn.Module) -> bool:
    """Whether a checkpoint's readout was fitted to an encoder's maps, as far as that is noted."""
    digest = content.get("encoder_digest")
    return kind.trains_encoder or digest is None or digest == weights_digest(encoder)


def with_own_encoder(settings: S, path: str, log: RunLog) -> S:
    """Return settings by which the encoder is the one that a checkpoint's readout trained on."""
    if settings.trained_model_path is not None or settings.random_network or settings.projection:
        log.line(f"the encoder is that of {path}, which was fine-tuned")
    return replace(settings, trained_model_path=path, random_network=False, projection=None)


def check_own_maps(kind: type[Readout], projection: str | None) -> None:
    """Raise an `InputError` if the maps of an encoder that is trained on are to be projected."""
    if kind.trains_encoder and projection is not None:
        raise InputError(
            f"--projection {projection}: not with --regressor {kind.kind}, which changes the "
            "encoder that it belongs to"
        )
