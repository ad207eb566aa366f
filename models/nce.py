"""The momentum-contrast queue and its loss [spec 4; He et al. 2020, Sec. 3].

Letters: B images, K queue entries, D embedding dimensions.
"""

import argparse
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utils.arguments import positive_float


def add_temperature_argument(group: argparse._ActionsContainer, *, nce_t: float) -> None:
    """Declare the temperature of a contrastive loss."""
    group.add_argument(
        "--nce_t", type=positive_float, default=nce_t, help="temperature of the softmax"
    )


class MemoryMoCo(nn.Module):
    """A ring of the last K keys, and the logits of queries against it.

    The buffers are those of the published checkpoints, which are loaded strictly by both sides,
    so the ring pointer ``index`` is a plain attribute that `train_moco.py` saves on its own.

    Args:
        inputSize: D.
        outputSize: unused, as published (the number of images).
        K: entries of the queue; need not be a multiple of the batch.
        T: temperature.
        use_softmax: must be true: the other branch of the published signature is not supported.
    """

    def __init__(
        self,
        inputSize: int,  # noqa: N803 (published name)
        outputSize: int,  # noqa: N803
        K: int,  # noqa: N803
        T: float = 0.07,  # noqa: N803
        use_softmax: bool = False,
    ) -> None:
        super().__init__()
        if not use_softmax:
            raise ValueError("MemoryMoCo supports use_softmax=True only")
        self.queue_size = K
        self.temperature = T
        self.index = 0
        bound = 1.0 / math.sqrt(inputSize / 3)
        self.memory: Tensor  # (K, D)
        self.register_buffer("params", torch.tensor([-1]))
        self.register_buffer("memory", torch.empty(K, inputSize).uniform_(-bound, bound))

    def forward(self, q: Tensor, k: Tensor) -> Tensor:
        """Return the logits of q against its own key and the queue, then enqueue the keys.

        Args:
            q: (B, D), unit embeddings that gradients flow into.
            k: (B, D), their keys.

        Returns:
            (B, K + 1), positive logit first, against the queue as it was before this call.
        """
        logits = self.logits(q, k)
        # The product's backward pass needs the queue as it is now, the enqueuing changes it.
        self.memory = self.memory.clone()
        self.enqueue(k)
        return logits

    def logits(self, q: Tensor, k: Tensor) -> Tensor:
        """Return what a call would, without enqueuing and without a copy of the queue.

        Call `enqueue` after the backward pass: that needs the queue as it is.
        """
        positive = (q * k.detach()).sum(dim=1, keepdim=True)  # (B, 1)
        negative = q @ self.memory.t()  # (B, K)
        return torch.cat([positive, negative], dim=1) / self.temperature

    @torch.no_grad()
    def enqueue(self, k: Tensor) -> None:
        """Write keys (B, D) at the ring pointer; later ones win where the batch laps the ring."""
        last = k[-self.queue_size :]
        start = self.index + len(k) - len(last)
        rows = (start + torch.arange(len(last), device=k.device)) % self.queue_size
        self.memory.index_copy_(0, rows, last.to(self.memory.dtype))
        self.index = (self.index + len(k)) % self.queue_size


class NCESoftmaxLoss(nn.Module):
    """Cross-entropy of logits (B, K + 1) whose first column is the right one."""

    def forward(self, logits: Tensor) -> Tensor:
        """Return the mean loss over the batch, a scalar."""
        target = torch.zeros(len(logits), dtype=torch.long, device=logits.device)
        return F.cross_entropy(logits, target)
