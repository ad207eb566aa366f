"""Files that are there as a whole or not at all."""

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from utils.errors import InputError

UNFINISHED = ".unfinished"  # ends the names of files that haven't taken their place


def to_disk(file: BinaryIO) -> None:
    """Wait until a file's content would outlive a power cut."""
    file.flush()
    os.fsync(file.fileno())


def write_whole(
    path: Path, write: Callable[[BinaryIO], None], before: Callable[[], None] | None = None
) -> None:
    """Write a file beside its place, then rename: a kill leaves the old one whole.

    Args:
        path: the file.
        write: writes its content; an exception of it, or of the file system, is let through.
        before: is called when all is written, just before the file takes its place.
    """
    # Not by tempfile, whose files are their owner's alone.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{UNFINISHED}")
    try:
        with temporary.open("xb") as file:
            write(file)
            to_disk(file)
        if before is not None:
            before()
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_file_whole(path: Path, write: Callable[[BinaryIO], None]) -> None:
    """Write a file by `write_whole`.

    Raises:
        InputError: if it can't be written; names the file.
    """
    with writing(path):
        write_whole(path, write)


def write_text_whole(path: Path, text: str) -> None:
    """Write a text file as `write_file_whole` does."""
    write_file_whole(path, lambda file: file.write(text.encode()))


@contextmanager
def writing(path: Path | str) -> Iterator[None]:
    """Turn what a file system says, a full one above all, into an `InputError` with the name."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{path}: can't write it ({error.strerror or error})") from None


def remove_unfinished(folder: Path) -> None:
    """Remove what runs that were killed while writing left in a folder that no other run uses."""
    for path in folder.glob(f".*{UNFINISHED}"):
        path.unlink(missing_ok=True)
