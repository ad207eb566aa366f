"""The key encoder: a slow average of the query encoder [spec 4; He et al. 2020, Sec. 3.2, 3.3]."""

import torch
from torch import Tensor, nn

from utils.collectives import BatchSplit, all_gather_rows, copy_indices, exchange_rows


def copy_parameters(source: nn.Module, target: nn.Module) -> None:
    """Set the target's parameters (not its buffers) to the source's."""
    with torch.no_grad():
        for s, t in zip(source.parameters(), target.parameters(), strict=True):
            t.copy_(s)


@torch.no_grad()
def momentum_update(query: nn.Module, key: nn.Module, alpha: float) -> None:
    """Set each key parameter to ``alpha * key + (1 - alpha) * query``.

    Buffers are left alone: the key encoder's BatchNorm statistics are its own [spec 4].
    """
    # One pass over the parameters, in one kernel on a GPU: key + (1 - alpha) * (query - key).
    torch._foreach_lerp_(list(key.parameters()), list(query.parameters()), 1 - alpha)


def set_key_mode(key: nn.Module) -> None:
    """Put the key encoder in eval mode, except its BatchNorm layers, which stay in train mode."""
    key.eval()
    for module in key.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.train()


@torch.no_grad()
def shuffled_keys(key: nn.Module, images: Tensor, batch_split: BatchSplit) -> Tensor:
    """Embed images in a random order and put the embeddings back in theirs (ShuffleBN).

    On several GPUs a query and its key are then normalised among different images, so BatchNorm
    statistics can't give the pair away.

    Args:
        key: the key encoder.
        images: (b, 3, H, W), this rank's rows of a batch of B.
        batch_split: of the batch; images change places over all ranks.

    Returns:
        (B, D), of all ranks.
    """
    # Sampled on the CPU, whose generator is in the same state in all ranks.
    order = torch.randperm(batch_split.total)
    keys = all_gather_rows(key(exchange_rows(images, order, batch_split)), batch_split)
    return keys[copy_indices(torch.argsort(order), keys.device)]
