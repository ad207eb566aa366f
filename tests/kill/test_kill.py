"""Runs killed at random moments end in the bits of a run that was never killed.

``KILLS=40 pytest -s tests/kill`` kills each kind of run that often; once by default, and then
pre-training, of which tests/distributed kills ranks, with --slow alone.
"""

import os
import random
import signal
import time
from threading import Timer

import pytest

from tests.kill.running import assert_same_end, inside, start
from tests.scripts.running import succeed

KILLS = int(os.environ.get("KILLS", "1"))
RUNS = {
    # A queue whose pointer doesn't come round with the epoch.
    "train_moco.py": "--batch_size 8 --nce_k 37 --cosine --save_freq 3 --image_cache",
    "train_dense.py": "--batch_size 8 --places 16 --save_freq 3 --amp off",
    "eval_face.py": "--random_network --layer 4 --use_hypercol --batch_size 4 --adam --cosine "
    "--learning_rate 0.01 --save_freq 3 --feature_cache disk",
}
# A kill comes so many lines of output, four an epoch, and seconds after a run's work began.
LINES = {"train_moco.py": 4, "train_dense.py": 4, "eval_face.py": 8}
SECONDS = {"train_moco.py": 0.6, "train_dense.py": 0.6, "eval_face.py": 0.2}
# Enough for a run to outlive its kills.
EPOCHS = {
    "train_moco.py": 2 + 3 * KILLS,
    "train_dense.py": 2 + 3 * KILLS,
    "eval_face.py": 4 + 6 * KILLS,
}
RESUMED = "resumed from runs/killed/"


def start_to_kill(script, faces, cwd):
    options = f"{RUNS[script]} --epochs {EPOCHS[script]} --model_name killed --resume auto"
    if script.startswith("train_"):
        # After every step, so that most kills come within an epoch or in the middle of a save.
        options += " --save_minutes 0.0001"
    return start(script, faces, cwd, options)


def kill(run):
    os.killpg(run.pid, signal.SIGKILL)


def until_work(run, lines, current):
    """Read a run's output until it goes on from a checkpoint, or has written its first.

    Then read some lines more; return all.
    """
    watchdog, out, fresh, left = Timer(300, kill, [run]), "", not current.exists(), lines
    watchdog.start()
    for line in run.stdout:
        out += line
        left -= current.exists() if fresh else RESUMED in out
        if left < 0:
            break
    watchdog.cancel()
    return out


LIKE_ANOTHER = () if "KILLS" in os.environ else pytest.mark.slow


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    "script",
    [
        pytest.param("train_moco.py", marks=LIKE_ANOTHER),
        pytest.param("train_dense.py", marks=LIKE_ANOTHER),
        "eval_face.py",
    ],
)
def test_killed_runs_end_in_the_same_bits(faces, tmp_path, script):
    whole = [*RUNS[script].split(), "--epochs", EPOCHS[script], "--model_name", "whole"]
    inside(script, faces, tmp_path, *whole, start=succeed)
    chance = random.Random(script)
    folder = tmp_path / "runs" / "killed"
    kills = resumed = saving = early = 0
    early_ones = {chance.randrange(KILLS) for _ in range(1 + KILLS // 5)}  # before which kills
    while True:
        run = start_to_kill(script, faces, tmp_path)
        if kills in early_ones:  # one within the seconds that Python takes to import PyTorch
            early_ones.remove(kills)
            time.sleep(chance.uniform(0.2, 3))
            kill(run)
            out = run.stdout.read()
        elif kills < KILLS:
            out = until_work(run, chance.randint(0, LINES[script]), folder / "current.pth")
            time.sleep(chance.uniform(0, SECONDS[script]))
            assert run.poll() is None, f"ended before kill {kills + 1} ({run.returncode}):\n{out}"
            kill(run)
            out += run.stdout.read()
        else:
            out, _ = run.communicate(timeout=600)
        run.wait()
        assert "Traceback" not in out and "can't be read" not in out, out
        assert "not a readable checkpoint" not in out, out
        resumed += RESUMED in out
        if kills == KILLS:
            break
        worked = RESUMED in out or (not kills and (folder / "current.pth").exists())
        kills, early = kills + worked, early + (not worked)
        saving += worked and any(folder.glob(".*.unfinished"))
    print(
        f"{script}: {kills} kills ({saving} within a write), {resumed} resumptions, "
        f"{early} start-up kills, {EPOCHS[script]} epochs"
    )
    assert run.returncode == 0, out
    assert kills == resumed == KILLS
    assert_same_end(tmp_path / "runs" / "whole", folder, EPOCHS[script])
    assert not list(folder.glob(".*.unfinished"))
