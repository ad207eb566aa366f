"""What JPEG compression does to images, for batches and without writing a file.

The loss of JPEG is rounding: of colours to YCbCr, of 2x2 chroma means, and of 8x8 DCT
coefficients to multiples of the quantisation tables. Here each happens as in libjpeg with
Pillow's defaults (baseline, 4:2:0, accurate integer DCT, triangle upsampling), in whole numbers
that float32 holds. Only the second pass of each transform can sum numbers beyond 2^24, where the
last binary place is lost before the rounding [libjpeg-turbo 3; ITU-T T.81].

Letters: B images; C planes; X and Y the images' common padded width and height, multiples of
16; planes of columns (B, C, X, Y) and of rows (B, C, Y, X), as in `data_loader.views.resampling`.
"""

import io
from functools import cache

import torch
from PIL import Image
from torch import Tensor

from data_loader.views.resampling import round_up, sum_lines, sum_rows, turn

BLOCK, MCU = 8, 16  # sides of a transform's block, and of 4:2:0's unit of whole blocks
# Left half of libjpeg's integer DCT, 2^13 sqrt(2) cos((2n + 1) k pi / 16) with the rounding of
# its factorisation [Loeffler et al. 1989]. Even rows go on mirrored, odd ones with changed sign.
DCT_HALF = (
    (8192, 8192, 8192, 8192),
    (11363, 9633, 6437, 2260),
    (10703, 4433, -4433, -10703),
    (9633, -2259, -11362, -6436),
    (8192, -8192, -8192, 8192),
    (6437, -11362, 2261, 9633),
    (4433, -10704, 10704, -4433),
    (2260, -6436, 9633, -11363),
)
# libjpeg keeps 2 more binary places between the passes, and transforms at 8 times the scale.
FIRST_PASS, SECOND_PASS = 2.0**-11, 2.0**-15
UNIT = 2.0**-16  # of the fixed-point colour weights
# Sums to Y, Cb and Cr, the latter two without their offset of 128.
LUMA_WEIGHTS = (19595 * UNIT, 38470 * UNIT, 7471 * UNIT)
CB_WEIGHTS = (-11059 * UNIT, -21709 * UNIT, 32768 * UNIT)
CR_WEIGHTS = (32768 * UNIT, -27439 * UNIT, -5329 * UNIT)
# What is added before rounding down; 0-dim tensors on the CPU count as numbers on any device.
HALF, CENTRED_HALF, CHROMA_HALF = torch.tensor([0.5, 0.5 - 128, 32767 * UNIT]).unbind()
RED_OF_CR, BLUE_OF_CB = 91881 * UNIT, 116130 * UNIT
GREEN_OF_CB, GREEN_OF_CR = -22554 * UNIT, -46802 * UNIT


@cache
def dct_matrices(device: torch.device) -> tuple[Tensor, ...]:
    """Return libjpeg's passes as matrices (8, 8): two forward, two back."""
    rows = [row + tuple(v * (-1) ** k for v in row[::-1]) for k, row in enumerate(DCT_HALF)]
    matrix = torch.tensor(rows, dtype=torch.float32, device=device)
    forward, back = (FIRST_PASS, SECOND_PASS), (FIRST_PASS, SECOND_PASS / 8)
    return *(matrix * scale for scale in forward), *(matrix.T * scale for scale in back)


def mix(
    images: Tensor, weights: tuple[float, ...], start: Tensor, out: Tensor | None = None
) -> Tensor:
    """Return a constant plus the weighted sum of three channels, rounded down: (B, H, W).

    Exact: whole multiples of 2^-16 below 2^8 fill float32's 24 binary places.
    """
    red, green, blue = images.unbind(dim=1)
    total = torch.add(start, red, alpha=weights[0], out=out)
    return total.add_(green, alpha=weights[1]).add_(blue, alpha=weights[2]).floor_()


def luma(images: Tensor) -> Tensor:
    """Return Y (B, H, W) of colours (B, 3, H, W) in whole levels; Pillow's "L" is the same."""
    return mix(images, LUMA_WEIGHTS, HALF)


