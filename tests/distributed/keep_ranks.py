"""Run by torchrun in test_torchrun.py: train_moco.py, where each rank writes what it holds."""

from pathlib import Path

import torch

import train_moco
from utils.process_group import rank
from utils.script import run_script


def save_and_keep(folder: Path, keep_last, entries, state, progress_state, kept=False):
    save(folder, keep_last, entries, state, progress_state, kept)
    states = {
        "model": state.query.state_dict(),
        "model_ema": state.key.state_dict(),
        "contrast": state.contrast.state_dict(),
        "index": state.contrast.index,
        "optimizer": state.optimizer.state_dict(),
        "torch": torch.get_rng_state(),
    }
    torch.save(states, folder.parent / f"{folder.name}_rank{rank()}.pth")


save, train_moco.save_run = train_moco.save_run, save_and_keep
run_script(train_moco.main)
