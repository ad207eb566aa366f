"""The shared check of all golden numbers, where it is at hand."""

import subprocess
import sys

import pytest

from tests.recipes import ROOT, SHARED

CHECK = SHARED / "golden" / "check_golden.py"


@pytest.mark.slow  # other tests hold the same numbers, one by one
@pytest.mark.skipif(not CHECK.is_file(), reason=f"{CHECK} isn't here")
def test_all_golden_checks_hold():
    done = subprocess.run(
        [sys.executable, str(CHECK)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "all golden checks hold" in done.stdout
