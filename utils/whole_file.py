"""Files that are there as a whole or not at all."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO


def to_disk(file: BinaryIO) -> None:
    """Wait until a file's content would outlive a power cut."""
    file.flush()
    os.fsync(file.fileno())


def write_whole(path: Path, write: Callable[[BinaryIO], None]) -> None:
    """Write a file beside its place, then rename: a kill leaves the old one whole.

    Args:
        path: the file.
        write: writes its content; an exception of it, or of the file system, is let through.
    """
    temporary = None
    try:
        with tempfile.NamedTemporaryFile(
            dir=path.parent, prefix=f".{path.name}.", delete=False
        ) as file:
            temporary = Path(file.name)
            write(file)
            to_disk(file)
        temporary.replace(path)
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
