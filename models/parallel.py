"""One model on several devices, in one process or in many."""

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from utils.distributed import joined, share_out


class DataParallel(nn.DataParallel):
    """`torch.nn.DataParallel` for one command line on a CPU, one GPU or several.

    The published checkpoints carry its ``module.`` prefix, so it is always there. Where the
    parameters are on the first of its devices it splits the batch as usual; on the CPU, on
    another GPU chosen with ``--gpu``, or in one of torchrun's processes, it is transparent.

    ``virtual_gpus`` above 1 makes a single device split a training batch as that many GPUs would,
    one share after the other. BatchNorm then sees what it sees on so many GPUs, without which
    ShuffleBN can't work: on one device a query and its key are normalised among the same images,
    the queue's keys among others, and the network tells them apart by that alone
    [He et al. 2020, Sec. 3.3].
    """

    virtual_gpus = 1

    def forward(self, *inputs, **kwargs):
        """Run the module, split over the devices if its parameters are on the first of them."""
        device = next(self.module.parameters()).device
        if (
            joined()
            or len(self.device_ids) < 2
            or device != torch.device("cuda", self.device_ids[0])
        ):
            return self._on_one_device(*inputs, **kwargs)
        return super().forward(*inputs, **kwargs)

    def _on_one_device(self, x: Tensor, *rest, **kwargs):
        if self.virtual_gpus == 1:
            return self.module(x, *rest, **kwargs)
        shares = [self.module(share, *rest, **kwargs) for share in x.chunk(self.virtual_gpus)]
        return torch.cat(shares)


def over_ranks(model: nn.Module, batch_size: int, side: int) -> nn.Module:
    """Return a model whose gradients are averaged over all ranks; in a single process, itself.

    Args:
        model: in train mode, the same in all ranks.
        batch_size: images a step, over all ranks.
        side: of the images, in pixels.
    """
    if not joined():
        return model
    parallel = DistributedDataParallel(model, gradient_as_bucket_view=True)
    # The first backward pass decides how gradients are packed, and that in which order ranks are
    # summed up: without this, a resumed run's first step would be packed unlike the whole run's.
    shape = (share_out(batch_size).own, 3, side, side)
    blank = torch.zeros(shape, device=next(model.parameters()).device)
    kept = [buffer.clone() for buffer in model.buffers()]
    parallel(blank.contiguous(memory_format=torch.channels_last)).sum().backward()
    for buffer, before in zip(model.buffers(), kept, strict=True):
        buffer.copy_(before)
    model.zero_grad()
    return parallel
