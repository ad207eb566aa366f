"""Soft-argmax positions of a projected hypercolumn, in the order that costs least [SPEC 5].

What is computed is ``soft_argmax(conv1x1(hypercolumn(maps), weight))``. On a GPU the steps run
as whole-batch products. On a CPU one function does them picture by picture, so that the largest
temporary, a picture's K score maps, stays in the cache, and keeps for the backward pass nothing
but the exponentials.

Letters: B pictures, C channels of a map, h and w its rows and columns, S the sum of all h,
H and W rows and columns of the hypercolumn, K virtual points.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from models.hypercolumn import project_hypercolumn, resize_matrix

CHUNK = 512  # virtual points at a time: 4.7 MB of scores at 48x48


def soft_argmax(scores: Tensor) -> Tensor:
    """Return the expected position under a softmax over each map.

    Args:
        scores: (B, K, H, W), logits.

    Returns:
        (B, K, 2), x before y, in [-1, 1].
    """
    b, k, height, width = scores.shape
    heat = scores.flatten(2).softmax(dim=-1).view(b, k, height, width)
    # A position's expectation needs the marginals only: no grid of H * W coordinates.
    x = heat.sum(dim=2) @ torch.linspace(-1, 1, width).to(heat)  # (B, K)
    y = heat.sum(dim=3) @ torch.linspace(-1, 1, height).to(heat)  # (B, K)
    return torch.stack([x, y], dim=-1)


def hypercolumn_soft_argmax(
    maps: Sequence[Tensor], weight: Tensor, output_shape: tuple[int, int]
) -> Tensor:
    """Return ``soft_argmax(project_hypercolumn(maps, weight, output_shape))``.

    Gradients flow into the weight; into the maps on a GPU only, since they are frozen features.

    Args:
        maps: tensors (B, C, h, w), deepest first.
        weight: (K, sum of C), whose columns are in the order of the maps.
        output_shape: (H, W).

    Returns:
        (B, K, 2), x before y, in [-1, 1].

    Raises:
        ValueError: if the channels of maps and weight differ.
    """
    if weight.device.type != "cpu" or any(m.requires_grad for m in maps):
        return soft_argmax(project_hypercolumn(maps, weight, output_shape))
    channels = [m.shape[1] for m in maps]
    if sum(channels) != weight.shape[1]:
        raise ValueError(f"maps have {channels} channels, the projection takes {weight.shape[1]}")
    chunks = [_PointsOnCPU.apply(w, output_shape, *maps) for w in weight.split(CHUNK)]
    return torch.cat(chunks, dim=1)


class _PointsOnCPU(torch.autograd.Function):
    """`hypercolumn_soft_argmax` for some of the points, channels last throughout."""

    @staticmethod
    def forward(ctx, weight: Tensor, output_shape: tuple[int, int], *maps: Tensor) -> Tensor:
        height, width = output_shape
        rows = [m.permute(0, 2, 3, 1).contiguous() for m in maps]  # (B, h, w, C)
        horizontal = [resize_matrix(m.shape[3], width).to(weight) for m in maps]  # (W, w)
        vertical = torch.cat([resize_matrix(m.shape[2], height).to(weight) for m in maps], dim=1)
        batch, k = len(maps[0]), len(weight)
        widened = weight.new_empty(batch, vertical.shape[1], width, k)  # (B, S, W, K)
        start = 0
        for r, w, h in zip(rows, _split(weight, rows), horizontal, strict=True):
            projected = r.flatten(0, 2) @ w.t()  # (B * h * w, K)
            projected = projected.view(-1, r.shape[2], k)  # (B * h, w, K)
            part = widened[:, start : start + r.shape[1]]
            part.copy_(torch.matmul(h, projected).view(batch, r.shape[1], width, k))
            start += r.shape[1]
        grid = _grid(height, width).to(weight)  # (3, H * W)
        heat = weight.new_empty(batch, height * width, k)
        sums = weight.new_empty(batch, 3, k)
        for e, s, z in zip(heat, sums, widened, strict=True):
            torch.mm(vertical, z.view(-1, width * k), out=e.view(height, width * k))
            e.sub_(e.amax(dim=0)).exp_()
            torch.mm(grid, e, out=s)
        points = sums[:, 1:] / sums[:, :1]  # (B, 2, K)
        ctx.save_for_backward(heat, sums, grid, vertical, *horizontal, *rows)
        return points.transpose(1, 2)

    @staticmethod
    def backward(ctx, grad_points: Tensor):
        heat, sums, grid, vertical, *rest = ctx.saved_tensors
        horizontal, rows = rest[: len(rest) // 2], rest[len(rest) // 2 :]
        batch, height, width, k = len(heat), len(vertical), len(horizontal[0]), heat.shape[2]
        # d score = heat * ((x - Ex) gx + (y - Ey) gy) / sum: linear in (1, x, y).
        slope = grad_points.transpose(1, 2) / sums[:, :1]  # (B, 2, K)
        offset = -(slope * sums[:, 1:] / sums[:, :1]).sum(dim=1, keepdim=True)  # (B, 1, K)
        factors = torch.cat([offset, slope], dim=1)  # (B, 3, K)
        widened = heat.new_empty(batch, vertical.shape[1], width, k)  # (B, S, W, K)
        scores = heat.new_empty(height * width, k)
        back = vertical.t().contiguous()  # (S, H)
        for z, e, f in zip(widened, heat, factors, strict=True):
            torch.mm(grid.t(), f, out=scores).mul_(e)
            torch.mm(back, scores.view(height, -1), out=z.view(len(back), -1))
        grads, start = [], 0
        for r, h in zip(rows, horizontal, strict=True):
            part = widened[:, start : start + r.shape[1]]  # (B, h, W, K)
            projected = torch.matmul(h.t(), part).reshape(-1, k)  # (B * h * w, K)
            grads.append(projected.t() @ r.flatten(0, 2))  # (K, C)
            start += r.shape[1]
        return torch.cat(grads, dim=1), None, *(None for _ in rows)


def _split(weight: Tensor, rows: Sequence[Tensor]) -> tuple[Tensor, ...]:
    return weight.split([r.shape[-1] for r in rows], dim=1)


def _grid(height: int, width: int) -> Tensor:
    """Return (3, H * W): one, x and y of each position."""
    y, x = torch.meshgrid(
        torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij"
    )
    return torch.stack([torch.ones(height * width), x.flatten(), y.flatten()])
