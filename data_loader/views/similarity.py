"""Random maps between a view and its image: the geometry of dense contrast.

[spec 11.] A map takes a place of the view to the place of the image that is shown there: a
rotation, a scale, a slight stretch and a shift. Places are (x, y) in [-1, 1], where -1 and 1 are
the outer edges of the first and the last pixel. Letters: B images, S their side, W the side of a
view, N places.
"""

import argparse
import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from utils.arguments import finite_float
from utils.errors import InputError

LEAST_COMMON = 0.05  # fraction of a view that the other has to show, on average


class Spread(NamedTuple):
    """How far random maps depart from showing the image's centre upright.

    Args:
        rotation: largest angle, in degrees.
        scale: largest absolute logarithm of the scale.
        shift: largest shift along x and along y, in half sides of the image.
        aspect: largest absolute logarithm by which x is stretched and y shrunk.
    """

    rotation: float = 40.0
    scale: float = 0.35
    shift: float = 0.25
    aspect: float = 0.12


def add_spread_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare how far random maps depart from showing the image's centre upright."""
    group = parser.add_argument_group("maps from view to image")
    of_each = {
        "rotation": "angle, in degrees",
        "scale": "logarithm of the scale",
        "shift": "shift along each axis, in half sides of the image",
        "aspect": "logarithm by which a view is stretched along one axis and shrunk along the "
        "other",
    }
    for name, default in Spread()._asdict().items():
        largest = f"largest {of_each[name]}"
        group.add_argument(f"--{name}", type=finite_float, default=default, help=largest)


def check_common_places(zoom: float, spread: Spread) -> None:
    """Raise an `InputError` if two random views of an image hardly ever show the same places."""
    common = common_fraction(zoom, spread)
    if not common >= LEAST_COMMON:
        raise InputError(
            f"--rotation {spread.rotation:g}, --scale {spread.scale:g}, --shift {spread.shift:g} "
            f"and --aspect {spread.aspect:g}: two views of an image have {100 * common:.1f} % of "
            f"their places in common, too few to learn from (at least {100 * LEAST_COMMON:.0f} %)"
        )


def sample_maps(count: int, zoom: float, spread: Spread, generator: torch.Generator) -> Tensor:
    """Return random maps (B, 2, 3) from view to image.

    Args:
        count: B.
        zoom: fraction of the image's side that a view shows at the middle of all scales.
        spread: how far the maps depart from that.
        generator: on the CPU.
    """
    uniform = 2 * torch.rand(5, count, generator=generator) - 1  # each in [-1, 1)
    angle, scale = (
        uniform[0] * math.radians(spread.rotation),
        zoom * (uniform[1] * spread.scale).exp(),
    )
    aspect, shift = (uniform[2] * spread.aspect).exp(), uniform[3:] * spread.shift  # (B,), (2, B)
    cos, sin = scale * angle.cos(), scale * angle.sin()
    across = torch.stack([cos * aspect, -sin / aspect, shift[0]], dim=1)  # (B, 3)
    down = torch.stack([sin * aspect, cos / aspect, shift[1]], dim=1)
    return torch.stack([across, down], dim=1)


def to_image(maps: Tensor, places: Tensor) -> Tensor:
    """Return the places (B, N, 2) of the images that views show at places (B, N, 2) of theirs."""
    return places @ maps[:, :, :2].transpose(1, 2) + maps[:, None, :, 2]


def to_view(maps: Tensor, places: Tensor) -> Tensor:
    """Return where views show places (B, N, 2) of their images: the inverse of `to_image`."""
    a, b, c, d = maps[:, :, :2].flatten(1).unbind(dim=1)  # (B,) each
    adjugate = torch.stack([d, -b, -c, a], dim=1).view(-1, 2, 2)
    inverse = adjugate / (a * d - b * c)[:, None, None]
    return (places - maps[:, None, :, 2]) @ inverse.transpose(1, 2)


def warp(images: Tensor, maps: Tensor, side: int) -> Tensor:
    """Return the views (B, C, W, W) that maps show of images (B, C, S, S); borders are reflected.

    Args:
        images: floating point.
        maps: (B, 2, 3), on the images' device.
        side: W.
    """
    grid = F.affine_grid(maps, [len(images), 1, side, side], align_corners=False)
    return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)


def common_fraction(zoom: float, spread: Spread, pairs: int = 256) -> float:
    """Return which fraction of a random view shows what a second view of the image shows, too.

    What lies beyond the image's borders doesn't count.
    """
    generator = torch.Generator().manual_seed(0)
    one, other = (sample_maps(pairs, zoom, spread, generator) for _ in range(2))
    places = 2 * torch.rand(pairs, 64, 2, generator=generator) - 1
    of_image = to_image(one, places)
    return float((is_inside(of_image) & is_inside(to_view(other, of_image))).float().mean())


def is_inside(places: Tensor) -> Tensor:
    """Return which places (..., 2) an image or view shows, bool (...)."""
    return (places.abs() < 1).all(dim=-1)
