"""What isn't given for images of one's own: see "Defaults" in docs/own_images.md."""

import argparse
from functools import partial
from typing import Any

from engine.features.imagenet import IMAGENET
from models.encoders import OWN_MODEL
from utils.arguments import ArgumentParser
from utils.checkpoint import noted_options

OWN = "Keypoints"  # of --dataset
# As docs/results.md found them best with `OWN_MODEL`. Whoever names a network, or a benchmark, has
# the published ones.
OWN_DEFAULTS: dict[str, Any] = {
    "image_size": 224,
    "regressor": "finetune",
    "finetune_steps": "auto",
    "finetune_batch": 8,
    "finetune_rate": 0.002,
    "finetune_spread": "auto",
    "amp": "auto",
}


def is_own(options: argparse.Namespace) -> bool:
    """Whether options are about images of one's own."""
    return options.dataset == OWN


def choose_own_defaults(
    parser: ArgumentParser, checkpoint: str, *names: str, **others: Any
) -> None:
    """Choose what isn't given for images of one's own; ``--annotations`` alone says that they are.

    Args:
        parser: of a script that reads annotations.
        checkpoint: option that may name one, whose own options come before the defaults.
        names: of those options, beside the model.
        others: further defaults, which go before `OWN_DEFAULTS`.
    """

    def weights(options: argparse.Namespace) -> str | None:
        return IMAGENET if is_own(options) and not options.random_network else None

    def names_none(options: argparse.Namespace) -> bool:
        return is_own(options) and options.model is None

    def noted(name: str, options: argparse.Namespace) -> Any:
        path = getattr(options, checkpoint)
        if not (is_own(options) and path):
            return None
        return parser.read_value(name, noted_options(path).get(name))

    parser.choose_default("dataset", lambda o: None if o.annotations is None else OWN)
    for name in names:
        parser.choose_default(name, partial(noted, name))
    parser.choose_own_defaults(names_none, **{**OWN_DEFAULTS, **others})
    parser.choose_default("model", partial(noted, "model"))
    parser.choose_own_defaults(is_own, model=OWN_MODEL)
    parser.choose_default("trained_model_path", weights)
