"""A process whose loader is still alive must end all the same."""

import subprocess
import sys
from pathlib import Path

KEPT_TO_THE_END = """
import builtins, torch
from torch.utils.data import TensorDataset
from data_loader.loaders import build_loader

loader = build_loader(
    TensorDataset(torch.arange(40)), batch_size=2, num_workers=1, seed=0, shuffle=False,
    device=torch.device("cpu"),
)
builtins.kept = iter(loader)  # so that no collection ends its worker
print(next(builtins.kept)[0].tolist())
"""


def test_a_loader_left_at_the_exit_does_not_hold_the_process_up():
    command = [sys.executable, "-c", KEPT_TO_THE_END]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "[0, 1]\n", "")
