"""Landmarks of one image found in another by the nearest feature [spec 13; Thewlis et al. 2019].

Letters: B images, A landmarks, C channels, H and W rows and columns of a hypercolumn.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

PAIRS = {"warped": "an image and its warp", "others": "two images"}
"""The kinds of pairs that are matched, and their names."""


def match_points(source: Tensor, points: Tensor, target: Tensor, side: int) -> Tensor:
    """Return where the features at some points of one image are most alike in another.

    Alike is the cosine of two features; the place of the largest is refined to the peak of a
    parabola through it and its two neighbours, along x and along y.

    Args:
        source: (B, C, H, W), features of the one image.
        points: (B, A, 2), x before y, in [-1, 1] from the centre of its first pixel to the last's.
        target: (B, C, H, W), features of the other.
        side: of the images, in pixels.

    Returns:
        (B, A, 2), in [-1, 1] of the other image.
    """
    b, _, height, width = target.shape
    places = points * (side - 1) / side  # from edge to edge, as features are resized
    queries = F.grid_sample(
        F.normalize(source, dim=1), places[:, :, None], padding_mode="border", align_corners=False
    )[..., 0]  # (B, C, A)
    alike = F.normalize(queries, dim=1).transpose(1, 2) @ F.normalize(target, dim=1).flatten(2)
    best = alike.argmax(dim=2)  # (B, A)
    rows, columns = best // width, best % width
    grid = F.pad(alike.view(b, -1, height, width), (1, 1, 1, 1), mode="replicate")

    def near(down: int, across: int) -> Tensor:
        cell = (rows + 1 + down) * (width + 2) + columns + 1 + across
        return grid.flatten(2).gather(2, cell[:, :, None])[..., 0]  # (B, A)

    x = columns + 0.5 + parabola_peak(near(0, -1), near(0, 0), near(0, 1))
    y = rows + 0.5 + parabola_peak(near(-1, 0), near(0, 0), near(1, 0))
    found = torch.stack([x * 2 / width - 1, y * 2 / height - 1], dim=2)
    return found * side / (side - 1)


def parabola_peak(before: Tensor, at: Tensor, after: Tensor) -> Tensor:
    """Return where the parabola through three neighbours peaks, in steps from the middle one.

    At most half a step: the middle value is the largest. At a border, whose neighbour repeats it,
    and where all are equal, it is 0.
    """
    bend = before - 2 * at + after
    inside = (before < at) & (after < at)
    return torch.where(inside, 0.5 * (before - after) / bend.masked_fill(~inside, -1), 0.0)