@cache
def quantisation_tables() -> Tensor:
    """Return Pillow's tables for luma and chroma by quality, 0 to 100: (101, 2, 8, 8)."""
    tables = []
    for quality in range(101):
        with io.BytesIO() as buffer:
            Image.new("RGB", (1, 1)).save(buffer, format="JPEG", quality=quality)
            with Image.open(buffer) as image:
                tables.append([image.quantization[0], image.quantization[1]])
    return torch.tensor(tables, dtype=torch.float32).view(-1, 2, BLOCK, BLOCK)


def compress(rows: Tensor, extents: Tensor, steps: Tensor) -> Tensor:
    """Return what is left of images after JPEG.

    An image may also be a part of a larger one, if it starts at multiples of 16. Then its pixels
    are the larger one's but for a line along each cut, where chroma would mix with neighbours.

    Args:
        rows: (B, 3, Y, X), planes of rows, whole levels. Beyond the extents the edge is repeated.
        extents: (B, 2), each image's width and height; at least 5, and more than X or Y where
            the larger image goes on.
        steps: (B, 2, 8, 8), of `quantisation_tables`.

    Returns:
        (B, 3, X, Y), planes of columns, and in each first the even, then the odd rows (see
        `place_of_row`). Pixels beyond the extents mean nothing.
    """
    height = rows.shape[2]
    place = torch.arange(height, device=rows.device)
    rows_wanted = torch.cat([place[0::2], place[1::2]]).expand(len(rows), -1)
    y = turn(mix(rows, LUMA_WEIGHTS, CENTRED_HALF).unsqueeze(1))
    y = transform_and_back(y, steps[:, 0], rows_wanted)
    # Mixing beyond the lower edge of chroma, libjpeg takes the last row again.
    chroma_rows = place[: height // 2].minimum((extents[:, 1:] + 1) // 2 - 1)
    chroma = transform_and_back(subsampled(rows, extents), steps[:, 1], chroma_rows)
    return coloured(y.squeeze(1), upsampled(chroma, extents))


def place_of_row(row: Tensor, height: int) -> Tensor:
    """Return where `compress` puts a row."""
    return row // 2 + row % 2 * (height // 2)


def transform_and_back(columns: Tensor, steps: Tensor, rows_wanted: Tensor) -> Tensor:
    """Quantise the transform of each block of 8x8, and transform back.

    Planes of columns, -128 to 127, are (B, C, X, Y) before and (B, C, X, M) after, where the rows
    wanted are (B, M). The coefficients have steps (B, 8, 8), rows first.
    """
    forward_x, forward_y, back_y, back_x = dct_matrices(columns.device)
    rows = turn(round_up(block_sums(columns, forward_x)))
    rows = round_up(block_sums(rows, forward_y))
    blocks = rows.unflatten(2, (-1, BLOCK))  # (B, C, Y / 8, 8, X)
    steps = steps.repeat(1, 1, rows.shape[3] // BLOCK)[:, None, None]
    # Coefficients come eightfold. Halves go away from zero: multiplied by a hair more than the
    # inverse, none is left.
    blocks.mul_((1 + 2.0**-20) / 8 / steps).round_().mul_(steps)
    # Each row wanted is a sum over the block that it lies in.
    index = (rows_wanted - rows_wanted % BLOCK).unsqueeze(2) + torch.arange(
        BLOCK, device=columns.device
    )
    weights = back_y.index_select(0, (rows_wanted % BLOCK).flatten()).view(index.shape)
    (rows,) = sum_lines(rows, index, weights)
    return round_up(block_sums(turn(round_up(rows)), back_x)).clamp_(-128, 127)


def block_sums(planes: Tensor, matrix: Tensor) -> Tensor:
    """Multiply each block of 8 lines of (B, C, N, L) by a matrix (8, 8)."""
    lines = planes.view(-1, planes.shape[3])
    first = torch.arange(0, len(lines), BLOCK, device=planes.device).view(-1, 1, 1)
    blocks = (len(lines) // BLOCK, BLOCK, BLOCK)
    index = (first + torch.arange(BLOCK, device=planes.device)).expand(blocks).flatten(0, 1)
    return sum_rows(lines, index, matrix.expand(blocks).flatten(0, 1)).view(planes.shape)


def subsampled(rows: Tensor, extents: Tensor) -> Tensor:
    """Return Cb and Cr (B, 2, X / 2, Y / 2), of columns, of colours (B, 3, Y, X), of rows."""
    count, _, height, width = rows.shape
    chroma = rows.new_empty(count, 2, height, width)
    mix(rows, CB_WEIGHTS, CHROMA_HALF, out=chroma[:, 0])
    mix(rows, CR_WEIGHTS, CHROMA_HALF, out=chroma[:, 1])
    # Below the image libjpeg repeats the last row of chroma, not of pixels.
    half = torch.arange(height // 2, device=rows.device).minimum((extents[:, 1:] + 1) // 2 - 1)
    pairs = torch.stack([2 * half, 2 * half + 1], dim=2)  # (B, Y / 2, 2)
    (chroma,) = sum_lines(chroma, pairs, torch.ones(pairs.shape, device=rows.device))
    chroma = turn(chroma)  # (B, 2, X, Y / 2)
    # A mean's rounding alternates between columns: 1, 2, 1, 2 before the division by 4.
    bias = (1 + torch.arange(width // 2, device=rows.device) % 2).float().view(-1, 1)
    return (chroma[:, :, 0::2] + chroma[:, :, 1::2]).add_(bias).mul_(0.25).floor_()


def upsampled(chroma: Tensor, extents: Tensor) -> Tensor:
    """Return chroma (B, 2, X / 2, Y / 2) at full size (B, 2, X, Y), planes of columns for both.

    Each pixel is three quarters of the nearest and one of the next, on either axis. In the result
    rows lie where `place_of_row` says.
    """
    width, device = 2 * chroma.shape[2], chroma.device
    line = torch.arange(width, device=device)
    last = ((extents[:, :1] + 1) // 2).clamp(max=width // 2) - 1
    near = (line // 2).expand(len(extents), -1)
    far = (near + 2 * (line % 2) - 1).clamp(min=0).minimum(last)
    weights = (0.75 - 0.5 * torch.arange(2, device=device)).expand(*near.shape, 2)
    (wide,) = sum_lines(chroma, torch.stack([near, far], dim=2), weights)  # (B, 2, X, Y / 2)
    # libjpeg rounds sixteenths by 8 in even and by 7 in odd columns.
    wide.add_((8 - line % 2).view(-1, 1) / 16)
    # Even rows mix with the row above, odd ones with that below.
    result = wide.new_empty(*wide.shape[:3], 2, wide.shape[3])  # (B, 2, X, 2, Y / 2)
    torch.mul(wide.unsqueeze(3).expand(result.shape), 0.75, out=result)
    even, odd = result.unbind(dim=3)
    even[..., 1:].add_(wide[..., :-1], alpha=0.25)
    even[..., 0].add_(wide[..., 0], alpha=0.25)
    odd[..., :-1].add_(wide[..., 1:], alpha=0.25)
    odd[..., -1].add_(wide[..., -1], alpha=0.25)
    return result.floor_().flatten(3)


def coloured(y: Tensor, chroma: Tensor) -> Tensor:
    """Return red, green and blue (B, 3, H, W) of Y (B, H, W) and chroma (B, 2, H, W); 0 is grey."""
    y = y + 128.5
    cb, cr = chroma.unbind(dim=1)
    colours = y.new_empty(len(y), 3, *y.shape[1:])
    red, green, blue = colours.unbind(dim=1)
    torch.add(y, cr, alpha=RED_OF_CR, out=red)
    torch.add(y, cb, alpha=GREEN_OF_CB, out=green).add_(cr, alpha=GREEN_OF_CR)
    torch.add(y, cb, alpha=BLUE_OF_CB, out=blue)
    return colours.floor_().clamp_(0, 255)
