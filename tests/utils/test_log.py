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
