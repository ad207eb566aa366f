"""A disk that turns out full: one line, status 2, and all that was there before is still whole.

Full are files whose size is limited (as by ``ulimit -f``), a small file system in memory where one
may be mounted, and /dev/full.
"""

import argparse
import hashlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager, nullcontext
from functools import partial

import pytest
import torch

from data_loader.few_shot import Picks, save_picks
from engine.run.resumption import forget_later_epochs, save_current, start_run
from engine.run.settings import RunSettings
from tests.kill.running import assert_same_end, inside, start
from tests.recipes import ROOT
from tests.scripts.running import succeed
from utils.errors import InputError
from utils.log import RunLog

RUNS = {
    "train_moco.py": "--batch_size 8 --nce_k 37 --cosine --epochs 3 --save_freq 1",
    "train_dense.py": "--batch_size 8 --places 16 --epochs 3 --save_freq 1 --amp off",
    "eval_face.py": "--random_network --layer 4 --use_hypercol --batch_size 4 --adam --cosine "
    "--learning_rate 0.01 --epochs 3 --save_freq 1 --log_path log",
}
# train_dense.py saves by the function of train_moco.py.
SCRIPTS = ["train_moco.py", pytest.param("train_dense.py", marks=pytest.mark.slow), "eval_face.py"]
FULL, LARGE = "No space left on device", "File too large"
PAGE = 4096


def resumed(script, faces, cwd, *options):
    given = [*RUNS[script].split(), "--model_name", "a", *options]
    return inside(script, faces, cwd, *given, start=succeed)


@pytest.fixture(scope="module", params=SCRIPTS)
def whole(request, faces, tmp_path_factory):
    """A script's name, and the folder of three epochs of it without a break."""
    cwd = tmp_path_factory.mktemp("whole")
    resumed(request.param, faces, cwd)
    yield request.param, cwd / "runs" / "a"
    shutil.rmtree(cwd)


def two_epochs(whole, folder):
    """Make a run's folder as it is after two of three epochs."""
    folder.mkdir(parents=True)
    for epoch, name in ((1, "previous_1.pth"), (2, "current.pth")):
        shutil.copy(whole / f"ckpt_epoch_{epoch}.pth", folder / name)
        os.utime(folder / name, (epoch, epoch))
    shutil.copy(whole / "options.json", folder)
    lines = (whole / "log.jsonl").read_text().splitlines(keepends=True)
    (folder / "log.jsonl").write_text("".join(lines[:2]))
    (folder / ".lock").touch()


def digests(folder, pattern="*.pth"):
    return {p.name: hashlib.sha256(p.read_bytes()).digest() for p in folder.glob(pattern)}


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def mount(tmp_path):
    """Return a function that mounts a file system of so many bytes, once."""
    mounted = []

    def do(size):
        folder = tmp_path / "small"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
        if shutil.which("mount") is None:
            pytest.skip("no mount command here")
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"can't mount a small file system: {done.stderr.strip()}")
        mounted.append(folder)
        return folder

    yield do
    for folder in mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder, left):
    """Leave so many bytes free of a file system."""
    found = os.statvfs(folder)
    with (folder / "fill").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, found.f_bavail * found.f_frsize - left)


