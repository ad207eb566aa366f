"""Commands that log to a file, and end when this program is told to end."""

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from utils.files import writing

GRACE = 10  # seconds from SIGTERM to SIGKILL


def run_logged(command: list[str], log_path: Path, lock: int) -> int:
    """Run a command and return its exit status; it ends when this program ends.

    Args:
        command: its output is dropped (the scripts log it themselves), its errors are kept.
        log_path: file that the errors are appended to.
        lock: file descriptor of a lock, which the command inherits.
    """
    with writing(log_path):
        log_path.parent.mkdir(parents=True, exist_ok=True)
        log = log_path.open("a")
    with log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log,
            pass_fds=(lock,),
        )
        try:
            return process.wait()
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process that still runs: by SIGTERM, and by SIGKILL if that takes too long."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(GRACE)
        except BaseException as error:  # too slow, or a second Ctrl-C
            process.kill()
            process.wait()
            if not isinstance(error, subprocess.TimeoutExpired):
                raise


@contextmanager
def ending_on_sigterm() -> Iterator[None]:
    """Let SIGTERM end the program as Ctrl-C does, with status 143."""

    def stop(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    previous = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
