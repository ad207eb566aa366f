"""Run by torchrun in test_torchrun.py: train_moco.py, where each rank writes what it holds."""

import torch

import train_moco
from utils.process_group import rank
from utils.script import run_script


def save_and_keep(run, order, state, position, kept=False):
    save(run, order, state, position, kept)
    states = {
        "model": state.query.state_dict(),
        "model_ema": state.key.state_dict(),
        "contrast": state.contrast.state_dict(),
        "index": state.contrast.index,
        "optimizer": state.optimizer.state_dict(),
        "torch": torch.get_rng_state(),
    }
    torch.save(states, run.model_path / f"{run.model_name}_rank{rank()}.pth")


save, train_moco.save_run = train_moco.save_run, save_and_keep
run_script(train_moco.main)
