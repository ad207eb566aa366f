"""The scripts' own steps of pre-training, as the benchmarks take them: 96 px, few negatives.

With no imports beside those of `train_moco.py` until dense contrast is asked for: memory is that of
a user's process only where no library is loaded that theirs doesn't load.
Letters: B images a step, S the side of a square, W that of a view.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from benchmarks.measure import CPU, CROP, SIZE
from data_loader.items import PairItem, SquareItem
from data_loader.views.batch_views import BatchViews
from data_loader.views.random_view import FACE_MEAN, FACE_STD
from engine.pretraining.objective import Descent, Images, Objective
from models.encoders import build_random_encoder
from models.nce import MemoryMoCo
from models.resnet import InsResNet
from train_moco import MomentumContrast, build_encoders
from utils.collectives import split_over_ranks

SIDE = SIZE - 2 * CROP  # W
QUEUE, TEMPERATURE, ALPHA, DIM = 4096, 0.07, 0.999, 128
DENSE_DIM, DENSE_TEMPERATURE, RADIUS, RATE = 64, 0.1, 0.12, 0.001
Epoch = Callable[[], None]


def build_sgd(parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
    """Return the optimizer of momentum contrast."""
    return torch.optim.SGD(parameters, lr=0.03, momentum=0.9, weight_decay=1e-4)


def build_moco(
    model: str, device: torch.device = CPU, views: BatchViews | None = None, **acceleration: Any
) -> MomentumContrast:
    """Return what `train_moco.py` trains."""
    query, key = build_encoders(model, SIDE, 0, device, **acceleration)
    queue = MemoryMoCo(DIM, 0, QUEUE, TEMPERATURE, use_softmax=True).to(device)
    return MomentumContrast(query, key, queue, build_sgd(query.parameters()), ALPHA, views)


def build_dense(model: str, device: torch.device = CPU) -> Objective:
    """Return what `train_dense.py` trains."""
    from data_loader.views.dense_views import DenseViews
    from data_loader.views.similarity import Spread
    from engine.run.acceleration import accelerate
    from models.dense_contrast import DenseEmbedding
    from train_dense import DenseContrast

    encoder = cast(InsResNet, build_random_encoder(model, SIDE, 0))
    embedding = DenseEmbedding(encoder, DENSE_DIM).to(device).train()
    accelerate(embedding.encoder, compiled=False, recompute=False)
    optimizer = torch.optim.AdamW(embedding.parameters(), RATE, fused=True)
    views = DenseViews(SIZE, CROP, FACE_MEAN, FACE_STD, Spread())
    how: dict[str, Any] = {"temperature": DENSE_TEMPERATURE, "radius": RADIUS}
    return DenseContrast(embedding, optimizer, views, places=256, detail=0.0, **how)


def take_steps(
    objective: Objective, batches: Iterable[Images], device: torch.device = CPU, amp: str = "off"
) -> Epoch:
    """Return a function that takes a step a batch."""
    descent = Descent(objective.optimizer, device, amp)

    def epoch() -> None:
        for images in batches:
            objective.step(objective.embed, images, split_over_ranks(len(images[0])), descent)

    return epoch


def as_items(batches: Sequence[Tensor]) -> list[SquareItem]:
    """Return squares (B, 3, S, S) as the readers hand them on, with seeds for their views."""
    return [SquareItem(b, torch.full((len(b),), n), 0) for n, b in enumerate(batches)]


def moco_steps(
    model: str, batch_size: int, steps: int, device: torch.device, amp: str, **acceleration: Any
) -> Epoch:
    """Return a function that takes steps of `train_moco.py` on random views on the device."""
    pair = PairItem(torch.randn(batch_size, 6, SIDE, SIDE, device=device), 0)
    return take_steps(build_moco(model, device, **acceleration), [pair] * steps, device, amp)


def dense_steps(model: str, batch_size: int, steps: int, device: torch.device, amp: str) -> Epoch:
    """Return a function that takes steps of `train_dense.py`, views included, on random squares."""
    squares = torch.randint(256, (batch_size, 3, SIZE, SIZE), dtype=torch.uint8, device=device)
    return take_steps(build_dense(model, device), as_items([squares] * steps), device, amp)


def step_memory(model: str, batch_size: int, recompute: bool) -> Iterator[None]:
    """Take one step of `train_moco.py`, whose memory counts from the first mark on."""
    step = moco_steps(model, batch_size, 1, CPU, "off", recompute=recompute)
    yield
    step()
    yield
