"""Activations computed twice rather than kept [Chen et al. 2016, "sublinear memory cost"]."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def rematerialized(part: nn.Module, x: Tensor) -> Tensor:
    """Return ``part(x)``, keeping only ``x`` for the backward pass, which runs the part again.

    Values, gradients and BatchNorm's running statistics are those of an ordinary call. Random
    samples inside the part would not be.
    """
    return checkpoint(
        part,
        x,
        use_reentrant=False,
        preserve_rng_state=False,
        context_fn=lambda: (nullcontext(), statistics_kept(part)),
    )


@contextmanager
def statistics_kept(part: nn.Module) -> Iterator[None]:
    """Have BatchNorm layers in train mode leave their running statistics alone.

    The second run would otherwise count the batch twice.
    """
    layers = [m for m in part.modules() if isinstance(m, _BatchNorm)]
    before = [(layer.momentum, layer.num_batches_tracked) for layer in layers]
    for layer in layers:
        layer.momentum, layer.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for layer, (momentum, count) in zip(layers, before, strict=True):
            layer.momentum, layer.num_batches_tracked = momentum, count
