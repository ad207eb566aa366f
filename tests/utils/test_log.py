"""Tests of a run's log."""

from utils.log import RunLog


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
