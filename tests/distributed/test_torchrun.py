"""Processes under torchrun compute what one process does, hold the same, and survive each other.

``KILLS=10 pytest -s --slow tests/distributed`` kills processes of each kind of run that often;
once by default, and of one kind.
"""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from random import Random

import numpy as np
import pytest
import torch

from datasets.synthetic import generate
from tests.data_loader.shard_files import image, write_shards, write_tar
from tests.recipes import ROOT
from tests.scripts.running import assert_same_tensors, start_process, succeed, tensors_of
from utils.checkpoint import load_checkpoint

KILLS = int(os.environ.get("KILLS", "1"))
EPOCHS = 1 + 2 * KILLS  # enough for a run to outlive them
LONG = pytest.mark.slow
pytestmark = pytest.mark.usefixtures("one_thread")
TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]
KEEP_RANKS = "tests/distributed/keep_ranks.py"
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
if sys.platform == "linux":
    ENVIRONMENT["GLOO_SOCKET_IFNAME"] = "lo"  # whatever the machine's name stands for
FRAME = "--image_size 72 --image_crop 4 --model resnet18 --num_workers 1 --print_freq 1 "
MOCO = FRAME + "--batch_size 8 --nce_k 20 --cosine --model_path runs "
MOCO += f"--epochs {EPOCHS} "
# At the default rate, rounding grows too fast to compare a run with another's arithmetic.
SLOWLY = "--learning_rate 0.0001 "
DENSE = FRAME + "--batch_size 8 --places 16 --epochs 2 --model_path runs --warmup_steps 0 "
DENSE += "--amp off "
EYES = FRAME + (
    "--batch_size 4 --random_network --layer 4 --use_hypercol --adam --learning_rate 0.01 "
    "--epochs 2 --model_path runs --feature_cache disk "
)


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    """17 images to pre-train on: of two ranks, the second has none in the last batch."""
    out = tmp_path_factory.mktemp("faces")
    generate(out, images=17, mafl_train=9, mafl_test=5, workers=1)
    return out / "celeba"


def start(launcher, script, options, faces, cwd, **variables):
    given = f"--data_folder {faces} {options}".split()
    variables = {**ENVIRONMENT, **variables}
    return start_process(script, *given, cwd=cwd, launcher=launcher, variables=variables)


def inside(script, options, faces, cwd):
    """Run a script without torchrun, in this process; return what it prints."""
    return succeed(script, "--data_folder", faces, *options.split(), cwd=cwd).out


def finish(run, status=0):
    out, _ = run.communicate(timeout=300)
    assert run.returncode == status, out
    return out


def torchrun(count, *options):
    return [*TORCHRUN, "--nproc_per_node", str(count), *options]


@pytest.mark.parametrize("count", [pytest.param(2, marks=LONG), 3])
def test_collectives_are_those_of_one_process(count, tmp_path, faces):
    run = subprocess.run(
        [*torchrun(count), str(ROOT / "tests/distributed/collectives.py")],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, **ENVIRONMENT},
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout == "all equal\n" * count


@pytest.fixture(scope="module")
def two_ranks(faces, tmp_path_factory):
    """Return the folder of a run by two processes, and what it printed."""
    cwd = tmp_path_factory.mktemp("two")
    options = MOCO + SLOWLY + "--model_name two"
    return cwd, finish(start(torchrun(2), KEEP_RANKS, options, faces, cwd))


def test_both_ranks_hold_the_same(two_ranks):
    cwd, _ = two_ranks
    first, second = (cwd / f"runs/two_rank{r}.pth" for r in (0, 1))
    assert_same_tensors(tensors_of(first), tensors_of(second))
    assert_same_tensors(tensors_of(first), tensors_of(cwd / "runs/two/current.pth"))
    a, b = (torch.load(path, weights_only=False) for path in (first, second))
    assert a["queue_index"] == b["queue_index"] == EPOCHS * 17 % 20
    assert torch.equal(a["torch"], b["torch"])


def test_two_processes_compute_what_one_does_on_two_gpus(two_ranks, faces, tmp_path):
    """Of the virtual kind, whose split and ShuffleBN are DataParallel's."""
    cwd, out = two_ranks
    options = MOCO + SLOWLY + "--model_name one --virtual_gpus 2"
    alone = inside("train_moco.py", options, faces, tmp_path)
    found, wanted = (
        tensors_of(cwd / "runs/two/current.pth"),
        tensors_of(tmp_path / "runs/one/current.pth"),
    )
    for (part, key), tensor in wanted.items():
        # BatchNorm's own averages, of no use in training, are of both shares there.
        if "running_" not in str(key) and "num_batches_tracked" not in str(key):
            assert torch.allclose(found[part, key], tensor, rtol=1e-3, atol=2e-5), (part, key)
    lines = [re.findall(r"epoch .*step.*", text) for text in (out, alone)]
    assert len(lines[0]) == EPOCHS * 3 and lines[0] == lines[1]  # once, by the first rank
    assert (cwd / "runs/two/log.jsonl").read_text().count("\n") == EPOCHS


