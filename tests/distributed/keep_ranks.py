"""Run by torchrun in test_torchrun.py: a pre-training, where each rank writes what it holds.

Which one, the environment says: ``SCRIPT=train_dense``, or else train_moco.
"""

import importlib
import os

import torch

from engine.pretraining import run
from utils.process_group import rank
from utils.script import run_script


def save_and_keep(settings, order, state, *notes, **options):
    save(settings, order, state, *notes, **options)
    objective = state.objective
    states = {
        **{entry: module.state_dict() for entry, module in objective.modules.items()},
        **objective.numbers(),
        "optimizer": objective.optimizer.state_dict(),
        "torch": torch.get_rng_state(),
    }
    torch.save(states, settings.model_path / f"{settings.model_name}_rank{rank()}.pth")


script = importlib.import_module(os.environ.get("SCRIPT", "train_moco"))
save, run.save_run = run.save_run, save_and_keep
run_script(script.main)
