import random

import numpy as np
import torch

from utils.checkpoint import load_checkpoint, save_checkpoint
from utils.randomness import random_states, restore_random_states, seed_everything


def draws():
    return random.random(), np.random.rand(), torch.rand(3).tolist(), random.gauss(0, 1)


def test_states_survive_a_checkpoint(tmp_path):
    seed_everything(3)
    draws()
    save_checkpoint(tmp_path / "c.pth", {"states": random_states()})
    expected = draws()
    seed_everything(4)
    draws()
    restore_random_states(load_checkpoint(tmp_path / "c.pth", ("states",))["states"])
    assert draws() == expected


def test_the_same_seed_gives_the_same_draws():
    found = []
    for seed in (1, 1, 2):
        seed_everything(seed)
        found.append(draws())
    assert found[0] == found[1] != found[2]
