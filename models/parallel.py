"""One model on several devices, in one process."""

import torch
from torch import Tensor, nn

from utils.process_group import is_distributed


class DataParallel(nn.DataParallel):
    """`torch.nn.DataParallel` for one command line on a CPU, one GPU or several.

    The published checkpoints carry its ``module.`` prefix, so it is always there. Where the
    parameters are on the first of its devices it splits the batch as usual; on the CPU, on
    another GPU chosen with ``--gpu``, or in one of torchrun's processes, it is transparent.

    ``virtual_gpus`` above 1 makes a single device split a training batch as that many GPUs would,
    one chunk after the other. BatchNorm then sees what it sees on so many GPUs, without which
    ShuffleBN can't work: on one device a query and its key are normalised among the same images,
    the queue's keys among others, and the network tells them apart by that alone
    [He et al. 2020, Sec. 3.3].
    """

    virtual_gpus = 1

    def forward(self, *inputs, **kwargs):
        """Run the module, split over the devices if its parameters are on the first of them."""
        device = next(self.module.parameters()).device
        if (
            is_distributed()
            or len(self.device_ids) < 2
            or device != torch.device("cuda", self.device_ids[0])
        ):
            return self._on_one_device(*inputs, **kwargs)
        return super().forward(*inputs, **kwargs)

    def _on_one_device(self, x: Tensor, *rest, **kwargs):
        if self.virtual_gpus == 1:
            return self.module(x, *rest, **kwargs)
        chunks = x.chunk(self.virtual_gpus)
        return torch.cat([self.module(chunk, *rest, **kwargs) for chunk in chunks])
