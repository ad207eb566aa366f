"""MoCo as the benchmarks train it: what `train_moco.py` builds, at 96 px with few negatives."""

from collections.abc import Iterable
from typing import Any

import torch

from data_loader.views.batch_views import BatchViews
from engine.pretraining.objective import Descent, Images, Objective
from models.nce import MemoryMoCo
from train_moco import MomentumContrast, build_encoders
from utils.collectives import split_over_ranks

SIDE = 96
QUEUE, TEMPERATURE, ALPHA, DIM = 4096, 0.07, 0.999, 128


def build_moco(
    model: str, device: torch.device, views: BatchViews | None = None, **acceleration: Any
) -> MomentumContrast:
    """Return what `train_moco.py` trains."""
    query, key = build_encoders(model, SIDE, 0, device, **acceleration)
    contrast = MemoryMoCo(DIM, 0, QUEUE, TEMPERATURE, use_softmax=True).to(device)
    optimizer = torch.optim.SGD(query.parameters(), lr=0.03, momentum=0.9, weight_decay=1e-4)
    return MomentumContrast(query, key, contrast, optimizer, ALPHA, views)


def take_steps(
    objective: Objective, batches: Iterable[Images], device: torch.device, amp: str
) -> None:
    """Take a step of a script a batch."""
    descent = Descent(objective.optimizer, device, amp)
    for images in batches:
        batch_split = split_over_ranks(len(images[0]))
        objective.step(objective.embed, images, batch_split, descent)
