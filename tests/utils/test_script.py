"""How a process of torchrun's ends."""

import os
import subprocess
import sys

import pytest

from tests.recipes import ROOT
from utils.errors import InputError
from utils.script import run_script

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


LOST = "No space left on device (28)"


@pytest.mark.parametrize(
    "error, said",
    [
        (InputError("a\x1b[2J.csv\nb: damaged"), r"a\x1b[2J.csv\nb: damaged"),
        (PermissionError(13, "Permission denied", "a.csv"), "a.csv: Permission denied"),
        (OSError(28, "No space left on device"), "goes or in /dev/shm: give --num_workers 0, or"),
        (RuntimeError(f"unable to write to file </torch_1_2_3>: {LOST}"), "--num_workers 0, or"),
        (
            RuntimeError(f"unable to allocate shared memory(shm) for file </torch_1>: {LOST}"),
            "--num_workers 0, or Docker more by --shm-size",
        ),
        (
            RuntimeError(
                "DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that "
                "dataloader's workers are out of shared memory."
            ),
            "--shm-size",
        ),
    ],
)
def test_what_the_system_refuses_is_one_line(capsys, error, said):
    def fail():
        raise error

    with pytest.raises(SystemExit) as stop:
        run_script(fail)
    err = capsys.readouterr().err
    assert (
        stop.value.code == 2 and said in err and err.count("\n") == 1 and err.strip().isprintable()
    )


@pytest.mark.parametrize("error", [RuntimeError("our fault"), OSError("no file is named")])
def test_our_own_faults_keep_their_traceback(error):
    def fail():
        raise error

    with pytest.raises(type(error)):
        run_script(fail)


PRINT = "from utils.script import run_script; run_script(lambda: print('\\xe9\\udce9'))"


def printing(command, stdout):
    words = [*command, sys.executable, "-c", PRINT]
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    return subprocess.run(
        words, cwd=ROOT, env=environment, stdout=stdout, stderr=subprocess.PIPE, check=False
    )


def test_any_character_can_be_printed_and_nobody_need_listen():
    done = printing([], subprocess.PIPE)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"\\xe9\\udce9\n", b"")
    done = printing(["sh", "-c", 'exec "$0" "$@" >&-'], None)
    assert (done.returncode, done.stderr) == (0, b"")
    read_end, write_end = os.pipe()
    os.close(read_end)
    done = printing([], write_end)
    os.close(write_end)
    assert done.returncode == 2
    said = done.stderr.decode()
    assert "error: standard output: " in said and "Broken pipe" in said and said.count("\n") == 1
