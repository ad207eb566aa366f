"""How a process of torchrun's ends."""

import os
import subprocess
import sys

from tests.recipes import ROOT

SCRIPT = """
import atexit
from utils.script import run_script

class Left:
    def __del__(self):
        print("finalized")

left = Left()
atexit.register(print, "handled")
run_script(lambda: print("done"))
print("after")
"""


def ending(**environment):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()


def test_a_process_of_torchrun_ends_without_pythons_finalization():
    """Threads of Gloo that are still at work would abort it: see `end_process`."""
    assert ending(TORCHELASTIC_RUN_ID="1") == ["done", "handled"]
    assert ending() == ["done", "after", "handled", "finalized"]
