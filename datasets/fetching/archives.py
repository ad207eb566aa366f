"""Archives: unpacking tar, tar.gz and zip files."""

import posixpath
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from utils.errors import InputError
from utils.files import reason


def unpack(archive: Path, folder: Path, only: str = "") -> None:
    """Unpack a tar, tar.gz or zip file into a folder; the content tells which it is.

    Nothing is written outside of the folder: `zipfile` and the filter of `tarfile` see to that.

    Args:
        archive: the file.
        folder: where to; keeps what is there when something goes wrong.
        only: write just what lies below this folder of the archive, like ``images/birds``.

    Raises:
        InputError: if the archive is none or damaged, or leads out of the folder; or the disk
            fails.
    """
    try:
        for name, extract in tqdm(_entries(archive), "unpacking", unit=" entries", disable=None):
            if f"{posixpath.normpath(name)}/".startswith(only and f"{only}/"):
                extract(path=folder)
    except (OSError, tarfile.FilterError) as error:
        raise InputError(f"{archive}: cannot unpack: {reason(error)}") from error
    except Exception as error:  # the libraries raise whatever a damaged header makes them
        raise InputError(
            f"{archive}: not a whole tar, tar.gz or zip file ({reason(error)})"
        ) from error


def _entries(archive: Path) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Yield the names of the entries, and what writes each of them."""
    if not tarfile.is_tarfile(archive):
        with zipfile.ZipFile(archive) as packed:  # a link becomes a file that names its target
            for entry in packed.infolist():
                yield entry.filename, partial(packed.extract, entry)
        return
    with tarfile.open(archive) as tar:
        while (member := tar.next()) is not None:
            # Else it keeps a kilobyte for each of a million entries.
            tar.members.clear()  # type: ignore[attr-defined]
            yield member.name, partial(tar.extract, member, filter="data")
        file: Any = tar.fileobj
        file.seek(tar.offset)  # tarfile takes a damaged header, too, for the end
        if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError("damaged or cut off")
