"""Folders of derived data: built once, whole or not there, by one of the runs that want them."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from filelock import FileLock, Timeout

from utils.errors import InputError

T = TypeVar("T")


def find_or_build(
    path: Path,
    what: str,
    needed: int,
    find: Callable[[], T | None],
    write: Callable[[Path], None],
    log_line: Callable[[str], None] = print,
) -> tuple[T, bool]:
    """Return what a folder holds, and whether it had to be built.

    It is written under another name and renamed when whole. Runs that start together build it
    once; what a killed run left is thrown away.

    Args:
        path: the folder; its parent is made.
        what: its content in words.
        needed: bytes of it.
        find: reads the folder; returns None if it is absent or damaged.
        write: fills an empty folder; whoever calls sees to it that files reach the disk.
        log_line: is told, at once, if another run is building it.

    Raises:
        InputError: if the parent can't be written or is too small; only a lock is left there.
    """
    if (found := find()) is not None:
        return found, False
    with _writing_into(path.parent, what, needed):
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path, what, log_line):
            if (found := find()) is not None:  # another run's, by now
                return found, False
            partial = path.with_name(f"{path.name}.partial")
            for remains in (partial, path):  # of a killed run; damaged
                if remains.exists():
                    shutil.rmtree(remains)
            if shutil.disk_usage(path.parent).free < needed:
                raise InputError(_space_message(path.parent, what, "too little space", needed))
            partial.mkdir()
            try:
                write(partial)
                partial.rename(path)
                sync_folder(path.parent)
            except BaseException:
                shutil.rmtree(partial, ignore_errors=True)
                raise
        if (found := find()) is None:
            raise InputError(f"{path}: can't read back what was just written")
        return found, True


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder would outlive a power cut, where that can be asked for."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextmanager
def _locked(path: Path, what: str, log_line: Callable[[str], None]) -> Iterator[None]:
    lock = FileLock(f"{path}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log_line(f"waiting for another process that builds {what}, {path}")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _writing_into(folder: Path, what: str, needed: int) -> Iterator[None]:
    try:
        yield
    except (OSError, NotImplementedError) as error:  # the latter: no locks there
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(_space_message(folder, what, reason, needed)) from None


def _space_message(folder: Path, what: str, reason: str, needed: int) -> str:
    message = f"{folder}: can't hold {what} ({reason}): needs {needed:,} bytes"
    with suppress(OSError):
        message += f", {shutil.disk_usage(folder).free:,} are free"
    return message
