"""The frozen encoder of an evaluation, from a checkpoint or initialised at random."""

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from data_loader.image_set import ImageSet
from engine.run import Settings
from engine.timm_weights import match_timm_state
from models.encoders import LAST_MAP, Encoder, build_random_encoder, freeze
from models.timm_encoder import PREFIX, TimmEncoder
from utils.checkpoint import load_state, load_weights
from utils.errors import InputError

# Where checkpoints keep an encoder's weights, in the order in which they are looked for: ours and
# the published ones, ours without DataParallel, MoCo v1 and v2, DVE, torchvision.
PREFIXES = ("encoder.module.", "encoder.", "module.encoder_q.", "encoder_q.", "module.", "")


@dataclass(frozen=True)
class EncoderSettings(Settings):
    """Which encoder sees which images."""

    dataset: str
    model: str
    trained_model_path: str | None
    random_network: bool
    layer: int
    use_hypercol: bool
    seed: int
    batch_size: int
    num_workers: int
    gpu: int | None
    log_path: Path

    @property
    def hint(self) -> str:
        """What a regressor's shape depends on, for messages."""
        return f"--model {self.model} --layer {self.layer} on {self.dataset}"


def load_frozen_encoder(settings: EncoderSettings, side: int, notices: list[str]) -> Encoder:
    """Return an encoder in eval mode, without gradients, for square inputs of ``side`` pixels.

    Its weights are those of a file that `match_encoder_state` or `match_timm_state` understands, or
    belong to a seed; without either, a network of timm takes timm's own.
    ``notices`` receives what the user should know about the file.

    Raises:
        InputError: if the flags don't fit together or the checkpoint doesn't fit the model.
    """
    path, name = settings.trained_model_path, settings.model
    if settings.layer > LAST_MAP:
        raise InputError(
            f"--layer {settings.layer}: layers 0 to {LAST_MAP} have maps to find landmarks in, "
            "deeper ones are vectors"
        )
    fetched = path is None and not settings.random_network
    if fetched and not name.startswith(PREFIX):
        raise InputError("give --trained_model_path FILE, or --random_network for an untrained one")
    if path is not None and settings.random_network:
        raise InputError("--trained_model_path and --random_network exclude each other")
    encoder = initialise_encoder(name, side, settings.seed, path, notices, pretrained=fetched)
    encoder.feature_channels(settings.layer, settings.use_hypercol)  # raises if there is no map
    return freeze(encoder)


def use_colours(encoder: nn.Module, *datasets: ImageSet) -> None:
    """Have data sets standardise images as the encoder's network of timm wants, if it is one."""
    for part in encoder.modules():
        if isinstance(part, TimmEncoder):
            for dataset in datasets:
                dataset.mean, dataset.std = part.mean, part.std


def initialise_encoder(
    name: str,
    side: int,
    seed: int,
    path: str | None,
    notices: list[str],
    pretrained: bool = False,
) -> Encoder:
    """Return an encoder with the weights of a file, or, without one, those that belong to a seed.

    See `load_frozen_encoder`, and for ``pretrained`` `models.encoders.build_encoder`.
    """
    encoder = build_random_encoder(name, side, seed, pretrained)
    if path is not None:
        state = load_state(path)
        if isinstance(encoder, TimmEncoder):
            state = match_timm_state(state, path, encoder, name)
        else:
            state = match_encoder_state(state, path, encoder, name, notices)
        load_weights(encoder, state, path, f"--model {name}")
    return encoder


def match_encoder_state(
    state: dict[str, Tensor], path: str, encoder: nn.Module, name: str, notices: list[str]
) -> dict[str, Tensor]:
    """Return an encoder's weights from those of a file, under the encoder's own keys.

    Understood are the checkpoints of `train_moco.py`, of the published code and of DVE; those of
    MoCo v1 and v2, of which the query encoder is taken; and a bare state dict, such as
    torchvision's. A head that doesn't fit keeps its initial weights, since no map depends on it.
    ``notices`` receives which prefix was mapped and whether the head was left out.

    Raises:
        InputError: if the file doesn't hold an encoder.
    """
    own = encoder.state_dict()
    first = next(iter(own))
    stem = first.rsplit(".", 2)[0] + "." if first.startswith("encoder.") else ""
    bare = first.removeprefix(stem)
    prefix = next((p for p in PREFIXES if p + bare in state), None)
    if prefix is None:
        found = ", ".join(list(state)[:4]).encode("unicode_escape").decode()[:200]
        raise InputError(f"{path}: holds no encoder for --model {name}: no {bare}; found {found}")
    mapped = {stem + k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    if prefix not in (stem, "module.") or (prefix == "module." and stem):
        under = f"under {prefix}" if prefix else "without a prefix"
        notices.append(f"{path}: the weights {under} are taken as {name}'s")
    head = [key for key in {**own, **mapped} if key.startswith(f"{stem}fc.")]
    if stem and any(
        key not in mapped or key not in own or getattr(mapped[key], "shape", None) != own[key].shape
        for key in head
    ):
        notices.append(f"{path}: its head (fc) doesn't fit {name}'s and is ignored")
        mapped = {key: value for key, value in mapped.items() if key not in head}
        mapped |= {key: own[key] for key in head if key in own}
    return mapped
