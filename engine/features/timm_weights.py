"""Weights for a network of timm, from a file [spec 15]."""

import sys

from torch import Tensor

from models.timm_encoder import TimmEncoder
from utils.errors import InputError
from utils.files import reason

STEM = "encoder.module.network."  # of `TimmEncoder`'s own weights
# Where files keep a network's weights, in the order in which they are looked for: `train_dense.py`
# of a network of timm, or of one of the ResNets here, as `train_moco.py`; MoCo; DataParallel.
PREFIXES = (STEM, "encoder.module.", "module.encoder_q.", "encoder_q.", "module.")


def match_timm_state(
    state: dict[str, Tensor], path: str, encoder: TimmEncoder, name: str
) -> dict[str, Tensor]:
    """Return an encoder's weights from those of a file, under the encoder's own keys.

    Understood are timm's files, and those that timm itself can convert for this family of networks,
    such as DINOv2's or DINOv3's own; it also resamples what depends on the size of the input. The
    classifier is left out.

    Raises:
        InputError: if they can't be converted.
    """
    prefix = next((p for p in PREFIXES if any(key.startswith(p) for key in state)), "")
    bare = {key.removeprefix(prefix): v for key, v in state.items() if key.startswith(prefix)}
    network = encoder.encoder.module.network
    convert = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    if convert is not None:
        try:
            bare = convert(bare, network)
        except Exception as error:  # whatever another network's weights lead to
            raise InputError(
                f"{path}: holds another architecture than --model {name} ({reason(error)})"
            ) from None
    own, classifier = network.state_dict(), network.pretrained_cfg.get("classifier") or ()
    heads = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    head = tuple(f"{part}." for part in heads)
    return {STEM + k: v for k, v in bare.items() if k in own or not k.startswith(head)}
