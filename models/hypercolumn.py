"""Hypercolumns: maps of several depths stacked at one resolution [Cheng et al. 2020, Sec. 3.2].

Letters: B images, L maps of one image (deepest first), C channels of a map, h and w its native
rows and columns, H and W those of the hypercolumn, K channels after a projection.

Bilinear resizing acts on each channel alone and a 1x1 convolution on each position alone, so the
two commute: projecting the small native maps first gives the same numbers as projecting the large
hypercolumn, for a small part of the work. Resizing is also separable, a product with one matrix
over columns and one over rows, and the sum over the maps happens inside the latter product.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

SHAPE = (48, 48)  # rows and columns of the published hypercolumn


def read_shape(maps: Sequence[Tensor], map_shape: tuple[int, int] | None) -> tuple[int, int]:
    """Return the rows and columns that maps are read at; without any, a single map's own."""
    return map_shape or (maps[0].shape[2], maps[0].shape[3])


def hypercolumn(maps: Sequence[Tensor], output_shape: tuple[int, int]) -> Tensor:
    """Resize maps bilinearly (corners not aligned) and stack their channels.

    Args:
        maps: L tensors (B, C, h, w), deepest first.
        output_shape: (H, W).

    Returns:
        (B, sum of C, H, W).
    """
    resized = [
        F.interpolate(m, size=output_shape, mode="bilinear", align_corners=False) for m in maps
    ]
    return torch.cat(resized, dim=1)


def resize_matrix(size_in: int, size_out: int) -> Tensor:
    """Return the (size_out, size_in) float64 matrix of a 1-D bilinear resize, corners not aligned.

    Output sample i reads the input at (i + 0.5) * size_in / size_out - 0.5, clamped below at 0;
    the last input sample repeats.
    """
    source = (torch.arange(size_out, dtype=torch.float64) + 0.5) * size_in / size_out - 0.5
    source = source.clamp(min=0)
    low = source.floor().long().clamp(max=size_in - 1)
    high = (low + 1).clamp(max=size_in - 1)
    fraction = source - low
    matrix = torch.zeros(size_out, size_in, dtype=torch.float64)
    rows = torch.arange(size_out)
    matrix[rows, low] += 1 - fraction
    matrix[rows, high] += fraction
    return matrix


def project_hypercolumn(
    maps: Sequence[Tensor], weight: Tensor, output_shape: tuple[int, int]
) -> Tensor:
    """Return ``conv1x1(hypercolumn(maps, output_shape), weight)`` without ever making the latter.

    Args:
        maps: L tensors (B, C, h, w), deepest first.
        weight: (K, sum of C), whose columns are in the order of the maps.
        output_shape: (H, W).

    Returns:
        (B, K, H, W).
    """
    height, width = output_shape
    widened, vertical = [], []
    for m, w in zip(maps, weight.split([m.shape[1] for m in maps], dim=1), strict=True):
        b, _, h_in, w_in = m.shape
        projected = (w @ m.flatten(2)).view(b, -1, h_in, w_in)  # (B, K, h, w)
        horizontal = resize_matrix(w_in, width).to(m).t()  # (w, W)
        widened.append(projected @ horizontal)  # (B, K, h, W)
        vertical.append(resize_matrix(h_in, height).to(m))  # (H, h)
    # One product sums over the maps: (H, sum of h) times (B, K, sum of h, W).
    return torch.cat(vertical, dim=1) @ torch.cat(widened, dim=2)
