"""When a run is saved within an epoch."""

from types import SimpleNamespace

import pytest
import torch

from engine.pretraining.checkpoint import Position, State
from utils.errors import InputError

RUNNING = SimpleNamespace(received=None)


@pytest.fixture
def state(monkeypatch):
    """A state that counts how often it was saved."""
    monkeypatch.setattr(State, "save", lambda self: self.saved.append(1))
    state = State(None, "", {}, None, None, Position(torch.zeros(2), 8, 4))
    state.saved = []
    return state


@pytest.mark.parametrize(("minutes", "saves"), [(1.0, 0), (0.0, 2)])
def test_it_is_saved_when_its_minutes_have_passed(state, minutes, saves):
    for _ in range(2):
        state.save_in_time(minutes, RUNNING)
    assert len(state.saved) == saves


def test_what_is_not_finite_is_not_saved(state):
    state.position.totals[0] = float("nan")
    with pytest.raises(InputError, match="the loss isn't finite in epoch 1: not saved"):
        state.save_in_time(0.0, RUNNING)
    assert not state.saved
