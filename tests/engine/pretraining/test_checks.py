"""What is refused before a pre-training starts."""

import contextlib

import pytest
import torch

from engine.pretraining.checkpoint import Position
from engine.pretraining.checks import check_rows
from models.parallel import DataParallel
from utils.errors import InputError


@pytest.mark.parametrize(
    ("batch_size", "images", "ranks", "chunks", "works"),
    [
        (4, 8, 1, 1, True),
        (4, 5, 1, 1, False),  # the last batch has one image
        (8, 8, 2, 2, True),
        (8, 8, 2, 4, False),  # each chunk has one
        (6, 6, 1, 4, True),  # as torch.chunk does: 2, 2, 2 and none
        (8, 10, 2, 1, False),  # one each in the last batch
        (9, 14, 3, 1, False),  # 2, 2, 1
        (8, 9, 4, 1, False),  # a row stands in for none
    ],
)
def test_rows_of_ranks_and_gpus_are_counted(monkeypatch, batch_size, images, ranks, chunks, works):
    for module in ("utils.collectives", "engine.pretraining.checks"):
        monkeypatch.setattr(f"{module}.world_size", lambda: ranks)
    model = DataParallel(torch.nn.Linear(1, 1))
    model.virtual_gpus = chunks
    position = Position(torch.zeros(2), images, batch_size)
    check_rows(model, 64, position)
    with contextlib.nullcontext() if works else pytest.raises(InputError, match="BatchNorm"):
        check_rows(model, 32, position)
