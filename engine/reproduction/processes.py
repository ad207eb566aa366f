"""Other processes: one that runs a command into a log, and those that want the same folder."""

import fcntl
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from utils.errors import InputError

GRACE = 10  # seconds for a command to end when told to


def run_logged(command: list[str], log_path: Path, lock: IO) -> int:
    """Run a command and return its exit status; it ends when this program is told to.

    Args:
        command: its output is dropped (the scripts log it themselves), its errors are kept.
        log_path: file that the errors are appended to.
        lock: of `only_one`, which the command keeps for as long as it lives.
    """
    try:
        log_path.parent.mkdir(parents=True, exist_ok=True)
        log = log_path.open("a")
    except OSError as error:
        raise InputError(f"{log_path}: can't write there ({error.strerror})") from None
    with log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log,
            pass_fds=(lock.fileno(),),
        )
        try:
            return process.wait()
        finally:
            end(process)


def end(process: subprocess.Popen) -> None:
    """Tell a process to end if it still runs, and make it if it doesn't."""
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

    def stop(number: int, _) -> None:
        raise SystemExit(128 + number)

    previous = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


@contextmanager
def only_one(folder: Path) -> Iterator[IO]:
    """Keep other programs that ask for this lock from working in a folder; wait for one that does.

    Commands inherit the lock: one that outlives a program killed at once is waited for too.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / ".lock").open("a")
    except OSError as error:
        raise InputError(f"{folder}: can't write there ({error.strerror})") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"{folder}: waiting for another program, or a run it left behind", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file
