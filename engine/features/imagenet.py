"""Weights trained on ImageNet that everyone has: torchvision's of ResNets, timm's of its networks.

[spec 15.] They are asked for by the word `IMAGENET` in place of a file.
"""

import hashlib
from pathlib import Path
from typing import NamedTuple

import torch

from data_loader.image_set import Colours, as_colours
from data_loader.views.random_view import IMAGENET_MEAN, IMAGENET_STD
from models.timm_encoder import PREFIX, find_network
from utils.errors import InputError
from utils.files import reason
from utils.log import RunLog

IMAGENET = "imagenet"  # of --init and --trained_model_path
HUB_FILE = "model.safetensors"  # of timm's networks on the Hugging Face hub


class PublishedWeights(NamedTuple):
    """Weights that a library publishes.

    Attributes:
        name: what the library calls them.
        licence: as it says.
        mean: of each colour in [0, 1], which images are to be standardised by.
        std: of each colour.
        url: of their file, whose name ends with the first digits of its SHA-256; may be empty.
        hub: of timm's, their place on the Hugging Face hub.
    """

    name: str
    licence: str
    mean: Colours
    std: Colours
    url: str
    hub: str = ""


def published_weights(model: str) -> PublishedWeights:
    """Return the weights that are published of a network, by its name for ``--model``.

    Raises:
        InputError: if there are none.
    """
    if model.startswith(PREFIX):
        timm, name = find_network(model)
        config = timm.get_pretrained_cfg(name)
        if config is not None and config.has_weights:
            told = f"timm's {config.architecture}.{config.tag}", config.license or "unknown licence"
            colours = as_colours(config.mean), as_colours(config.std)
            return PublishedWeights(*told, *colours, config.url or "", config.hf_hub_id or "")
    else:
        from torchvision.models import get_model_weights

        try:
            weights = get_model_weights(model)["IMAGENET1K_V1"]
            told = f"torchvision's {weights}", "bsd-3-clause"
            return PublishedWeights(*told, IMAGENET_MEAN, IMAGENET_STD, weights.url)
        except ValueError:
            pass
    raise InputError(
        f"--model {model}: no ImageNet weights of it are published; give weights as a file, or "
        "--random_network for an untrained network"
    )


def imagenet_file(model: str, log: RunLog) -> str:
    """Return the file of a network's published weights, fetched if it isn't here.

    It is looked for among PyTorch's downloads, where it is put, and those of the Hugging Face hub.

    Raises:
        InputError: if there are no such weights, they can't be fetched, or the file is damaged.
    """
    weights = published_weights(model)
    colours = f"colours of mean {weights.mean} and deviation {weights.std}"
    log.line(f"--model {model}: ImageNet's {weights.name} ({weights.licence}); {colours}")
    path = Path(torch.hub.get_dir()) / "checkpoints" / weights.url.rpartition("/")[2]
    digits = path.stem.rpartition("-")[2]  # that the file's SHA-256 begins with
    what = f"{weights.url} (SHA-256 {digits}…) at {path}"
    if weights.url and path.is_file():
        if not hashlib.sha256(path.read_bytes()).hexdigest().startswith(digits):
            raise InputError(f"{path}: damaged; put {what}")
        return str(path)
    try:
        if weights.hub:
            from huggingface_hub import hf_hub_download, try_to_load_from_cache

            if isinstance(held := try_to_load_from_cache(weights.hub, HUB_FILE), str):
                return held
            if not weights.url:
                what = f"https://huggingface.co/{weights.hub} in the cache of huggingface_hub"
                return hf_hub_download(weights.hub, HUB_FILE)
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(weights.url, str(path), digits)
    except Exception as error:  # a downloader raises whatever it likes
        raise InputError(
            f"--model {model}: {weights.name} can't be fetched ({reason(error)}); put {what}, or "
            "give --random_network for an untrained network"
        ) from None
    return str(path)