def limit_files(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


@contextmanager
def limited(size):
    """Limit files here, too; for moments in which pytest has nothing to write to its own."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    limit_files(size)
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def assert_one_line(script, status, err, *words):
    assert status == 2, err
    assert err.count("\n") == 1 and f"{script}: error: " in err, err
    assert all(word in err for word in words), err


# ---- checkpoints ----


@pytest.mark.parametrize("how", ["limit", pytest.param("full", marks=pytest.mark.slow)])
def test_a_save_that_fails_leaves_all_as_it_was(whole, faces, tmp_path, request, how):
    script, done = whole
    size = (done / "current.pth").stat().st_size
    where, preexec, reason = tmp_path, partial(limit_files, size // 2), LARGE
    if how == "full":
        where, preexec, reason = request.getfixturevalue("mount")(6 * size), None, FULL
    folder = where / "runs" / "a"
    two_epochs(done, folder)
    before = digests(folder), names(folder)
    if how == "full":
        fill(where, size // 2)
    options = f"{RUNS[script]} --save_freq 9 --model_name a --resume auto"
    run = start(script, faces, where, options, stderr=subprocess.PIPE, preexec_fn=preexec)
    out, err = run.communicate(timeout=120)
    assert "resumed from runs/a/current.pth after epoch 2" in out and "epoch 3/3  loss" in out
    assert_one_line(script, run.returncode, err, "runs/a/", ".pth: can't write the ", reason)
    assert (digests(folder), names(folder)) == before

    (where / "fill").unlink(missing_ok=True)
    again = resumed(script, faces, where, "--save_freq", "9", "--resume", "auto")
    assert "resumed from runs/a/current.pth after epoch 2" in again.out
    assert_same_end(done, folder, 3)


def test_a_failed_save_rotates_nothing(tmp_path):
    for epoch in range(4):
        save_current(tmp_path, {"epoch": epoch, "model": torch.zeros(1000)}, keep_last=3)
    before = digests(tmp_path)
    assert sorted(before) == ["current.pth", "previous_1.pth", "previous_2.pth"]
    complaint = r"current\.pth: can't write the checkpoint \(File too"
    with limited(2000), pytest.raises(InputError, match=complaint):
        save_current(tmp_path, {"epoch": 4, "model": torch.zeros(1000)}, keep_last=3)
    assert digests(tmp_path) == before == digests(tmp_path, "*")


def test_what_a_killed_run_left_unfinished_is_removed(tmp_path):
    path = tmp_path / "a" / "current.pth"
    path.parent.mkdir()
    code = "import os, sys; from pathlib import Path; from utils.files import write_atomically; "
    code += "write_atomically(Path(sys.argv[1]), lambda file: os.kill(os.getpid(), 9))"
    killed = subprocess.run([sys.executable, "-c", code, str(path)], cwd=ROOT, check=False)
    assert killed.returncode == -signal.SIGKILL and len(names(path.parent)) == 1
    run = RunSettings(argparse.Namespace(), tmp_path, "a", "auto", False, False, 2)
    start_run(run, {}, 0, RunLog())
    assert names(path.parent) == [".lock", "options.json"]


# ---- small files ----

FEW = f"{RUNS['eval_face.py']} --restrict_annos 3"


@pytest.fixture(scope="module")
def finished(faces, tmp_path_factory):
    cwd = tmp_path_factory.mktemp("finished")
    few(faces, cwd, start=succeed)
    return cwd


def few(faces, cwd, *options, **how):
    return inside("eval_face.py", faces, cwd, *FEW.split(), "--model_name", "a", *options, **how)


WRITTEN = ("options.json", "datalist.txt", "namelist.txt", "result.json")  # in this order


@pytest.mark.parametrize("name", WRITTEN)
def test_a_small_file_is_replaced_whole_or_not_at_all(finished, faces, tmp_path, mount, name):
    small = mount(64 << 20)
    shutil.copytree(finished / "runs", small / "runs")
    (tmp_path / "runs").symlink_to(small / "runs")
    folder, earlier = small / "runs" / "a", WRITTEN[: WRITTEN.index(name)]
    for other in earlier:
        (folder / other).unlink()
    before = digests(folder, "*"), names(folder)
    fill(small, PAGE * len(earlier))  # so much takes what is written before this one
    done = few(faces, tmp_path, "--resume", "auto")
    assert_one_line("eval_face.py", done.status, done.err, f"runs/a/{name}: can't write", FULL)
    assert names(folder) == sorted({*before[1], *earlier})
    after = digests(folder, "*")
    assert all(after[other] == digest for other, digest in before[0].items())
    (small / "fill").unlink()
    few(faces, tmp_path, "--resume", "auto", start=succeed)


def test_what_a_run_says_has_no_room(finished, faces, tmp_path):
    cwd = tmp_path / "run"
    shutil.copytree(finished, cwd)
    jsonl = cwd / "runs" / "a" / "log.jsonl"
    jsonl.unlink()
    jsonl.symlink_to("/dev/full")
    current = cwd / "runs" / "a" / "ckpt_epoch_2.pth"
    before = digests(jsonl.parent)
    done = few(faces, cwd, "--resume", "auto", "--log_path", "/dev/full")
    assert_one_line("eval_face.py", done.status, done.err, "/dev/full: can't write it", FULL)
    done = few(faces, cwd, "--resume", str(current))
    assert_one_line("eval_face.py", done.status, done.err, "runs/a/log.jsonl: can't write it", FULL)
    assert digests(jsonl.parent) == before


@pytest.mark.parametrize("what", ["standard output", "runs_tensorboard/b"])
def test_a_process_ends_without_further_complaints(faces, tmp_path, request, what):
    how = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with open("/dev/full", "w") as full:
        if what == "standard output":
            how["stdout"] = full
        else:
            small = request.getfixturevalue("mount")(1 << 20)
            (tmp_path / "runs_tensorboard").symlink_to(small)
            fill(small, 0)
        run = start("train_moco.py", faces, tmp_path, "--model_name b --nce_k 8", **how)
        _, err = run.communicate(timeout=120)
    assert_one_line("train_moco.py", run.returncode, err, f"{what}: can't write it", FULL)
    assert names(tmp_path / "runs" / "b") == [".lock", "options.json"]


def test_events_that_fill_the_disk_end_in_one_line(tmp_path, mount):
    small = mount(1 << 20)
    log = RunLog()
    log.open(scalar_path=small / "events", jsonl_path=tmp_path / "log.jsonl")
    fill(small, 0)  # what is left of the page that the header lies in takes some more
    with pytest.raises(InputError, match="events: can't write it .No space left"):
        for epoch in range(1, 1000):
            log.record(epoch, loss=1.0)
    records = (tmp_path / "log.jsonl").read_text().splitlines()
    assert [json.loads(record)["epoch"] for record in records] == list(range(1, epoch))


def test_a_record_cut_short_anywhere_does_not_spoil_the_next(tmp_path):
    path, lines = tmp_path / "log.jsonl", ['{"epoch": 1, "a": 0.5}\n', '{"epoch": 2, "a": 1.5}\n']
    for cut in range(len(lines[0]), len("".join(lines)) + 1):
        path.write_text("".join(lines)[:cut])
        forget_later_epochs(path, 2)
        log = RunLog()
        log.open(jsonl_path=path)
        log.record(3, a=2.5)
        epochs = [json.loads(line)["epoch"] for line in path.read_text().splitlines()]
        assert epochs == ([1, 2, 3] if cut >= len("".join(lines)) - 1 else [1, 3]), cut


def test_picks_that_cannot_be_written_stay(tmp_path):
    save_picks(tmp_path, Picks([1], ["1.jpg"]))
    before = digests(tmp_path, "*")
    complaint = r"list\.txt: can't write it \(File too large\)"
    with limited(3), pytest.raises(InputError, match=complaint):
        save_picks(tmp_path, Picks([1, 22], ["1.jpg", "2.jpg"]))
    assert digests(tmp_path, "*") == before


# ---- caches ----


@pytest.mark.parametrize("how", ["limit", "full"])
@pytest.mark.parametrize("script", SCRIPTS)
def test_a_cache_that_has_no_room_is_named_and_not_left(
    faces, tmp_path, monkeypatch, request, script, how
):
    options = f"{RUNS[script]} --model_name a".split()
    if script.startswith("train_"):
        options += ["--image_cache", "cache"]
    else:
        options += ["--feature_cache", "disk", "--cache_folder", "cache"]
    limit = nullcontext()
    if how == "limit":
        folder, reason, limit = tmp_path / "cache", LARGE, limited(20_000)
    else:
        folder, reason = request.getfixturevalue("mount")(1 << 20), FULL
        (tmp_path / "cache").symlink_to(folder)
        fill(folder, 8 * PAGE)
    # The room was there when it was asked for.
    free = shutil.disk_usage(tmp_path)._replace(free=1 << 40)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: free)
    with limit:
        done = inside(script, faces, tmp_path, *options)
    assert_one_line(script, done.status, done.err, "cache: can't hold ", reason)
    assert [name for name in names(folder) if name != "fill" and not name.endswith(".lock")] == []
    assert not list((tmp_path / "runs" / "a").glob("*.pth"))
