"""Locks between processes, and folders of derived data that one of them builds for all."""

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar, cast

from filelock import AcquireReturnProxy, FileLock, Timeout

from utils.errors import InputError
from utils.files import writing

# The reader processes of a run that was killed hold its lock until they notice, after 5 seconds.
LOCK_SECONDS = 8

T = TypeVar("T")
_locks: dict[Path, FileLock] = {}  # of this process's folders, held until it ends


def find_or_build(
    path: Path,
    what: str,
    needed: int,
    find: Callable[[], T | None],
    write: Callable[[Path], None],
    log_line: Callable[[str], None] = print,
) -> tuple[T, bool]:
    """Return the content of a folder, and whether it had to be built.

    It is written under another name and renamed when complete. Runs that start together build it
    once; what a killed run left is removed.

    Args:
        path: the folder; its parent is made.
        what: its content in words, for messages.
        needed: size in bytes.
        find: reads the folder; returns None if it is absent or damaged.
        write: fills an empty folder, and syncs its files to the disk.
        log_line: logs a line, before waiting for another run that is building it.

    Raises:
        InputError: if the parent can't be written or is too small; only a lock is left there.
    """
    if (found := find()) is not None:
        return found, False
    with _writing_into(path.parent, what, needed):
        waiting = f"waiting for another process that builds {what}, {path}"
        with acquire_lock(Path(f"{path}.lock"), waiting, log_line):
            if (found := find()) is not None:  # another run's, by now
                return found, False
            partial = path.with_name(f"{path.name}.partial")
            for remains in (partial, path):  # of a killed run; damaged
                if remains.exists():
                    shutil.rmtree(remains)
            if shutil.disk_usage(path.parent).free < needed:
                raise OSError(errno.ENOSPC, "too little space")
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
    """Sync the names in a folder to the disk, where the system can."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def acquire_lock(
    path: Path, message: str, log_line: Callable[[str], None] = print
) -> AcquireReturnProxy:
    """Lock a file, and return the context that holds the lock; wait for its holder if it has one.

    The file's folder is made; the message is logged before waiting.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        return lock.acquire(timeout=0)
    except Timeout:
        log_line(message)
        return lock.acquire()


def lock_descriptor(held: AcquireReturnProxy) -> int:
    """Return a lock's file descriptor.

    A command that inherits it keeps the lock for as long as it lives, also where the program that
    started it is killed.
    """
    # filelock, from 3.12 to 3.32 at least, has no public name for it.
    return cast(int, held.lock._context.lock_file_fd)  # type: ignore[union-attr]


def lock_folder(folder: Path) -> None:
    """Keep other runs out of a folder until this process ends.

    Raises:
        InputError: if another run writes there, or the folder can't be made.
    """
    folder = folder.absolute()
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if folder in _locks:  # this process writes there already
            return
        lock = FileLock(folder / ".lock")
        try:
            lock.acquire(timeout=LOCK_SECONDS)
        except Timeout:
            raise InputError(f"{folder}: another run writes there") from None
    _locks[folder] = lock


@contextmanager
def _writing_into(folder: Path, what: str, needed: int) -> Iterator[None]:
    try:
        yield
    except (OSError, NotImplementedError) as error:  # the latter: no locks there
        reason = getattr(error, "strerror", None) or str(error)
        message = f"{folder}: can't hold {what} ({reason}): needs {needed:,} bytes"
        with suppress(OSError):
            message += f", {shutil.disk_usage(folder).free:,} are free"
        raise InputError(message) from None
