"""DataParallel that also serves a model that lives elsewhere than on the first visible GPU."""

import torch
from torch import nn


class DataParallel(nn.DataParallel):
    """`torch.nn.DataParallel` for one command line on a CPU, one GPU or several.

    The published checkpoints carry its ``module.`` prefix, so it is always there. Where the
    parameters are on the first of its devices it splits the batch as usual; on the CPU, or on
    another GPU chosen with ``--gpu``, it is transparent.
    """

    def forward(self, *inputs, **kwargs):
        """Run the module, split over the devices if its parameters are on the first of them."""
        parameter = next(self.module.parameters())
        if not self.device_ids or parameter.device != torch.device("cuda", self.device_ids[0]):
            return self.module(*inputs, **kwargs)
        return super().forward(*inputs, **kwargs)
