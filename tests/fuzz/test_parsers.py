"""Damaged files: read or refused in one line that names them; nothing hangs, nothing is written."""

import resource
import shutil
import signal
import warnings
from contextlib import contextmanager

import hypothesis
import pytest

from data_loader.readers.annotation_files import CONTROL
from tests.fuzz.mutations import damaged
from tests.fuzz.parsers import PARSERS
from utils.errors import InputError

EXAMPLES = 40
PATIENCE = 20  # seconds a file; a busy machine is slow, a loop without end is slower
MEMORY = 2**20  # KiB that all files of a parser together may take more than before


class Hangs(BaseException):
    """Not one of those that a parser may catch."""


@contextmanager
def watched(seconds: int):
    def stop(*_):
        raise Hangs

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def stand(folder) -> dict:
    """Return what tells a file that was touched, for all in a folder."""
    files = {path: path.lstat() for path in folder.rglob("*")}
    return {path: (s.st_ino, s.st_size, s.st_mtime_ns, s.st_mode) for path, s in files.items()}


@pytest.fixture
def settings(request):
    """Return how to draw: always the same few, or as many as --fuzz says."""
    examples, seed = (request.config.getoption(name) for name in ("--fuzz", "--fuzz_seed"))
    common = {"database": None, "deadline": None, "print_blob": bool(examples)}
    checks = list(hypothesis.HealthCheck)
    settings = hypothesis.settings(
        **common,
        max_examples=examples or EXAMPLES,
        derandomize=not examples,
        suppress_health_check=checks,
    )
    return lambda test: settings(hypothesis.seed(seed)(test) if examples else test)


@pytest.mark.parametrize("name", PARSERS)
def test_damage_is_refused_in_one_line(tmp_path, settings, name, capfd):
    parser = PARSERS[name]
    folder = tmp_path / "data"
    folder.mkdir()
    target = parser.write(folder)
    whole = target.read_bytes()
    parser.read(folder)  # the good file is read
    shutil.rmtree(folder / "out", ignore_errors=True)

    def check(content):
        target.write_bytes(parser.seal(content, whole))
        before = stand(tmp_path)
        with watched(PATIENCE), warnings.catch_warnings(record=True) as leaks:
            warnings.simplefilter("always")
            try:
                parser.read(folder)
            except InputError as error:
                message = str(error)
                assert len(message.splitlines()) == 1 and not CONTROL.search(message), message
                assert str(folder) in message and len(message) < 9000, message
        assert not leaks, leaks[0]
        shutil.rmtree(folder / "out", ignore_errors=True)
        after = stand(tmp_path)
        before[folder] = after[folder]  # a folder unpacked into and removed leaves its time
        assert after == before

    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    strategy = damaged(parser.inside(whole), parser.text)
    settings(hypothesis.given(strategy)(check))()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < MEMORY
    assert capfd.readouterr().err == ""
