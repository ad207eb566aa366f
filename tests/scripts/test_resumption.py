"""Interrupted runs, `--resume auto`, and what refuses to be resumed."""

import os
import signal
import subprocess
import sys

import pytest
import torch

from tests.recipes import ROOT
from tests.scripts.running import FRAME, assert_same_weights, refused, start_process, succeed
from utils.checkpoint import load_checkpoint

MOCO = [*FRAME, "--batch_size", "4", "--nce_k", "20", "--cosine", "--model_path", "runs"]
FIT = [*FRAME, "--random_network", "--layer", "4", "--use_hypercol", "--batch_size", "4"]
FIT += ["--adam", "--model_path", "runs", "--log_path", "runs/log"]
PARTS = ("model", "model_ema", "contrast")


def moco(faces, cwd, name, *arguments, start=succeed):
    return start(
        "train_moco.py", *MOCO, "--data_folder", faces, "--model_name", name, *arguments, cwd=cwd
    )


def fit(faces, cwd, name, *arguments, start=succeed):
    return start(
        "eval_face.py", *FIT, "--data_folder", faces, "--model_name", name, *arguments, cwd=cwd
    )


@pytest.fixture(scope="module")
def whole(faces, tmp_path_factory):
    """Three epochs of five steps without a break."""
    cwd = tmp_path_factory.mktemp("whole")
    moco(faces, cwd, "a", "--epochs", 3, "--save_freq", 1)
    return cwd


@pytest.mark.parametrize("name, status", [("SIGTERM", 143), ("SIGINT", 130), ("SIGUSR1", 0)])
def test_a_signal_ends_the_run_after_its_step_and_nothing_is_lost(
    faces, whole, tmp_path, name, status
):
    given = [*MOCO, "--data_folder", faces, "--model_name", "a", "--epochs", "3"]
    given += ["--print_freq", "1", "--num_workers", "2"]
    how = {"variables": {"OMP_NUM_THREADS": str(torch.get_num_threads())}}
    how["stderr"] = subprocess.PIPE
    run = start_process("train_moco.py", *given, cwd=tmp_path, **how)
    for line in run.stdout:
        if "epoch 2  step 2/5" in line:
            os.killpg(run.pid, getattr(signal, name))  # as a terminal does: to the readers too
            break
    _, err = run.communicate(timeout=120)
    assert run.returncode == status, err
    assert err.strip() == f"{name}: finishing what is under way, then saving"
    current = load_checkpoint(tmp_path / "runs/a/current.pth", PARTS)
    assert current["epoch"] == 1 and 2 <= current["progress"]["steps"] <= 4
    assert current["progress"]["images"] == 4 * current["progress"]["steps"]

    done = moco(faces, tmp_path, "a", "--epochs", 3, "--resume", "auto")
    step = current["progress"]["steps"]
    assert f"resumed from runs/a/current.pth after epoch 1, step {step}" in done.out
    ends = [load_checkpoint(cwd / "runs/a/current.pth", PARTS) for cwd in (whole, tmp_path)]
    assert_same_weights(*ends)
    records = [(cwd / "runs/a/log.jsonl").read_text() for cwd in (whole, tmp_path)]
    assert records[0] == records[1]


def test_auto_starts_where_there_is_nothing_and_ends_where_all_is_done(faces, tmp_path):
    first = moco(faces, tmp_path, "a", "--epochs", 1, "--resume", "auto")
    assert "no checkpoint in runs/a yet" in first.out
    again = moco(faces, tmp_path, "a", "--epochs", 1, "--resume", "auto")
    assert "after epoch 1" in again.out and "epoch 1/1" not in again.out


