"""The frozen encoder of an evaluation, from a checkpoint or drawn at random."""

from torch import nn

from models.encoders import LAST_MAP, build_random_encoder, freeze
from utils.checkpoint import load_checkpoint, load_weights
from utils.errors import InputError


def new_encoder(name: str, side: int, seed: int) -> nn.Module:
    """Return the untrained encoder that belongs to a seed.

    Raises:
        InputError: if the network can't take images of this side.
    """
    try:
        return build_random_encoder(name, side, seed)
    except ValueError as error:
        raise InputError(f"--image_size and --image_crop: {error}") from None


def load_frozen_encoder(
    name: str, side: int, path: str | None, random_network: bool, layer: int, seed: int
) -> nn.Module:
    """Return an encoder in eval mode, without gradients.

    Args:
        name: of ``--model``.
        side: of the square input, in pixels.
        path: checkpoint of `train_moco.py` or of the published code (``model``), or of DVE
            (``state_dict`` with a ``module.`` prefix).
        random_network: draw the weights from the seed instead.
        layer: checked for existence.
        seed: of a random network.

    Raises:
        InputError: if the flags don't fit together or the checkpoint doesn't fit the model.
    """
    if layer > LAST_MAP:
        raise InputError(
            f"--layer {layer}: layers 0 to {LAST_MAP} have maps to find landmarks in, "
            "deeper ones are vectors"
        )
    if path is None and not random_network:
        raise InputError("give --trained_model_path FILE, or --random_network for an untrained one")
    if path is not None and random_network:
        raise InputError("--trained_model_path and --random_network exclude each other")
    encoder = new_encoder(name, side, seed)
    if path is not None:
        key = "state_dict" if name == "hourglass" else "model"
        state = load_checkpoint(path, (key,))[key]
        if name == "hourglass":
            state = {str(k).removeprefix("module."): v for k, v in state.items()}
        load_weights(encoder, state, path, f"--model {name}")
    return freeze(encoder)
