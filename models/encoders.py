"""The encoders by the names of ``--model``, and how their features are asked for [spec 2, 3, 8]."""

import argparse
import hashlib
import re
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.hourglass import HourglassNet
from models.hypercolumn import SHAPE, hypercolumn
from models.projection import ProjectedEncoder
from models.resnet import MAPS, PIXELS, RESNETS, InsResNet
from models.timm_encoder import PREFIX, TimmEncoder, build_timm_encoder, timm_encoders
from utils.arguments import allow_change, natural
from utils.errors import InputError

DEEPEST_STRIDE = 32  # of a ResNet's last stage; the hourglass halves its input as often
LAST_MAP = MAPS[0]  # deeper layers are vectors

PUBLISHED_MODEL = "resnet50"
OWN_MODEL = "timm:mobilenetv2_100"  # for images of one's own: see docs/results.md

Encoder = InsResNet | HourglassNet | TimmEncoder | ProjectedEncoder


class Levels(NamedTuple):
    """Which of an encoder's maps are wanted, and how they are read.

    Args:
        numbers: of the maps, deepest first, as ``--layer`` counts them.
        shape: rows and columns that the maps are brought to; None for a single one that is read
            at its own size.
    """

    numbers: tuple[int, ...]
    shape: tuple[int, int] | None


def add_encoder_arguments(
    parser: argparse.ArgumentParser, *, layer: int
) -> argparse._ArgumentGroup:
    """Declare which frozen encoder and which of its layers to use; return the group."""
    group = parser.add_argument_group("frozen encoder")
    group.add_argument(
        "--model",
        type=lambda text: encoder_name(text, "hourglass"),
        metavar="NAME",
        default=PUBLISHED_MODEL,
        help=f"architecture: {', '.join(RESNETS)}; hourglass, DVE's, which has one layer only; or "
        "timm:NAME, a network of timm, such as timm:vit_small_patch16_dinov3 (needs "
        "pip install -e .[timm])",
    )
    add_weights_arguments(group)
    group.add_argument(
        "--layer",
        type=natural,
        default=layer,
        help="1 the max pool, 2 to 5 the stages conv2_x to conv5_x, 0 the pixels; of timm's, the "
        "map of stride 2, 4, 8, 16 or 32, or 2 to 5 what a quarter, a half, three quarters or all "
        "of a transformer's blocks hand on; "
        "with --use_hypercol how many maps are stacked, from the deepest up",
    )
    group.add_argument(
        "--use_hypercol",
        action="store_true",
        help="stack the maps of several layers, resized to 48x48",
    )
    add_projection_argument(group)
    return group


def add_weights_arguments(group: argparse._ActionsContainer) -> None:
    """Declare whose weights the encoder has."""
    group.add_argument(
        "--trained_model_path",
        metavar="FILE",
        help="checkpoint of train_moco.py, train_dense.py, DVE, or MoCo v1 or v2, or torchvision's "
        "or timm's state dict (.pth or .safetensors); or imagenet, torchvision's weights of a "
        "ResNet or timm's of its network, fetched where they aren't here yet, which a network of "
        "timm takes without --random_network, too",
    )
    allow_change("trained_model_path", keeps_results=False)  # its weights are compared instead
    add_random_argument(group)


def add_random_argument(group: argparse._ActionsContainer) -> None:
    """Declare that the encoder has no weights."""
    group.add_argument(
        "--random_network",
        action="store_true",
        help="an untrained encoder, initialised from --seed, to compare with",
    )


def add_projection_argument(group: argparse._ActionsContainer) -> None:
    """Declare a projection of the encoder's hypercolumn."""
    group.add_argument(
        "--projection",
        metavar="FILE",
        help="checkpoint of train_dense.py, with or without --freeze, that began or ended with "
        "this encoder: its linear projection of the hypercolumn takes the hypercolumn's place",
    )
    allow_change("projection", keeps_results=False)  # part of the encoder's weights


def encoder_name(text: str, *others: str) -> str:
    """Parse the name of an encoder that can be trained, or one of the others."""
    names = [*RESNETS, *others]
    if text in names or re.fullmatch(rf"{PREFIX}[\w.-]+", text):
        return text
    expected = ", ".join([*names, f"{PREFIX}NAME"])
    raise argparse.ArgumentTypeError(f"expected one of {expected}; got {text!r}")


def build_encoder(name: str, side: int) -> Encoder:
    """Return a freshly initialised encoder for square inputs of ``side`` pixels.

    Raises:
        InputError: if the network can't take such an input, or can't be had from timm.
    """
    asked = f"--image_size and --image_crop: {name} needs"
    if side < DEEPEST_STRIDE:
        raise InputError(f"{asked} an input of at least {DEEPEST_STRIDE} pixels, got {side}")
    if name == "hourglass":
        if side % DEEPEST_STRIDE:
            raise InputError(f"{asked} a multiple of {DEEPEST_STRIDE} pixels, got {side}")
        return HourglassNet()
    if name.startswith(PREFIX):
        return build_timm_encoder(name, side)
    return RESNETS[name](pool_size=side // DEEPEST_STRIDE)


def build_random_encoder(name: str, side: int, seed: int) -> Encoder:
    """Return the untrained encoder that belongs to a seed, without moving the global generator."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_encoder(name, side)


def freeze(encoder: Encoder) -> Encoder:
    """Put an encoder in eval mode, without gradients; return it."""
    return encoder.eval().requires_grad_(False)


def choose_levels(encoder: Encoder, layer: int, use_hypercol: bool) -> Levels:
    """Return what the flags ask of an encoder, at most layer `LAST_MAP`.

    Raises:
        InputError: if the encoder hasn't got these maps.
    """
    if isinstance(encoder, HourglassNet | ProjectedEncoder):
        return Levels(encoder.levels, None)  # one map, whatever is asked for
    if layer <= PIXELS:
        return Levels((PIXELS,), None)
    if use_hypercol and layer <= len(encoder.levels):
        return Levels(encoder.levels[:layer], SHAPE)
    if not use_hypercol and layer in encoder.levels:
        return Levels((layer,), None)
    wanted = f"--layer {layer}{' --use_hypercol' if use_hypercol else ''}"
    count, held = len(encoder.levels), ", ".join(map(str, encoder.levels[::-1]))
    raise InputError(f"{wanted}: this network of timm has {count} maps, layers {held}")


@torch.no_grad()
def encode(encoder: nn.Module, images: Tensor, levels: Sequence[int]) -> list[Tensor]:
    """Return maps (B, C, h, w) of images (B, 3, H, W), deepest first, by their numbers.

    The pixels alone are no encoder's affair: some have one map, whatever they are asked for.
    """
    return [images] if tuple(levels) == (PIXELS,) else encoder(images, levels=levels)


def encode_dense(encoder: nn.Module, images: Tensor, levels: Levels) -> Tensor:
    """Return one map (B, C, h, w): the hypercolumn, or the single map at its own size."""
    maps = encode(encoder, images, levels.numbers)
    return maps[0] if levels.shape is None else hypercolumn(maps, levels.shape)


def weights_digest(module: nn.Module) -> str:
    """Return a SHA-256 of all parameters and buffers, names included.

    Two networks of timm may differ without differing there, such as in an activation: the network
    counts, too.
    """
    digest = hashlib.sha256()
    for network in timm_encoders(module):
        digest.update(network.identity.encode())
    for name, tensor in module.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
