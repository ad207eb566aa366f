"""Run by torchrun in test_torchrun.py: a pre-training, where each rank writes what it holds.

Which one, the environment says: ``SCRIPT=train_dense``, or else train_moco.
"""

import importlib
import os

import torch

from utils.process_group import rank
from utils.script import run_script


def save_and_keep(run, order, state, position, **options):
    save(run, order, state, position, **options)
    states = {
        **{entry: module.state_dict() for entry, module in state.modules().items()},
        **state.numbers(),
        "optimizer": state.optimizer.state_dict(),
        "torch": torch.get_rng_state(),
    }
    torch.save(states, run.model_path / f"{run.model_name}_rank{rank()}.pth")


script = importlib.import_module(os.environ.get("SCRIPT", "train_moco"))
save, script.save_run = script.save_run, save_and_keep
run_script(script.main)
