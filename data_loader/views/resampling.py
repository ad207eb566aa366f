"""Pillow's antialiased bilinear resizing for batches, and the sparse product behind it.

Along one axis, resizing is a product with a sparse (out, in) matrix of each image's own. The
product sums whole lines of pixels, so what goes along x needs planes of columns, (B, C, X, Y), and
what goes along y planes of rows, (B, C, Y, X); `turn` leads from one to the other. Values are
whole numbers of levels, 0 to 255, in float32.

Letters: B images; C channels; X, Y columns and rows; N lines of a plane (its columns or its
rows) and L their length; M sums of lines; K taps, the lines that are summed into one.

[ours: there is no matrix multiplication, hence nothing that TF32, bf16 or autocast could blur;
and a sum's few terms are added in one order, whatever the batch and its padding.]
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

# Pillow's weights are whole multiples of 2^-22: 128 times finer than what float32 holds of a sum.
COARSE_STEPS, FINE_STEPS = 2.0**15, 2.0**22


class Taps(NamedTuple):
    """What each line of a resized image is made of, (B, M, K) each."""

    # The lines of the image; the name shadows tuple's method.
    index: Tensor  # type: ignore[assignment]
    coarse: Tensor  # their weights in whole 2^-15
    fine: Tensor  # what is left of the weights, as a multiple of 2^-15


def turn(planes: Tensor) -> Tensor:
    """Exchange rows and columns of each plane: (B, C, X, Y) becomes (B, C, Y, X)."""
    if planes.device.type != "cpu":
        return planes.transpose(2, 3).contiguous()
    # The same with a kernel that uses a CPU's vectors, as copying doesn't: it exchanges X groups
    # with the Y channels in each, and every plane is one of its pixels.
    count, channels, lines, length = planes.shape
    pixels = planes.reshape(1, count * channels, 1, lines * length).permute(0, 3, 1, 2)
    turned = F.channel_shuffle(pixels, lines).permute(0, 2, 3, 1)
    return turned.reshape(count, channels, length, lines)


def round_up(values: Tensor) -> Tensor:
    """Round in place to whole numbers, halves upwards, as fixed-point arithmetic does."""
    return values.add_(0.5).floor_()


def sum_lines(planes: Tensor, index: Tensor, *weights: Tensor) -> list[Tensor]:
    """Return weighted sums of lines: each plane's products with sparse matrices of its image's.

    Planes are (B, C, N, L) before and (B, C, M, L) after. The index (B, M, K) says which lines are
    summed, weights (B, M, K) by how much; there is a result for each of the weights.
    """
    count, channels, lines, length = planes.shape
    shape = (count, channels, *index.shape[1:])
    first = torch.arange(0, count * channels * lines, lines, device=index.device)
    index = (index.unsqueeze(1) + first.view(count, channels, 1, 1)).flatten(0, 2)
    rows = planes.reshape(-1, length)
    sums = [sum_rows(rows, index, w.unsqueeze(1).expand(shape).flatten(0, 2)) for w in weights]
    return [each.view(count, channels, -1, length) for each in sums]


def sum_rows(rows: Tensor, index: Tensor, weights: Tensor) -> Tensor:
    """Return (M, L): sums of ``rows`` (N, L), by index and weights (M, K)."""
    return F.embedding_bag(index, rows, mode="sum", per_sample_weights=weights)


def resample(planes: Tensor, taps: Taps) -> Tensor:
    """Resize planes (B, C, N, L) along their lines, to whole levels (B, C, M, L).

    Exact: often a sum lies halfway between two levels, and Pillow's finest places decide.
    """
    levels, rest = sum_lines(planes, taps.index, taps.coarse, taps.fine)
    return round_up(levels.add_(rest.floor_(), alpha=1 / COARSE_STEPS))


def resize(columns: Tensor, across: Taps, down: Taps) -> Tensor:
    """Resize planes of columns along both axes; returns planes of rows."""
    # As Pillow does: across before down, and whole levels in between.
    return resample(turn(resample(columns, across)), down)


def most_taps(length: int, size: int) -> int:
    """Return how many of ``length`` lines weigh in one of ``size``, at most."""
    return math.ceil(2 * max(length / size, 1.0))


def triangle_reach(place: Tensor, length: Tensor, size: Tensor) -> tuple[Tensor, ...]:
    """Return which lines weigh in the lines ``place`` of a resized image.

    The image has ``length`` lines before and ``size`` lines after; both broadcast to the places.

    Returns:
        The first line that weighs, the one after the last, and, in float64, the triangle's
        centre and half its base, all in lines of the image.
    """
    scale = length.double() / size
    support = scale.clamp(min=1.0)  # the triangle widens when an image shrinks
    centre = (place + 0.5) * scale
    first = (centre - support + 0.5).long().clamp_(min=0)
    stop = (centre + support + 0.5).long().minimum(length)
    return first, stop, centre, support


def triangle_taps(
    length: Tensor,
    size: Tensor,
    first: Tensor,
    last: Tensor,
    num_out: list[int],
    taps: int,
    origin: Tensor | None = None,
) -> tuple[Taps, Taps]:
    """Return what resizes images across and down by Pillow's triangle filter.

    Args:
        length: (B, 2), width and height of each image.
        size: (B, 2), what these become.
        first: (B, 2), the first column and row that are wanted of the result.
        last: (B, 2), the last ones; lines further on repeat them.
        num_out: M across and M down.
        taps: K, at least `most_taps` of every image.
        origin: (B, 2), the column and row of an image that lie first in its planes; 0 by default.
    """
    length, size, first, last = (v.unsqueeze(2) for v in (length, size, first, last))
    place = torch.arange(max(num_out), device=size.device).add(first).minimum(last)
    start, stop, centre, support = triangle_reach(place, length, size)  # (B, 2, M)
    # Taps come first meanwhile: loops over three numbers are slow.
    index = start + torch.arange(taps, device=size.device).view(-1, 1, 1, 1)  # (K, B, 2, M)
    weights = (index + (0.5 - centre)).div_(support).abs_().neg_().add_(1.0).clamp_(min=0.0)
    weights.mul_(index < stop)
    weights.mul_(FINE_STEPS / weights.sum(dim=0))
    fine = round_up(weights).mul_(COARSE_STEPS / FINE_STEPS)
    coarse = fine.floor()
    fine.sub_(coarse)
    coarse.mul_(1 / COARSE_STEPS)
    index = index.minimum(stop - 1)
    if origin is not None:
        index.sub_(origin.unsqueeze(2))
    parts = [v.movedim(0, 3).contiguous() for v in (index, coarse.float(), fine.float())]
    across, down = (
        Taps(*(part[:, axis, :number] for part in parts)) for axis, number in enumerate(num_out)
    )
    return across, down
