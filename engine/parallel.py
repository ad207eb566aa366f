"""One model over the processes that torchrun started."""

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from models.encoders import STRIDE
from models.parallel import DataParallel
from utils.distributed import chunk_size, is_distributed, split_over_ranks, world_size
from utils.errors import InputError


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


def check_rows(model: DataParallel, side: int, batch_size: int, images: int) -> None:
    """Raise an `InputError` if BatchNorm would get a single value per channel.

    That is one row, of which the last map is a single pixel.

    Args:
        model: on its device.
        side: of the images, in pixels; a multiple of 32.
        batch_size: images a step, over all ranks.
        images: of an epoch.
    """
    for total in (min(batch_size, images), images % batch_size or batch_size):
        rows = {max(own, 1) for own in split_over_ranks(total).sizes}  # one stands in for none
        sizes = {chunk_size(own, model.chunks, i) for own in rows for i in range(model.chunks)}
        if side == STRIDE and 1 in sizes:
            raise InputError(
                f"--batch_size {batch_size} with {images} images: BatchNorm would get a single "
                f"image of {side} pixels (a batch of {total} over {world_size()} processes, "
                f"{model.chunks} GPUs each), which it can't normalise; choose another "
                "--batch_size, or more pixels (--image_size, --image_crop)"
            )
