"""What all readers of other people's files share: complaints in one line that name the file."""

import os
from pathlib import Path

from utils.errors import InputError


def check_is_file(
    path: str | Path, absent: str = "no such file", kind: type[InputError] = InputError
) -> None:
    """Raise an `InputError` unless a path leads to a plain file; opening a pipe would wait.

    Args:
        path: may be too long for a path, as what a damaged list names.
        absent: what to say if nothing is there.
        kind: of the error.
    """
    if not os.path.isfile(path):
        there = os.path.lexists(path)
        raise kind(f"{path}: {'not a file' if there else absent}")


def reason(error: Exception) -> str:
    """Return what a library's exception says, in one line of at most 200 characters."""
    words = " ".join(str(error).split())
    return words[:200] if words.isprintable() and words else type(error).__name__
