"""Run by torchrun in test_torchrun.py: a pre-training, where each rank writes what it holds.

Which one, the environment says: ``SCRIPT=train_dense``, or else train_moco.
"""

import importlib
import os

import torch

from engine.pretraining.checkpoint import State
from utils.process_group import rank
from utils.script import run_script

save = State.save


def save_and_keep(state, **options):
    save(state, **options)
    objective, run = state.objective, state.run
    states = {
        **{entry: module.state_dict() for entry, module in objective.modules.items()},
        **objective.numbers(),
        "optimizer": objective.optimizer.state_dict(),
        "torch": torch.get_rng_state(),
    }
    torch.save(states, run.model_path / f"{run.model_name}_rank{rank()}.pth")


State.save = save_and_keep
run_script(importlib.import_module(os.environ.get("SCRIPT", "train_moco")).main)
