"""One model on several devices, in one process."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from utils.process_group import is_distributed


def keep_autocast(module: Callable[..., Any], device_type: str) -> Callable[..., Any]:
    """Return a module that computes under this thread's autocast whichever thread calls it."""
    enabled = torch.is_autocast_enabled(device_type)
    dtype = torch.get_autocast_dtype(device_type)

    def run(*inputs: Any, **kwargs: Any) -> Any:
        with torch.autocast(device_type, dtype=dtype, enabled=enabled):
            return module(*inputs, **kwargs)

    return run


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

    @property
    def chunks(self) -> int:
        """How many chunks this process splits a training batch into, at most."""
        return len(self.device_ids) if self._spans_devices() else self.virtual_gpus

    def _spans_devices(self) -> bool:
        device = next(self.module.parameters()).device
        return (
            not is_distributed()
            and len(self.device_ids) > 1
            and device == torch.device("cuda", self.device_ids[0])
        )

    def parallel_apply(self, replicas: Any, inputs: Any, kwargs: Any) -> list[Any]:
        """Run each replica in a thread of its own, in the caller's precision.

        PyTorch hands its threads whether autocast is enabled, but not to which type.
        """
        replicas = [keep_autocast(replica, "cuda") for replica in replicas]
        return super().parallel_apply(replicas, inputs, kwargs)

    def forward(self, x: Tensor, *rest: Any, **kwargs: Any) -> Any:
        """Run the module, split over the devices if its parameters are on the first of them."""
        if self._spans_devices():
            return super().forward(x, *rest, **kwargs)
        if self.virtual_gpus == 1:
            return self.module(x, *rest, **kwargs)
        chunks = x.chunk(self.virtual_gpus)
        return torch.cat([self.module(chunk, *rest, **kwargs) for chunk in chunks])
