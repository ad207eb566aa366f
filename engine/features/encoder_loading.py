"""The frozen encoder of an evaluation, from a checkpoint or initialised at random."""

import os
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from data_loader.image_set import Colours, ImageSet, as_colours, as_levels
from data_loader.readers.images import FULL_RANGE, Levels
from data_loader.views.random_view import IMAGENET_MEAN, IMAGENET_STD
from engine.features.imagenet import IMAGENET, imagenet_file
from engine.features.timm_weights import match_timm_state
from engine.run.settings import Settings
from models.encoders import LAST_MAP, Encoder, build_random_encoder, choose_levels, freeze
from models.projection import STAGES, ProjectedEncoder
from models.timm_encoder import PREFIX, TimmEncoder, count_weights, timm_encoders
from utils.checkpoint import load_checkpoint, load_state, load_weights
from utils.errors import InputError
from utils.files import check_is_file, excerpt
from utils.log import RunLog

# Where checkpoints keep an encoder's weights, in the order in which they are looked for: ours and
# the published ones, ours without DataParallel, MoCo v1 and v2, DVE, torchvision.
PREFIXES = ("encoder.module.", "encoder.", "module.encoder_q.", "encoder_q.", "module.", "")
MOST_DIMENSIONS = 4096  # of a projection: a file that claims more isn't believed
LARGE = 100_000_000  # weights of a network that is built only for a file that can hold them


@dataclass(frozen=True)
class EncoderSettings(Settings):
    """Which encoder sees which images."""

    dataset: str
    model: str
    trained_model_path: str | None
    random_network: bool
    layer: int
    use_hypercol: bool
    projection: str | None
    seed: int
    batch_size: int
    num_workers: int
    gpu: int | None
    log_path: Path

    @property
    def hint(self) -> str:
        """What a regressor's shape depends on, for messages."""
        projected = f" --projection {self.projection}" if self.projection else ""
        return f"--model {self.model} --layer {self.layer}{projected} on {self.dataset}"


def load_frozen_encoder(settings: EncoderSettings, side: int, log: RunLog) -> Encoder:
    """Return an encoder in eval mode, without gradients, for square inputs of ``side`` pixels.

    Its weights are those of a file that `read_encoder_state` understands, or published ones, see
    `imagenet_file`, or belong to a seed; without any, a network of timm takes timm's own.

    Raises:
        InputError: if the flags don't fit together or the checkpoint doesn't fit the model.
    """
    path, name = settings.trained_model_path, settings.model
    if settings.layer > LAST_MAP:
        raise InputError(
            f"--layer {settings.layer}: layers 0 to {LAST_MAP} have maps to find landmarks in, "
            "deeper ones are vectors"
        )
    if path is None and not settings.random_network:
        if not name.startswith(PREFIX):
            said = "give --trained_model_path FILE or imagenet, or --random_network for an"
            raise InputError(f"{said} untrained one")
        path = IMAGENET
    if path is not None and settings.random_network:
        raise InputError("--trained_model_path and --random_network exclude each other")
    encoder = initialise_encoder(name, side, settings.seed, path, log)
    choose_levels(encoder, settings.layer, settings.use_hypercol)  # raises if there is no map
    if settings.projection is not None:
        if not (settings.use_hypercol and settings.layer == STAGES):
            raise InputError(
                f"--projection: takes the place of the hypercolumn of {STAGES} stages: give "
                f"--use_hypercol --layer {STAGES}"
            )
        trained = f"{path or '--random_network'} (--model {name})"
        encoder = load_projection(settings.projection, encoder, trained)
        channels = encoder.head.out_features
        log.line(f"{settings.projection}: projects the hypercolumn to {channels} channels")
    return freeze(encoder)


def use_colours(encoder: nn.Module, *datasets: ImageSet, noted_in: str | None = None) -> None:
    """Have data sets standardise images as the encoder is used to.

    That is by what its checkpoint ``noted_in`` says, or as `IMAGENET`'s weights want it, else as
    its network of timm wants, if it is one. Statistics that were measured on a data set stay.
    """
    colours = colours_of(encoder, noted_in)
    if colours is not None:
        for dataset in datasets:
            if not dataset.noted_colours():
                dataset.standardise_by(*colours)


