"""Tests of a run's log."""

import itertools

import pytest

import utils.log
from utils.log import RunLog, in_minutes, progress


def test_lines_are_kept_until_the_log_is_opened(tmp_path, capsys):
    log, path = RunLog(), tmp_path / "runs" / "log"
    log.line("one", "two")
    log.line()
    assert capsys.readouterr().out == ""
    log.open(path, heading="what runs")
    log.line("three")
    assert path.read_text() == capsys.readouterr().out == "what runs\none\ntwo\nthree\n"


def test_no_name_reaches_the_terminal_raw(tmp_path, capsys):
    log = RunLog()
    log.open(tmp_path / "log")
    log.line("skipped: \x1b[2Jé\udce9")
    assert capsys.readouterr().out == "skipped: \\x1b[2Jé\\udce9\n"
    assert (tmp_path / "log").read_text(encoding="utf-8") == "skipped: \\x1b[2Jé\\udce9\n"


class Unsized:
    """Items that say how many they are only by an error, as a loader of a stream does."""

    def __iter__(self):
        return iter("abcd")

    def __len__(self):
        raise TypeError("no len()")


@pytest.mark.parametrize(
    ("items", "total", "said"),
    [
        ("abcd", None, ["work: 2 of 4, 24 s left", "work: 3 of 4, 11 s left"]),
        (iter("abcd"), 5, ["work: 2 of 5, 36 s left", "work: 3 of 5, 21 s left"]),
        (Unsized(), None, ["work: 2", "work: 3"]),
    ],
)
def test_off_a_terminal_a_line_now_and_then_tells_the_time_left(
    monkeypatch, capsys, items, total, said
):
    clock = itertools.count(0, 8)  # seconds: read at the start, then once an item
    monkeypatch.setattr(utils.log.time, "perf_counter", lambda: next(clock) - 8.0)
    monkeypatch.setattr(utils.log, "LINE_SECONDS", 8)
    assert "".join(progress(items, "work", total)) == "abcd"
    assert capsys.readouterr().err.splitlines()[-2:] == said


def test_times_are_told_in_words():
    assert [in_minutes(s) for s in (0.4, 99, 120, 7200)] == ["0 s", "99 s", "2 min", "2.0 h"]
