"""What the benchmarks start as commands and in fresh processes, the tests run in this process."""

import contextlib
import importlib
import io
import itertools
import sys
import time

import pytest

from benchmarks import gpu, growth, measure, peer_points, starts
from datasets.synthetic import generate


@pytest.fixture(scope="session")
def faces(tmp_path_factory):
    """Draw the root of a CelebA layout with 4 images of each kind."""
    out = tmp_path_factory.mktemp("faces")
    return generate(out, images=4, mafl_train=4, mafl_test=4, workers=1)[0]


@pytest.fixture
def run_here(monkeypatch):
    """Return `run_command` without the seconds of importing torch again; pytest alone has them."""
    monkeypatch.setattr("datasets.synthetic.available_cores", lambda: 1)

    def run(words, folder, may_fail=False):
        if "pytest" in words:
            return measure.run_command(words, folder, may_fail)
        script, *options = map(str, words[1:] if words[0] == "-m" else words)
        name = script.removeprefix(f"{measure.ROOT}/").removesuffix(".py").replace("/", ".")
        printed, begun = io.StringIO(), time.perf_counter()
        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
            patch.chdir(folder)
            patch.setattr(sys, "argv", [script, *options])
            importlib.import_module(name).main()
        return printed.getvalue(), time.perf_counter() - begun

    return run


@pytest.fixture
def print_of(run_here, monkeypatch, capsys):
    """Return what runs a benchmark by its name and options, and returns what it prints."""
    for module in (gpu, growth, peer_points, starts):
        monkeypatch.setattr(module, "run_command", run_here)
    for module in (growth, measure):
        monkeypatch.setattr(
            module, "marks_of", lambda call, *given: measure.take_marks(call, given)
        )
    # That of this process may not grow any more.
    monkeypatch.setattr(measure, "highest_memory", itertools.count(1).__next__)

    def run(name, *options):
        monkeypatch.setattr(sys, "argv", [name, *map(str, options)])
        importlib.import_module(f"benchmarks.{name}").main()
        return capsys.readouterr().out

    return run
