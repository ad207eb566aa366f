"""The GPU's benchmark runs for a moment on a CPU, and goes on where it stopped."""

import contextlib
import importlib
import io
import json
import sys
import time

import pytest

from benchmarks import gpu
from utils.errors import InputError


def start(monkeypatch, out, *more):
    monkeypatch.setattr(
        sys, "argv", ["gpu", "--short", "--device", "cpu", "--out", str(out), *more]
    )
    gpu.main()


def run_here(script, options, folder, launcher):
    """Run a script in this process, which spares it the seconds of importing torch."""
    assert not launcher  # that is of a GPU's machine
    printed, begun = io.StringIO(), time.perf_counter()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.chdir(folder)
        patch.setattr(sys, "argv", [script, *map(str, options)])
        importlib.import_module(script.removesuffix(".py")).main()
    return printed.getvalue(), time.perf_counter() - begun


def test_all_parts_are_measured_and_written(tmp_path, monkeypatch, capsys):
    # bf16 takes many times as long where a processor has no instructions for it.
    steps = {name: gpu.STEPS[name] for name in ("step, float32", "dense step, float32")}
    monkeypatch.setattr(gpu, "STEPS", steps)
    monkeypatch.setattr(gpu, "WAYS", {"train_moco.py, float32": "--nce_k 4 --image_cache"})
    monkeypatch.setattr(gpu, "TESTS", ["tests/models/test_nce.py"])  # none of which needs a GPU
    monkeypatch.setattr(gpu, "run_command", run_here)
    start(monkeypatch, tmp_path)
    parts = json.loads((tmp_path / "gpu.json").read_text())["parts"]
    assert parts["images"]["drawn"] == 4 and "deselected" in parts["CUDA tests"]["result"]
    speed = parts["step, float32"]["images/s"]
    assert speed > 0 and parts["dense step, float32"]["images/s"] > 0
    way = parts["train_moco.py, float32"]
    assert way["images/s"] > 0 and way["share of the step's speed"] == way["images/s"] / speed
    assert parts["views alone"]["cpu views/s"] > 0 and parts["views alone"]["Pillow views/s"] > 0
    assert parts["curve, 1 epochs"]["steps"] == 1 and parts["curve, 1 epochs"]["error %"] > 0
    assert parts["regressor"]["error %"] > 0 and parts["ridge"]["error %"] > 0
    text = (tmp_path / "gpu.md").read_text()
    assert f"| ridge | seconds {parts['ridge']['seconds']:,.2f}" in text

    # Whatever is there isn't measured again, and another setting isn't mixed in.
    def fail(*arguments, **options):
        raise AssertionError("measured again")

    for part in ("run_command", "seconds_of", "generate"):
        monkeypatch.setattr(gpu, part, fail)
    monkeypatch.setattr(gpu.subprocess, "run", fail)
    start(monkeypatch, tmp_path)
    assert json.loads((tmp_path / "gpu.json").read_text())["parts"] == parts
    with pytest.raises(InputError, match="other options"):
        start(monkeypatch, tmp_path, "--data_folder", str(tmp_path))


def test_ways_of_a_gpu_are_those_of_the_scripts():
    """Each way's flags are its script's, and its share is of a step that is timed."""
    for name, flags in gpu.WAYS.items():
        script = name.split(",")[0]
        parser = importlib.import_module(script.removesuffix(".py")).build_parser()
        parser.parse_args([*flags.split(), "--model_path", "runs", "--model_name", "a"])
        parts = dict.fromkeys(gpu.STEPS, {"images/s": 2.0})
        parts[name] = {"images/s": 1.0}
        gpu.add_share(name, parts)
        compiled = "--compile" in flags
        assert parts[name].get("share of the step's speed") == (None if compiled else 0.5)