@pytest.fixture(scope="module")
def dense_ranks(faces, tmp_path_factory):
    """Return the folder of a run of train_dense.py by two processes."""
    cwd = tmp_path_factory.mktemp("dense")
    options = DENSE + SLOWLY + "--model_name two"
    finish(start(torchrun(2), KEEP_RANKS, options, faces, cwd, SCRIPT="train_dense"))
    return cwd


def test_both_ranks_of_dense_contrast_hold_the_same(dense_ranks):
    first, second = (tensors_of(dense_ranks / f"runs/two_rank{r}.pth") for r in (0, 1))
    assert {part for part, _ in first} >= {"model", "head"}
    assert_same_tensors(first, second)
    assert_same_tensors(first, tensors_of(dense_ranks / "runs/two/current.pth"))


@pytest.mark.parametrize(
    ("count", "sharded"),
    [(2, False), pytest.param(2, True, marks=LONG), pytest.param(3, False, marks=LONG)],
)
def test_killed_ranks_change_nothing(count, sharded, two_ranks, faces, tmp_path):
    options = MOCO + SLOWLY + f"--batch_size {4 * count} "
    if (count, sharded) == (2, False):
        data, whole = faces, two_ranks[0] / "runs/two"
    else:
        data, whole = (
            write_shards(tmp_path, [5, 7, 5]) if sharded else faces,
            tmp_path / "runs/whole",
        )
        options += "--dataset InatAve " * sharded
        named = options + "--model_name whole"
        finish(start(torchrun(count), "train_moco.py", named, data, tmp_path))
    # Saves after every step.
    killed = options + "--model_name killed --resume auto --save_minutes 0.0001"
    launcher = torchrun(count, "--max-restarts", str(KILLS))
    run, chance, out = start(launcher, "train_moco.py", killed, data, tmp_path), Random(count), ""
    for resumed in range(KILLS):
        steps = out.count("  step ") + chance.randint(1, 5)
        saved = tmp_path / "runs/killed/current.pth"
        while (
            out.count("resumed from") < resumed
            or out.count("  step ") < steps
            or not saved.exists()
        ):
            line = run.stdout.readline()
            assert line, out
            out += line
        time.sleep(chance.uniform(0, 0.3))
        os.kill(worker_of(run, chance.randrange(count)), signal.SIGKILL)
    out += finish(run)
    resumed = out.count("resumed from runs/killed/")
    print(f"{count} processes, shards: {sharded}: {KILLS} kills, {resumed} resumptions")
    assert resumed == KILLS and "Traceback" not in out, out
    killed = tmp_path / "runs/killed"
    assert_same_tensors(tensors_of(whole / "current.pth"), tensors_of(killed / "current.pth"))
    assert (whole / "log.jsonl").read_text() == (killed / "log.jsonl").read_text()


def worker_of(run, rank):
    """Return the process of a rank if this torchrun has started it."""
    for child in children(run.pid):
        variables = open(f"/proc/{child}/environ").read().split("\0")
        if f"RANK={rank}" in variables:
            return child
    return None


def children(pid):
    return [int(p) for p in open(f"/proc/{pid}/task/{pid}/children").read().split()]


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=LONG)], ids=lambda n: n.name
)
def test_a_signal_to_torchrun_saves_the_step(number, faces, tmp_path):
    options = MOCO + "--model_name ended --resume auto --epochs 50"
    run = start(torchrun(2), "train_moco.py", options, faces, tmp_path)
    out = ""
    while "epoch 2  step 2" not in out:
        out += run.stdout.readline()
    run.send_signal(number)
    out += run.communicate(timeout=60)[0]
    assert run.returncode != 0
    assert f"{number.name}: finishing what is under way, then saving" in out
    content = load_checkpoint(tmp_path / "runs/ended/current.pth", ())
    steps = content["epoch"] * 3 + content["progress"]["steps"]
    assert steps == len(re.findall("step ./3", out)) >= 5


def test_the_encoding_pass_is_shared(faces, tmp_path):
    named = {
        name: f"{EYES} --model_name {name} --cache_folder {name}_cache"
        for name in ("alone", "shared")
    }
    shared = start(torchrun(2), "eval_face.py", named["shared"], faces, tmp_path)
    for out in (inside("eval_face.py", named["alone"], faces, tmp_path), finish(shared)):
        assert out.count("after the last epoch (2)") == 1
        assert out.count("encoded in") == 2
    for found, wanted in zip(
        *(sorted(tmp_path.glob(f"{name}_cache/*/*.npy")) for name in ("shared", "alone")),
        strict=True,
    ):
        assert found.relative_to(tmp_path / "shared_cache") == wanted.relative_to(
            tmp_path / "alone_cache"
        )
        assert np.allclose(np.load(found), np.load(wanted), rtol=1e-4, atol=1e-5), found
    again = inside("eval_face.py", named["shared"] + " --overwrite", faces, tmp_path)
    assert again.count("found in shared_cache") == 2


