"""Files that are there as a whole or not at all."""

import json
import os
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote, unquote

from utils.errors import InputError

UNFINISHED = ".unfinished"  # ends the names of files that haven't taken their place
BEGIN = 40  # characters of a file's name that are in that of its unfinished one
# Of a name, what a line of text, or a cell of it, can't hold; and bytes that aren't UTF-8.
UNWRITABLE = re.compile("[\0-\x1f\x7f-\x9f\u2028\u2029\udc80-\udcff]|^\\s|\\s$")


def fsync(file: BinaryIO) -> None:
    """Wait until a file's content would outlive a power cut."""
    file.flush()
    os.fsync(file.fileno())


@contextmanager
def synced(path: Path) -> Iterator[BinaryIO]:
    """Open a file to be written, and wait in the end until it is on disk."""
    with path.open("wb") as file:
        yield file
        fsync(file)


def write_atomically(
    path: Path, write: Callable[[BinaryIO], object], before: Callable[[], None] | None = None
) -> None:
    """Write a file beside its place, then rename: a kill leaves the old one whole.

    Args:
        path: the file.
        write: writes its content; an exception of it, or of the file system, is let through.
        before: is called when all is written, just before the file takes its place.
    """
    # Not by tempfile, whose files are their owner's alone.
    temporary = path.with_name(f".{path.name[:BEGIN]}.{secrets.token_hex(4)}{UNFINISHED}")
    try:
        with temporary.open("xb") as file:
            write(file)
            fsync(file)
        if before is not None:
            before()
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_file(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file by `write_atomically`.

    Raises:
        InputError: if it can't be written; names the file.
    """
    with writing(path):
        write_atomically(path, write)


def write_text(path: Path, text: str) -> None:
    """Write a text file as `write_file` does."""
    write_file(path, lambda file: file.write(text.encode()))


def read_json(path: Path) -> dict[str, Any]:
    """Return the dict that a JSON file holds; an empty one if it is absent, damaged or no dict."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


@contextmanager
def writing(path: Path | str) -> Iterator[None]:
    """Turn a file system's errors, such as a full disk, into an `InputError` with the name."""
    try:
        yield
    except (OSError, NotImplementedError) as error:  # the latter: a file system without locks
        said = getattr(error, "strerror", None) or error
        raise InputError(f"{path}: can't write it ({said})") from None


def check_output(path: Path, overwrite: bool, flag: str) -> None:
    """Raise an `InputError` that begins with a flag unless a file may be written there."""
    if not path.parent.is_dir():
        raise InputError(f"{flag} {path}: {path.parent}: no such folder")
    if path.is_dir():
        raise InputError(f"{flag} {path}: a folder, expected a file's name")
    if path.exists() and not overwrite:
        raise InputError(f"{flag} {path}: is there already; --overwrite to replace it")


def remove_unfinished(folder: Path) -> None:
    """Remove what runs that were killed while writing left in a folder that no other run uses."""
    for path in folder.glob(f".*{UNFINISHED}"):
        path.unlink(missing_ok=True)


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
        raise kind(f"{path}: {'not a file' if there else fault(path) or absent}")


def fault(path: str | Path) -> str:
    """Return why the system won't look for a path, such as a locked folder; nothing if it does."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except (OSError, ValueError) as error:
        return getattr(error, "strerror", None) or reason(error)
    return ""


def reason(error: Exception | str) -> str:
    """Return what a library's exception says, in one line of at most 200 characters."""
    words = " ".join(str(error).split())
    return words[:200] if words.isprintable() and words else type(error).__name__


def excerpt(text: str | Path) -> str:
    """Return what a file holds, for a message: `printable`, and at most 200 characters of it."""
    return printable(text)[:200]


def printable(text: str | Path) -> str:
    """Return a text, such as a file name, with tabs, line ends and non-Unicode escaped."""
    text = str(text)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def quoted(name: str) -> str:
    """Return a file's name as results and lists hold it; `unquoted` undoes it.

    What a line can't hold is written as in a URL: a line's end as %0A, a byte that isn't UTF-8 as
    %E9, whatever the locale.
    """
    name = name.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")
    return UNWRITABLE.sub(lambda found: quote(found[0], errors="surrogateescape"), name)


def unquoted(text: str) -> str:
    """Return the name of which `quoted` made a text."""
    return unquote(text, errors="surrogateescape")
