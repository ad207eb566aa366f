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
QUEUE, TEMPERATURE, ALPHA, DIM, DENSE_DIM = 4096, 0.07, 0.999, 128, 64
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


def build_dense(
    model: str, device: torch.device = CPU, compiled: bool = False, recompute: bool = False
) -> Objective:
    """Return what `train_dense.py` trains."""
    from engine.run.acceleration import accelerate
    from models.dense_contrast import DenseEmbedding

    encoder = cast(InsResNet, build_random_encoder(model, SIDE, 0))
    accelerate(encoder.to(device), compiled=compiled, recompute=recompute)
    return contrast_places(DenseEmbedding(encoder, DENSE_DIM).to(device).train(), count=256)


def contrast_places(embedding: Any, count: int) -> Objective:
    """Return the objective of `train_dense.py` for an embedding and a number of queries."""
    from data_loader.views.dense_views import DenseViews
    from data_loader.views.similarity import Spread
    from train_dense import DenseContrast

    optimizer = torch.optim.AdamW(embedding.parameters(), 0.001, fused=True)
    views = DenseViews(SIZE, CROP, FACE_MEAN, FACE_STD, Spread())
    how = {"detail": 0.0, "temperature": 0.1, "radius": 0.12}
    return DenseContrast(embedding, optimizer, views, places=count, **how)


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


def steps_of(
    script: str, model: str, batch_size: int, count: int, device: torch.device, amp: str, **how: Any
) -> Epoch:
    """Return a function that takes steps of a script on random images on the device.

    Those of `train_moco.py` are of random views; `train_dense.py` makes views of random squares.
    ``how`` is `accelerate`'s.
    """
    if script == "train_moco.py":
        pair = PairItem(torch.randn(batch_size, 6, SIDE, SIDE, device=device), 0)
        return take_steps(build_moco(model, device, **how), [pair] * count, device, amp)
    squares = torch.randint(256, (batch_size, 3, SIZE, SIZE), dtype=torch.uint8, device=device)
    return take_steps(build_dense(model, device, **how), as_items([squares] * count), device, amp)


def step_memory(model: str, batch_size: int, recompute: bool) -> Iterator[None]:
    """Take one step of `train_moco.py`, whose memory counts from the first mark on."""
    step = steps_of("train_moco.py", model, batch_size, 1, CPU, "off", recompute=recompute)
    yield
    step()
    yield
