"""One model over the processes that torchrun started."""

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from utils.collectives import split_over_ranks
from utils.process_group import is_distributed


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
    shape = (split_over_ranks(batch_size).own, 3, side, side)
    blank = torch.zeros(shape, device=next(model.parameters()).device)
    kept = [buffer.clone() for buffer in model.buffers()]
    parallel(blank.contiguous(memory_format=torch.channels_last)).sum().backward()
    for buffer, before in zip(model.buffers(), kept, strict=True):
        buffer.copy_(before)
    model.zero_grad()
    return parallel
