"""Archives: unpacking tar, tar.gz and zip files."""

import posixpath
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

from utils.errors import InputError
from utils.files import reason


class _Member(tarfile.TarInfo):
    """An entry of a tar file, whose broken header isn't taken for the end of the archive."""

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> "_Member":  # noqa: D102 (tarfile's)
        try:
            return super().fromtarfile(tarfile_)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError("damaged or cut off") from error


def unpack(archive: Path, folder: Path, only: str = "") -> None:
    """Unpack a tar, tar.gz or zip file into a folder; the content tells which it is.

    Nothing is written outside of the folder: `zipfile` and the filter of `tarfile` see to that.

    Args:
        archive: the file.
        folder: where to; keeps what is there when something goes wrong.
        only: write just what lies below this folder of the archive, like ``images/birds``.

    Raises:
        InputError: if the archive is none or damaged, holds something other than files and
            folders, or leads out of the folder; or the disk fails.
    """
    try:
        write = _unpack_tar if tarfile.is_tarfile(archive) else _unpack_zip
        for _ in tqdm(write(archive, folder, only), "unpacking", unit=" entries", disable=None):
            pass
    except InputError:
        raise
    except tarfile.FilterError as error:
        raise InputError(f"{archive}: is refused: {reason(error)}") from error
    except OSError as error:
        raise InputError(f"{archive}: cannot unpack: {reason(error)}") from error
    except Exception as error:  # the libraries raise whatever a damaged header makes them
        raise InputError(
            f"{archive}: not a whole tar, tar.gz or zip file ({reason(error)})"
        ) from error


def _unpack_tar(archive: Path, folder: Path, only: str) -> Iterator[str]:
    """Yield the names of the entries, each of which is written if it is wanted."""
    with tarfile.open(archive, tarinfo=_Member) as tar:
        while (member := tar.next()) is not None:
            # Else it keeps a kilobyte for each of a million entries.
            tar.members.clear()  # type: ignore[attr-defined]
            if member.issparse() or not (member.isreg() or member.isdir()):
                kind = "neither a plain file nor a folder"
                raise InputError(f"{archive}: entry {member.name!r:.99} is refused: it is {kind}")
            if _is_below(only, member.name):
                tar.extract(member, folder, filter="data")
            yield member.name


def _unpack_zip(archive: Path, folder: Path, only: str) -> Iterator[str]:
    """Do the same; a link becomes a file with the name of what it leads to."""
    with zipfile.ZipFile(archive) as packed:
        for entry in packed.infolist():
            if _is_below(only, entry.filename):
                packed.extract(entry, folder)
            yield entry.filename


def _is_below(folder: str, name: str) -> bool:
    return not folder or f"{posixpath.normpath(name)}/".startswith(f"{folder}/")