@pytest.mark.parametrize("more", ["", pytest.param("--amp bf16 --augment device", marks=LONG)])
def test_bad_images_are_replaced_alike_in_all_ranks(more, tmp_path):
    files = [(f"{i:03}.jpg", b"text" if i in (70, 90) else image(i)) for i in range(200)]
    shards = write_tar(tmp_path / "birds.tar", files)
    options = f"{MOCO} --dataset InatAve --batch_size 100 --epochs 1 --on_bad_image skip {more}"
    options += " --model_name bad --image_size 40"
    out = finish(start(torchrun(2), KEEP_RANKS, options, shards, tmp_path))
    assert_same_tensors(*(tensors_of(tmp_path / f"runs/bad_rank{r}.pth") for r in (0, 1)))
    listed = (tmp_path / "runs/bad/bad_images.txt").read_text().splitlines()
    names = sorted(line.split("\t")[0] for line in listed)
    assert names == [f"{shards}/{i:03}.jpg" for i in (70, 90)]
    assert out.count("2 of 200 images can't be read so far") == 1  # by the first rank


def test_machines_with_other_images_are_told_apart(faces, tmp_path):
    """Two processes with a folder each, as if on two machines."""
    script = tmp_path / "elsewhere.py"
    script.write_text(
        "import os, sys, train_moco\n"
        "from utils.script import run_script\n"
        "os.chdir(os.environ['RANK'])\n"
        "run_script(train_moco.main)\n"
    )
    for rank, count in (("0", 5), ("1", 4)):
        (tmp_path / rank / "birds" / "a").mkdir(parents=True)
        for i in range(count):
            (tmp_path / rank / "birds" / "a" / f"{i}.jpg").write_bytes(image(i))
    options = MOCO + "--dataset InatAve --model_name x"
    out = finish(start(torchrun(2), script, options, "birds", tmp_path), status=1)
    assert out.count("not the images, or annotations, that the first process has") == 1


@pytest.mark.slow
def test_two_machines_start_again_together(faces, tmp_path):
    """Two torchruns on one machine, of which one is slow to start its process again."""
    slow = tmp_path / "slow.py"
    slow.write_text(
        "import os, time, train_moco\n"
        "from utils.script import run_script\n"
        "if os.environ['RANK'] == '0' and os.path.exists('runs/two/current.pth'):\n"
        "    time.sleep(6)\n"
        "run_script(train_moco.main)\n"
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = f"127.0.0.1:{free.getsockname()[1]}"
    meet = ["--nnodes", "2", "--rdzv_backend", "c10d", "--rdzv_endpoint", place, "--rdzv_id", "t"]
    launcher = torchrun(1, "--max-restarts", "3", *meet)
    options = MOCO + "--resume auto --save_minutes 0.0001 --model_name two"
    runs = [start(launcher, slow, options, faces, tmp_path) for _ in range(2)]
    for out in (run.communicate(timeout=300)[0] for run in runs):
        assert "set TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1" in out or "error" not in out
    os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    try:
        runs = [start(launcher, slow, options, faces, tmp_path) for _ in range(2)]
    finally:
        del os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"]
    while not (tmp_path / "runs/two/current.pth").exists():
        time.sleep(0.05)
        assert all(run.poll() is None for run in runs)
    second = next(run for run in runs if worker_of(run, 1) is not None)
    os.kill(worker_of(second, 1), signal.SIGKILL)
    out = "".join(finish(run) for run in runs)
    assert "resumed from runs/two/current.pth" in out and f"epoch {EPOCHS}/{EPOCHS}" in out
    whole = MOCO + "--model_name whole"
    finish(start(torchrun(2), "train_moco.py", whole, faces, tmp_path))
    assert_same_tensors(
        *(tensors_of(tmp_path / f"runs/{name}/current.pth") for name in ("two", "whole"))
    )


@pytest.mark.parametrize(
    ("script", "options", "complaint"),
    [
        pytest.param(
            "train_moco.py",
            MOCO + "--model_name x --batch_size 5",
            "--batch_size 5: not a multiple of the 2 processes that torchrun started",
            marks=LONG,
        ),
        (
            "train_moco.py",
            MOCO + "--model_name x --resume none.pth",
            "none.pth: no such checkpoint",
        ),
        pytest.param("eval_face.py", EYES + "--model_name x --layer 9", "--layer", marks=LONG),
        pytest.param(
            *("eval_face.py", EYES + "--model_name x --data_folder nowhere"),
            "nowhere: no such folder",
            marks=LONG,
        ),
    ],
)
def test_a_mistake_is_named_once(script, options, complaint, faces, tmp_path):
    started = time.monotonic()
    out = finish(start(torchrun(2), script, options, faces, tmp_path), status=1)  # torchrun's
    said = [line for line in out.splitlines() if f"{script}: error: " in line]
    assert len(said) == 1 and complaint in said[0]
    assert time.monotonic() - started < 60 and not (tmp_path / "runs/x").exists()
