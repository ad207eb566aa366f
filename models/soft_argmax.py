"""Soft-argmax positions of a projected hypercolumn, in the order that costs least [spec 5].

What is computed is ``soft_argmax(conv1x1(hypercolumn(maps), weight))``. On a GPU the steps run
as whole-batch products. On a CPU one function does them image by image, so that the largest
temporary, an image's K score maps, stays in the cache, and keeps for the backward pass nothing
but the exponentials.

Letters: B images, C channels of a map, h and w its rows and columns, S the sum of all h,
H and W rows and columns of the hypercolumn, K virtual points.
"""

import functools
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from models.hypercolumn import project_hypercolumn, resize_matrix

CHUNK = 512  # virtual points at a time: 4.7 MB of scores at 48x48
# Logits below the largest by more than this weigh less than 1e-26, far beyond float32. Their exact
# exponentials would be subnormal numbers, which processors take ten times as long to make.
MIN_LOGIT = -60.0


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
    """
    if weight.device.type != "cpu" or any(m.requires_grad for m in maps):
        return soft_argmax(project_hypercolumn(maps, weight, output_shape))
    train = torch.is_grad_enabled() and weight.requires_grad
    chunks = [_PointsOnCPU.apply(w, output_shape, train, *maps) for w in weight.split(CHUNK)]
    return torch.cat(chunks, dim=1)


class _PointsOnCPU(torch.autograd.Function):
    """`hypercolumn_soft_argmax` for some of the points, channels last throughout."""

    @staticmethod
    def forward(
        ctx: Any, weight: Tensor, output_shape: tuple[int, int], train: bool, *maps: Tensor
    ) -> Tensor:
        (height, width), k, batch = output_shape, len(weight), len(maps[0])
        rows = [m.permute(0, 2, 3, 1).contiguous() for m in maps]  # (B, h, w, C)
        horizontal, vertical = _resizers(rows, output_shape)
        projected = [weight.new_empty(*r.shape[:3], k) for r in rows]  # (B, h, w, K)
        weights = weight.split([r.shape[-1] for r in rows], dim=1)
        for p, r, w in zip(projected, rows, weights, strict=True):
            torch.mm(r.flatten(0, 2), w.t(), out=p.flatten(0, 2))
        x, y = (torch.linspace(-1, 1, n).to(weight)[None] for n in (width, height))
        heat = weight.new_empty(batch, height, width, k) if train else None
        sums = weight.new_empty(batch, 3, k)  # of 1, x and y

        def some_images(indices: Iterable[int]) -> None:
            widened = weight.new_empty(vertical.shape[1], width, k)  # (S, W, K)
            parts = widened.split([r.shape[1] for r in rows])
            scratch = weight.new_empty(0 if train else height, width, k)
            for i in indices:
                for part, matrix, p in zip(parts, horizontal, projected, strict=True):
                    torch.bmm(matrix, p[i], out=part)  # (h, W, K)
                e = scratch if heat is None else heat[i]  # (H, W, K)
                torch.mm(vertical, widened.flatten(1), out=e.flatten(1))
                e.sub_(e.amax(dim=0).amax(dim=0)).clamp_(min=MIN_LOGIT).exp_()
                columns = e.sum(dim=0)  # (W, K)
                sums[i, 0] = columns.sum(dim=0)
                torch.mm(x, columns, out=sums[i, 1:2])
                torch.mm(y, e.sum(dim=1), out=sums[i, 2:])

        _spread(batch, some_images)
        if train:
            ctx.save_for_backward(heat, sums, *rows)
        return (sums[:, 1:] / sums[:, :1]).transpose(1, 2)  # (B, K, 2)

    @staticmethod
    def backward(ctx: Any, grad_points: Tensor) -> tuple[Tensor | None, ...]:
        heat, sums, *rows = ctx.saved_tensors
        batch, height, width, k = heat.shape
        horizontal, vertical = _resizers(rows, (height, width))
        narrowing = [matrix.transpose(1, 2).contiguous() for matrix in horizontal]  # (h, w, W)
        lowering = vertical.t().contiguous()  # (S, H)
        y, x = (torch.linspace(-1, 1, n) for n in (height, width))
        places = F.pad(torch.cartesian_prod(y, x).flip(1), (1, 0), value=1.0).to(heat)  # 1, x, y
        # d score = heat * ((x - Ex) gx + (y - Ey) gy) / sum: linear in (1, x, y).
        slope = grad_points.transpose(1, 2) / sums[:, :1]  # (B, 2, K)
        offset = -(slope * sums[:, 1:] / sums[:, :1]).sum(dim=1, keepdim=True)  # (B, 1, K)
        factors = torch.cat([offset, slope], dim=1)  # (B, 3, K)
        projected = [heat.new_empty(*r.shape[:3], k) for r in rows]  # (B, h, w, K)

        def some_images(indices: Iterable[int]) -> None:
            widened = heat.new_empty(vertical.shape[1], width, k)  # (S, W, K)
            parts = widened.split([r.shape[1] for r in rows])
            scores = heat.new_empty(height, width, k)
            for i in indices:
                torch.mm(places, factors[i], out=scores.flatten(0, 1))
                scores.mul_(heat[i])
                torch.mm(lowering, scores.flatten(1), out=widened.flatten(1))
                for part, matrix, p in zip(parts, narrowing, projected, strict=True):
                    torch.bmm(matrix, part, out=p[i])  # (h, w, K)

        _spread(batch, some_images)
        grads = [
            p.flatten(0, 2).t() @ r.flatten(0, 2) for p, r in zip(projected, rows, strict=True)
        ]
        return torch.cat(grads, dim=1), None, None, *(None for _ in rows)


@functools.cache
def _workers(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))


def _spread(count: int, work: Callable[[Iterable[int]], None]) -> None:
    """Split images over as many threads as torch may use, each of them working alone.

    The products of one image are too small to be split: threads that wait for each other after
    every one of them cost more than they save, and far more on a busy machine. Each thread takes
    the next image when it is done with one, so that none waits for another whose core is shared.
    """
    threads = min(torch.get_num_threads(), count)
    if threads == 1:
        work(range(count))
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        images = iter(range(count))
        list(_workers(threads).map(work, [images] * threads))
    finally:
        torch.set_num_threads(before)


def _resizers(rows: Sequence[Tensor], output_shape: tuple[int, int]) -> tuple[list[Tensor], Tensor]:
    """Return each map's (h, W, w) column resize, one copy a row, and the (H, S) row resize."""
    height, width = output_shape
    horizontal = [resize_matrix(r.shape[2], width).to(r).expand(r.shape[1], -1, -1) for r in rows]
    return horizontal, torch.cat([resize_matrix(r.shape[1], height).to(r) for r in rows], dim=1)