def colours_of(encoder: nn.Module, noted_in: str | None) -> tuple[Colours, Colours, Levels] | None:
    """Return the mean, standard deviation and levels that an encoder is used to.

    See `use_colours`.

    Raises:
        InputError: if what the checkpoint notes are no colours.
    """
    noted = None
    if noted_in == IMAGENET and not any(timm_encoders(encoder)):
        return IMAGENET_MEAN, IMAGENET_STD, FULL_RANGE
    if noted_in not in (None, IMAGENET) and Path(noted_in).suffix != ".safetensors":
        content = load_checkpoint(noted_in, ())
        noted = content.get("colours") if isinstance(content, dict) else None
    if noted is None:
        return next(((n.mean, n.std, FULL_RANGE) for n in timm_encoders(encoder)), None)
    try:
        red, green, blue = zip(noted["mean"], noted["std"], strict=True)
        mean, std = np.array([red, green, blue], dtype=np.float64).T.tolist()
        if not np.isfinite(mean + std).all() or min(std) <= 0:
            raise ValueError("out of range")
        levels = as_levels(noted.get("levels", FULL_RANGE))
    except (KeyError, TypeError, ValueError):
        raise InputError(
            f"{noted_in}: its colours are no mean and standard deviation of three"
        ) from None
    return as_colours(mean), as_colours(std), levels


def initialise_encoder(name: str, side: int, seed: int, path: str | None, log: RunLog) -> Encoder:
    """Return an encoder with the weights of a file, or, without one, those that belong to a seed.

    `IMAGENET` stands for the file of published ones; see `load_frozen_encoder`.
    """
    if path == IMAGENET:
        path = imagenet_file(name, log)
    if path is not None and name.startswith(PREFIX):
        check_is_file(path, "no such checkpoint")
        count = count_weights(name, side)
        if count > max(LARGE, os.path.getsize(path)):  # a byte each, at least
            raise InputError(f"{path}: too small for --model {name}, of {count:,} weights")
    encoder = build_random_encoder(name, side, seed)
    if path is not None:
        state = read_encoder_state(path, encoder, name, log)
        load_weights(encoder, state, path, f"--model {name}")
    return encoder


def load_projection(path: str, encoder: Encoder, trained: str) -> ProjectedEncoder:
    """Return an encoder with the projection of its hypercolumn that `train_dense.py` trained.

    The checkpoint holds the projection's own encoder, too, which has to be this one. ``trained``
    says where this one's weights are from, for messages.

    Raises:
        InputError: if the file holds no projection, or one of another encoder's hypercolumn.
    """
    content = load_checkpoint(path, ("model", "head"))
    own = deepcopy(encoder)
    load_weights(own, content["model"], path, trained)
    held = own.state_dict()
    # The vector head may differ: no map depends on it, and where a file has none that fits, it
    # belongs to the seed.
    if any(
        ".fc." not in key and not torch.equal(value, held[key])
        for key, value in encoder.state_dict().items()
    ):
        raise InputError(f"{path}: projects the hypercolumn of another encoder than {trained}")
    weight = content["head"].get("weight")
    dimensions = len(weight) if isinstance(weight, Tensor) and weight.dim() else 0
    if not 0 < dimensions <= MOST_DIMENSIONS:
        raise InputError(
            f"{path}: its head has {dimensions} channels, expected 1 to {MOST_DIMENSIONS}"
        )
    projected = encoder.levels[:STAGES]
    head = nn.Linear(encoder.feature_channels(projected), dimensions)
    load_weights(head, content["head"], path, f"a projection of {trained}")
    return ProjectedEncoder(encoder, head, projected)


def read_encoder_state(path: str, encoder: nn.Module, name: str, log: RunLog) -> dict[str, Tensor]:
    """Return an encoder's weights from a checkpoint, under the encoder's own keys.

    Understood are the checkpoints of `train_moco.py`, of the published code and of DVE; those of
    MoCo v1 and v2, of which the query encoder is taken; and a bare state dict, such as
    torchvision's. A head that doesn't fit keeps its initial weights, since no map depends on it.
    For a network of timm see `match_timm_state`.

    Raises:
        InputError: if the file is no checkpoint, or doesn't hold an encoder.
    """
    state = load_state(path)
    if isinstance(encoder, TimmEncoder):
        return match_timm_state(state, path, encoder, name)
    own = encoder.state_dict()
    first = next(iter(own))
    stem = first.rsplit(".", 2)[0] + "." if first.startswith("encoder.") else ""
    bare = first.removeprefix(stem)
    prefix = next((p for p in PREFIXES if p + bare in state), None)
    if prefix is None:
        found = excerpt(", ".join(list(state)[:4]))
        raise InputError(f"{path}: holds no encoder for --model {name}: no {bare}; found {found}")
    mapped = {stem + k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    if prefix not in (stem, "module.") or (prefix == "module." and stem):
        under = f"under {prefix}" if prefix else "without a prefix"
        log.line(f"{path}: the weights {under} are taken as {name}'s")
    heads = [
        {key: getattr(v, "shape", None) for key, v in held.items() if key.startswith(f"{stem}fc.")}
        for held in (own, mapped)
    ]
    if stem and heads[0] != heads[1]:
        log.line(f"{path}: its head (fc) doesn't fit {name}'s and is ignored")
        mapped = {key: value for key, value in mapped.items() if key not in heads[1]}
        mapped |= {key: own[key] for key in heads[0]}
    return mapped
