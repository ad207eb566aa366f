"""The published arithmetic, step by step [spec 2, 4, 5]: what ours is compared with.

Letters: B images, A landmarks, I virtual points, H = W = 48.
"""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.keypoint_prediction import IntermediateKeypointPredictor
from models.loss import regression_loss

HYPERCOLUMN = (48, 48)


def predict(regressor: IntermediateKeypointPredictor, features: Tensor) -> Tensor:
    """Return the landmarks (B, A, 2) of dense features (B, C, H, W)."""
    scores = regressor.inner_conv(features) * regressor.softargmax_mul  # (B, A * I, H, W)
    b, k, height, width = scores.shape
    heat = scores.view(b, k, -1).softmax(dim=-1).view(b, k, height, width)
    rows = torch.linspace(-1, 1, height).to(heat).view(1, 1, height, 1)
    columns = torch.linspace(-1, 1, width).to(heat).view(1, 1, 1, width)
    x = (heat * columns).sum(dim=(2, 3))  # (B, A * I)
    y = (heat * rows).sum(dim=(2, 3))
    points = torch.stack([x, y], dim=-1)  # (B, A * I, 2)
    pred = regressor.reg_conv(points.reshape(b, -1, 1, 1))
    return pred.view(b, -1, 2)


def train_one_epoch(
    encoder: nn.Module,
    regressor: IntermediateKeypointPredictor,
    optimizer: torch.optim.Optimizer,
    batches: Iterable[tuple[Tensor, Tensor]],
    layer: int,
) -> None:
    """Take one step a batch, each on a hypercolumn made anew."""
    regressor.train()
    for images, points in batches:
        with torch.no_grad():
            features = encoder(images, layer, True, HYPERCOLUMN)  # (B, C, H, W)
        loss = regression_loss(predict(regressor, features), points)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def momentum_update(query: nn.Module, key: nn.Module, alpha: float) -> None:
    """Move each key parameter towards the query's, one after the other."""
    for q, k in zip(query.parameters(), key.parameters(), strict=True):
        k.data.mul_(alpha).add_(q.detach().data, alpha=1 - alpha)


class Queue(nn.Module):
    """The published queue: compares with a copy of all keys, then writes the new ones."""

    memory: Tensor  # (K, D)

    def __init__(self, size: int, dim: int, temperature: float) -> None:
        super().__init__()
        self.size, self.temperature, self.index = size, temperature, 0
        bound = (3 / dim) ** 0.5
        self.register_buffer("memory", torch.rand(size, dim) * 2 * bound - bound)

    def forward(self, q: Tensor, k: Tensor) -> Tensor:
        """Return the logits (B, K + 1), then enqueue."""
        k = k.detach()
        positive = torch.bmm(q.unsqueeze(1), k.unsqueeze(2)).squeeze(2)  # (B, 1)
        negative = torch.mm(q, self.memory.clone().detach().t())  # (B, K)
        logits = torch.cat([positive, negative], dim=1) / self.temperature
        with torch.no_grad():
            rows = (torch.arange(len(k), device=k.device) + self.index) % self.size
            self.memory.index_copy_(0, rows, k)
            self.index = (self.index + len(k)) % self.size
        return logits.contiguous()


def train_one_step(
    query: nn.Module,
    key: nn.Module,
    queue: nn.Module,
    optimizer: torch.optim.Optimizer,
    views: Tensor,
    alpha: float,
) -> float:
    """Take one step of momentum contrast on (B, 6, H, W); return the loss, read at once."""
    view1, view2 = views.split(3, dim=1)
    q = query(view1.contiguous())
    with torch.no_grad():
        order = torch.randperm(len(view2), device=view2.device)
        back = torch.argsort(order)
        k = key(view2.contiguous()[order])[back]
    logits = queue(q, k)
    target = torch.zeros(len(logits), dtype=torch.long, device=logits.device)
    loss = F.cross_entropy(logits, target)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    momentum_update(query, key, alpha)
    return loss.item()
