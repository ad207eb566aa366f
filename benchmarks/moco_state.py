"""MoCo as the benchmarks train it: what `train_moco.py` builds, at 96 px with few negatives."""

from typing import Any

import torch

from engine.acceleration import gradient_scaler
from engine.pretraining_state import MoCoState, build_encoders
from models.nce import MemoryMoCo

SIDE = 96
QUEUE, TEMPERATURE, ALPHA, DIM = 4096, 0.07, 0.999, 128


def state_of(model: str, device: torch.device, amp: str, **acceleration: Any) -> MoCoState:
    """Return what `train_moco.py` trains."""
    query, key = build_encoders(model, SIDE, 0, device, **acceleration)
    contrast = MemoryMoCo(DIM, 0, QUEUE, TEMPERATURE, use_softmax=True).to(device)
    optimizer = torch.optim.SGD(query.parameters(), lr=0.03, momentum=0.9, weight_decay=1e-4)
    return MoCoState(query, key, contrast, optimizer, gradient_scaler(device, amp))