def test_a_damaged_checkpoint_is_named_and_the_one_before_is_taken(faces, whole, tmp_path):
    folder = tmp_path / "runs" / "a"
    folder.mkdir(parents=True)
    for name in ("ckpt_epoch_1.pth", "ckpt_epoch_2.pth"):
        (folder / name).write_bytes((whole / "runs/a" / name).read_bytes())
        os.utime(folder / name, (int(name[11]), int(name[11])))
    content = bytearray((whole / "runs/a/current.pth").read_bytes())
    content[len(content) // 2] ^= 4
    (folder / "current.pth").write_bytes(content)
    done = moco(faces, tmp_path, "a", "--epochs", 3, "--resume", "auto")
    assert "runs/a/current.pth: not a readable checkpoint" in done.out
    assert "resumed from runs/a/ckpt_epoch_2.pth after epoch 2" in done.out
    ends = [load_checkpoint(cwd / "runs/a/current.pth", PARTS) for cwd in (whole, tmp_path)]
    assert_same_weights(*ends)


def test_with_all_damaged_nothing_starts_from_the_beginning(faces, tmp_path):
    folder = tmp_path / "runs" / "a"
    folder.mkdir(parents=True)
    for name in ("current.pth", "previous_1.pth"):
        (folder / name).write_bytes(b"PK\x03\x04")
    done = moco(faces, tmp_path, "a", "--epochs", 1, "--resume", "auto", start=refused)
    assert "none of its 2 checkpoints can be read" in done
    assert (folder / "current.pth").read_bytes() == b"PK\x03\x04"


def test_other_options_are_refused_by_name_or_insisted_on(faces, whole, tmp_path):
    resume = ("--resume", whole / "runs/a/ckpt_epoch_2.pth")
    changes = ("--epochs", 4, "--learning_rate", 0.01, "--print_freq", 3)
    done = moco(faces, tmp_path, "b", *changes, *resume, start=refused)
    assert "other options: --epochs 4 (was 3), --learning_rate 0.01 (was 0.03); --over" in done
    done = moco(faces, tmp_path, "b", *changes, *resume, "--override")
    assert "resumed with --epochs 4 (was 3)" in done.out


def test_as_many_versions_stay_as_are_wanted(faces, tmp_path):
    kept = ("current.pth", "previous_1.pth")
    for keep, name in ((1, "a"), (2, "b")):
        moco(faces, tmp_path, name, "--epochs", 3, "--batch_size", 20, "--keep_last", keep)
        files = {path.name for path in (tmp_path / "runs" / name).glob("*.pth")}
        assert files == set(kept[:keep])
    epochs = [load_checkpoint(tmp_path / "runs/b" / file, PARTS)["epoch"] for file in kept]
    assert epochs == [3, 2]


def test_two_runs_cannot_write_one_folder(faces, tmp_path, monkeypatch):
    command = [sys.executable, "-c", "import sys, time\n"]
    command[2] += f"sys.path.insert(0, {str(ROOT)!r})\n"
    command[2] += "from pathlib import Path\nfrom utils.locks import lock_folder\n"
    command[2] += "lock_folder(Path('runs/a')); print('held', flush=True); time.sleep(60)"
    other = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout.readline() == "held\n"
        monkeypatch.setattr("utils.locks.LOCK_SECONDS", 0.1)
        done = moco(faces, tmp_path, "a", "--epochs", 1, "--overwrite", start=refused)
        assert "runs/a: another run writes there" in done
    finally:
        other.kill()
        other.wait()
    moco(faces, tmp_path, "a", "--epochs", 1)  # of a killed run, the lock is gone


def test_a_regressor_goes_on_by_itself_with_its_own_picks(faces, tmp_path):
    few = ("--restrict_annos", 3, "--TPS_aug", "--repeat", "--num_per_epoch", 6)
    done = fit(faces, tmp_path, "whole", "--epochs", 4, *few)
    for epochs in (2, 4):
        fit(faces, tmp_path, "b", "--epochs", epochs, *few, "--resume", "auto")
    assert "resumed" not in done.err
    ends = [
        load_checkpoint(tmp_path / "runs" / name / "current.pth", ("regressor",))
        for name in ("whole", "b")
    ]
    assert_same_weights(*ends, parts=["regressor"])
    # Into another folder, it takes the picks that lie beside the checkpoint, not the seed's.
    other = ("--resume", "runs/whole/ckpt_epoch_4.pth", "--seed", 5, "--override")
    moved = fit(faces, tmp_path, "c", "--epochs", 5, *few, *other)
    assert "6 training, 6 Test images" in moved.out
    names = [(tmp_path / "runs" / n / "namelist.txt").read_text() for n in ("whole", "c")]
    assert names[0] == names[1]


def test_a_regressor_is_not_resumed_on_another_encoder(faces, tmp_path):
    fit(faces, tmp_path, "a", "--epochs", 1)
    options = ("--epochs", 2, "--seed", 7, "--resume", "runs/a/current.pth")
    assert "--seed 7 (was 0)" in fit(faces, tmp_path, "b", *options, start=refused)
    published = load_checkpoint(tmp_path / "runs/a/current.pth", ())
    del published["opt"].seed
    torch.save(published, tmp_path / "seedless.pth")
    again = ("--epochs", 2, "--seed", 7, "--resume", "seedless.pth")
    assert "features of another encoder" in fit(faces, tmp_path, "b", *again, start=refused)
