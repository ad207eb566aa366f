"""The scripts as a user starts them."""

import contextlib
import importlib
import io
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from tests.recipes import ROOT
from utils.script import run_script

PARTS = ("model", "model_ema", "contrast", "head", "regressor")
FRAME = ["--image_size", "72", "--image_crop", "4", "--model", "resnet18", "--num_workers", "0"]


@dataclass
class Done:
    status: int
    out: str
    err: str


def run(script: str, *arguments, cwd: Path) -> Done:
    """Run a script as its own process, in a folder of the test's."""
    command = [sys.executable, str(ROOT / script), *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    return Done(done.returncode, done.stdout, done.stderr)


def start_process(
    script: str | Path, *arguments, cwd: Path, launcher=(sys.executable,), variables=None, **how
) -> subprocess.Popen:
    """Start a script of one thread as its own process group, its two outputs in one pipe.

    ``how`` says more, ``variables`` are added to the environment.
    """
    how = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, **how}
    return subprocess.Popen(
        [*launcher, str(ROOT / script), *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1", **(variables or {})},
        text=True,
        start_new_session=True,
        **how,
    )


def run_inside(script: str, *arguments, cwd: Path) -> Done:
    """Run a script in this process, which spares it the seconds of importing torch."""
    module = importlib.import_module(script.removesuffix(".py").replace("/", "."))
    out, err, status = io.StringIO(), io.StringIO(), 0
    before = os.getcwd(), sys.argv
    os.chdir(cwd)
    sys.argv = [script, *map(str, arguments)]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            run_script(module.main)
    except SystemExit as stop:
        status = stop.code
    finally:
        os.chdir(before[0])
        sys.argv = before[1]
    return Done(status, out.getvalue(), err.getvalue())


def succeed(script: str, *arguments, cwd: Path, start=run_inside) -> Done:
    """Run a script that ends well."""
    done = start(script, *arguments, cwd=cwd)
    assert done.status == 0, done.err
    return done


def refused(script: str, *arguments, cwd: Path) -> str:
    """Return the one line that a script ends with where it refuses what it is asked."""
    done = run_inside(script, *arguments, cwd=cwd)
    assert done.status == 2 and done.err.count("\n") == 1, done.err
    return done.err


def result_of(run: Path) -> dict:
    """Return what a run's folder says that it found."""
    return json.loads((run / "result.json").read_text())


def last_error(run: Path) -> float:
    """Return the error of the last epoch of a run's readout of faces."""
    return result_of(run)["last"]["Test"]["InterOcularError"]


def logged(run: Path) -> list[dict]:
    """Return the records of a run's epochs."""
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def tensors_of(path: Path) -> dict:
    """Return all tensors of a pre-training's or regressor's checkpoint by part and key."""
    content = torch.load(path, weights_only=False)
    parts = {part: content.get(part, {}) for part in PARTS} | content["optimizer"]["state"]
    return {(part, k): torch.as_tensor(v) for part in parts for k, v in parts[part].items()}


def assert_same_tensors(one: dict, other: dict) -> None:
    """Compare two checkpoints' tensors to the bit."""
    assert list(one) == list(other)
    for key, value in one.items():
        assert torch.equal(value, other[key]), key


def assert_same_weights(one: dict, other: dict, parts=("model", "model_ema", "contrast")) -> None:
    """Compare parts of two checkpoints to the bit."""
    for part in parts:
        assert list(one[part]) == list(other[part])
        for key, value in one[part].items():
            assert torch.equal(value, other[part][key]), (part, key)
