"""The GPU's benchmark runs for a moment on a CPU, and goes on where it stopped."""

import json
import sys

import pytest

from benchmarks import gpu
from utils.errors import InputError


def start(monkeypatch, out, *more):
    monkeypatch.setattr(
        sys, "argv", ["gpu", "--short", "--device", "cpu", "--out", str(out), *more]
    )
    gpu.main()


def test_all_parts_are_measured_and_written(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gpu, "WAYS", {"bf16": "--amp bf16 --nce_k 4 --image_cache"})
    monkeypatch.setattr(gpu, "DENSE_WAYS", {})  # the curve runs train_dense.py
    start(monkeypatch, tmp_path)
    parts = json.loads((tmp_path / "gpu.json").read_text())["parts"]
    assert "skipped" in parts["CUDA tests"]["result"] or "passed" in parts["CUDA tests"]["result"]
    for name in ("step, bf16", "dense step, bf16", "train_moco.py, bf16"):
        assert parts[name]["images/s"] > 0
    assert parts["train_moco.py, bf16"]["share of the step's speed"] > 0
    assert parts["views alone"]["cpu views/s"] > 0 and parts["views alone"]["Pillow views/s"] > 0
    assert parts["curve, 1 epochs"]["steps"] == 1 and parts["curve, 1 epochs"]["error %"] > 0
    assert parts["regressor"]["error %"] > 0 and parts["ridge"]["error %"] > 0
    assert (
        f"| ridge | seconds {parts['ridge']['seconds']:,.2f}" in (tmp_path / "gpu.md").read_text()
    )

    # Whatever is there isn't measured again, and another setting isn't mixed in.
    def fail(*arguments, **options):
        raise AssertionError("measured again")

    for part in ("run", "run_tests", "time_step", "time_dense_step", "time_views", "draw"):
        monkeypatch.setattr(gpu, part, fail)
    start(monkeypatch, tmp_path)
    assert json.loads((tmp_path / "gpu.json").read_text())["parts"] == parts
    with pytest.raises(InputError, match="other options"):
        start(monkeypatch, tmp_path, "--data_folder", str(tmp_path))
