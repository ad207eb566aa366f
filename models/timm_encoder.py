"""Networks of timm as encoders: the feature pyramid of a convnet, the blocks' maps of a ViT.

[spec 15.] Letters: B images, C channels, H and W rows and columns, n blocks of a network whose
maps are all of one stride. Layer numbers are those of ``--layer``, as for a ResNet: 5 the deepest
map. Whoever asks for such an encoder needs timm; nothing else imports it.
"""

import difflib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from models.parallel import DataParallel
from models.resnet import MAPS, PIXELS
from utils.errors import InputError
from utils.files import reason

PREFIX = "timm:"  # of a name for --model
INSTALL = "pip install -e .[timm]"
STRIDES = {2**layer: layer for layer in MAPS}  # of a pyramid's map, to its layer
QUARTERS = {layer: layer - 1 for layer in MAPS[:4]}  # of the blocks, by layer
Colours = tuple[float, float, float]


class TimmMaps(nn.Module):
    """A network of timm that returns any of its maps.

    Args:
        network: without its classifier.
        side: of the images, in pixels.

    Attributes:
        places: layer to the place of its map among all that the network can return.
        channels: layer to the channels of its map.

    Raises:
        InputError: if the network can't take such images, or has no map of a layer's stride.
    """

    def __init__(self, network: nn.Module, side: int) -> None:
        super().__init__()
        self.network, self.side = network, side
        strides = [int(info["reduction"]) for info in getattr(network, "feature_info", [])]
        # A transformer's blocks hand on what their final norm makes comparable; the stages of a
        # pyramid have no norm of their own.
        self.has_norm = len(set(strides)) == 1
        if self.has_norm and side % strides[0]:
            raise InputError(f"needs an input of a multiple of {strides[0]} pixels, got {side}")
        try:
            with torch.no_grad():
                blank = torch.zeros(1, 3, side, side)
                maps = self.eval().run(blank, list(range(len(strides))))
        except Exception as error:  # whatever a network does with a size that it wasn't made for
            said = f"can't take {side} pixels, or has no maps ({reason(error)})"
            raise InputError(said) from None
        if self.has_norm:
            self.places = {k: -(-len(maps) * q // 4) - 1 for k, q in QUARTERS.items()}
        else:
            self.places = {STRIDES[s]: i for i, s in enumerate(strides) if s in STRIDES}
        if not self.places or any(m.dim() != 4 for m in maps):
            raise InputError(f"has no maps of a stride of 2 to 32 pixels; strides: {strides}")
        channels = {layer: maps[place].shape[1] for layer, place in self.places.items()}
        self.channels = {**channels, PIXELS: 3}

    def run(self, x: Tensor, places: list[int]) -> list[Tensor]:
        """Return the maps (B, C, H, W) at ascending places; class and register tokens aren't in."""
        network: Any = self.network
        return network.forward_intermediates(
            x, indices=places, norm=self.has_norm, stop_early=True, intermediates_only=True
        )

    def forward(self, x: Tensor, levels: Sequence[int]) -> list[Tensor]:
        """Return the maps (B, C, h, w) of some layers, deepest first, or the pixels.

        Args:
            x: (B, 3, H, W), standardised by the network's own mean and standard deviation.
            levels: the layers; see the module.
        """
        if levels[0] == PIXELS:
            return [x]
        places = [self.places[level] for level in levels]
        ascending = sorted(set(places))
        found = dict(zip(ascending, self.run(x, ascending), strict=True))
        return [found[place] for place in places]


class TimmEncoder(nn.Module):
    """A network of timm behind `DataParallel`.

    Its weights are ``encoder.module.network.`` and their names in timm.

    Args:
        maps: the network.
        identity: what the maps depend on beside weights, as text.
        mean: of each colour in [0, 1], which the images are to be standardised by.
        std: of each colour.
        version: of timm.
    """

    def __init__(
        self, maps: TimmMaps, identity: str, mean: Colours, std: Colours, version: str
    ) -> None:
        super().__init__()
        self.encoder = DataParallel(maps)
        self.identity, self.mean, self.std, self.version = identity, mean, std, version

    @property
    def levels(self) -> tuple[int, ...]:
        """All maps, deepest first."""
        return tuple(sorted(self.encoder.module.places, reverse=True))

    def forward(self, x: Tensor, *, levels: Sequence[int]) -> list[Tensor]:
        """Return what `TimmMaps.forward` does, of the same arguments."""
        return self.encoder(x, levels=levels)

    def feature_channels(self, levels: Sequence[int]) -> int:
        """Return how many channels these maps have together."""
        return sum(self.encoder.module.channels[level] for level in levels)

    def unused_parameters(self, levels: Sequence[int]) -> list[nn.Parameter]:
        """Return the parameters on which none of these maps depends."""
        maps, was_training = self.encoder.module, self.training
        blank = torch.zeros(1, 3, maps.side, maps.side, device=next(self.parameters()).device)
        total = sum(m.sum() for m in self.eval()(blank, levels=levels))
        self.train(was_training)
        parameters = list(self.parameters())
        gradients = torch.autograd.grad(total, parameters, allow_unused=True)
        return [p for p, g in zip(parameters, gradients, strict=True) if g is None]


def timm_encoders(module: nn.Module) -> Iterator[TimmEncoder]:
    """Yield the networks of timm within a module, itself included."""
    return (part for part in module.modules() if isinstance(part, TimmEncoder))


def build_timm_encoder(model: str, side: int) -> TimmEncoder:
    """Return a freshly initialised encoder for square inputs of ``side`` pixels.

    Args:
        model: a name of timm's after ``timm:``.
        side: a multiple of the patch's side where there are patches.

    Raises:
        InputError: if timm is absent or knows no such network, or the network doesn't make maps
            of such inputs.
    """
    timm, name = find_network(model)
    network = create_network(timm, name, side)
    config = network.pretrained_cfg
    mean, std = ((float(r), float(g), float(b)) for r, g, b in (config["mean"], config["std"]))
    identity = f"{PREFIX}{name.partition('.')[0]} {mean} {std}"
    try:
        maps = TimmMaps(network, side)
    except InputError as error:
        raise InputError(f"--image_size and --image_crop: {model} {error}") from None
    return TimmEncoder(maps.train(), identity, mean, std, timm.__version__)


def find_network(model: str) -> tuple[ModuleType, str]:
    """Return timm and what it calls a network, which may have a weights' tag.

    See `build_timm_encoder`.
    """
    try:
        import timm
    except ImportError:
        raise InputError(f"--model {model}: timm isn't installed; {INSTALL}") from None
    name, known = model.removeprefix(PREFIX), timm.list_models() + timm.list_pretrained()
    if timm.is_model(stem := name.partition(".")[0]):
        known = [stem, *(tagged for tagged in known if tagged.startswith(f"{stem}."))]
    if name in known:
        return timm, name
    close = difflib.get_close_matches(name, known, 3, 0.5)
    hint = f"; close ones: {', '.join(close)}" if close else ""
    raise InputError(f"--model {model}: timm {timm.__version__} has no such network{hint}")


def count_weights(model: str, side: int) -> int:
    """Return how many weights a network has, without memory for them; see `build_timm_encoder`.

    0 where timm can't build it so: older releases compute with numbers of a ViT's tensors.
    """
    timm, name = find_network(model)
    with suppress(InputError), torch.device("meta"):
        network = create_network(timm, name, side)
        return sum(weight.numel() for weight in network.parameters())
    return 0


def create_network(timm: ModuleType, name: str, side: int) -> Any:
    """Return a network without classifier that takes inputs of ``side`` pixels, where it can."""
    # Position embeddings resampled at each forward pass, so that the weights fit inputs of any
    # side; a network that is made for one side; one that takes any.
    ways: list[dict[str, Any]] = [{"dynamic_img_size": True}, {"img_size": side}, {}]
    if (config := timm.get_pretrained_cfg(name)) is not None and not config.fixed_input_size:
        del ways[1]
    for options in ways:
        try:
            return timm.create_model(name, num_classes=0, **options)
        except TypeError as error:
            if not options:
                raise InputError(f"--model {PREFIX}{name}: {reason(error)}") from None
        except Exception as error:  # timm and the network raise whatever they like
            asked = f"--image_size and --image_crop: {PREFIX}{name}"
            raise InputError(f"{asked} can't take {side} pixels ({reason(error)})") from None
    raise AssertionError("the last way returns or raises")
