"""One model over the processes that torchrun started."""

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from utils.collectives import BatchSplit, split_over_ranks
from utils.process_group import is_distributed, world_size


def wrap_distributed(model: nn.Module, batch_size: int, side: int) -> nn.Module:
    """Return a model whose gradients are averaged over all ranks; in a single process, itself.

    Args:
        model: in train mode, the same in all ranks.
        batch_size: images a step, over all ranks.
        side: of the images, in pixels.
    """
    if not is_distributed():
        return model
    parallel = DistributedDataParallel(model, gradient_as_bucket_view=True)
    # The first backward pass decides how gradients are packed, and that in which order ranks are
    # summed up: without this, a resumed run's first step would be packed unlike the whole run's.
    # Two images at least, for BatchNorm where the last map is a single pixel.
    shape = (max(split_over_ranks(batch_size).own, 2), 3, side, side)
    blank = torch.zeros(shape, device=next(model.parameters()).device)
    kept = [buffer.clone() for buffer in model.buffers()]
    parallel(blank.contiguous(memory_format=torch.channels_last)).sum().backward()
    for buffer, before in zip(model.buffers(), kept, strict=True):
        buffer.copy_(before)
    model.zero_grad()
    return parallel


def own_rows(rows: Tensor, batch_split: BatchSplit) -> Tensor:
    """Return this rank's (b, ...) of a batch's rows (B, ...); without any, one that stands in."""
    return rows[batch_split.rows] if batch_split.own else rows[:1]


def weigh_loss(loss: Tensor, batch_split: BatchSplit) -> Tensor:
    """Return a rank's mean loss, weighted so that averaging over ranks gives the batch's mean.

    Ranks count by their rows; one that stands in, not at all.
    """
    return loss * (batch_split.own * world_size() / batch_split.total)
