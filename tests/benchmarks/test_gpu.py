"""The GPU's benchmark runs for a moment on a CPU, and goes on where it stopped."""

import importlib
import json
import shlex

import pytest

from benchmarks import augmentation, gpu, limits
from utils.errors import InputError


def test_all_parts_are_measured_and_written(tmp_path, monkeypatch, print_of):
    monkeypatch.setattr(gpu, "WAYS", ["train_moco.py --amp off --nce_k 4 --image_cache"])
    monkeypatch.setattr(gpu, "TESTS", "tests/models/test_nce.py")  # none of which needs a GPU
    # bf16 takes many times as long where a processor has no instructions for it.
    all_commands = gpu.commands

    def quick(*arguments):
        found = all_commands(*arguments)
        skipped = ("bf16", "--random_network --regressor ridge")  # the curve has a ridge readout
        return {name: c for name, c in found.items() if not any(flags in c for flags in skipped)}

    monkeypatch.setattr(gpu, "commands", quick)
    options = ["--short", "--device", "cpu", "--out", tmp_path]
    printed = print_of("gpu", *options)
    parts = json.loads((tmp_path / "gpu.json").read_text())["parts"]
    text = (tmp_path / "gpu.md").read_text()
    for name, figures in {
        "images": "images/s",
        "CUDA tests": "deselected",
        "steps": "train_dense.py, --amp off: ",
        "views alone": "whole batch, cpu",
        gpu.WAYS[0]: "images/s; ",
        "regressor": "InterOcularError ",
        "curve, 1 epochs": "images/s; ",
        "curve, 1 epochs, error": "InterOcularError ",
    }.items():
        assert figures in parts[name] and f"| {name} | {parts[name]} |" in text
        assert f"{name}: {parts[name]}" in printed

    # Whatever is there isn't measured again, and another setting isn't mixed in.
    def fail(*arguments):
        raise AssertionError("measured again")

    monkeypatch.setattr(gpu, "run_command", fail)
    print_of("gpu", *options)
    assert json.loads((tmp_path / "gpu.json").read_text())["parts"] == parts
    with pytest.raises(InputError, match="other options"):
        print_of("gpu", *options, "--data_folder", tmp_path)


def test_commands_of_a_gpu_are_those_of_the_scripts(tmp_path, monkeypatch, print_of):
    """Each command's flags are its script's or its benchmark's."""

    class ParsedError(Exception):
        """The benchmark took its flags."""

    def stop(*arguments):
        raise ParsedError

    for benchmark in (limits, augmentation):
        monkeypatch.setattr(benchmark, "choose_device", stop)
    for command in gpu.commands(str(tmp_path), tmp_path, "cuda", False).values():
        words = shlex.split(command)
        if "benchmarks." in command:
            with pytest.raises(ParsedError):
                print_of(words[1].removeprefix("benchmarks."), *words[2:])
        elif "pytest" not in command:
            (script,) = [word for word in words if word.endswith(".py")]
            parser = importlib.import_module(script.removesuffix(".py")).build_parser()
            parser.parse_args(words[words.index(script) + 1 :])
