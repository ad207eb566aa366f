"""When a run is saved within an epoch."""

from types import SimpleNamespace

import pytest
import torch

from engine.pretraining.checkpoint import PeriodicSave, Position
from utils.errors import InputError


def test_it_is_saved_when_its_minutes_have_passed():
    saved = []
    for minutes, expected in ((1.0, 0), (0.0, 2)):
        save = PeriodicSave(lambda: saved.append(1), minutes, SimpleNamespace(received=None))
        for _ in range(2):
            save.after_step(Position(torch.zeros(2), 8, 4))
        assert len(saved) == expected


def test_what_is_not_finite_is_not_saved():
    save = PeriodicSave(lambda: pytest.fail("saved"), 0.0, SimpleNamespace(received=None))
    position = Position(torch.tensor([float("nan"), 1.0]), 8, 4)
    with pytest.raises(InputError, match="the loss isn't finite in epoch 1: not saved"):
        save.after_step(position)
