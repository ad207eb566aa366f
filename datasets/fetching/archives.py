"""Archives: unpacking tar, tar.gz and zip files from strangers without trusting a word in them.

An entry is written only if it is a plain file or folder whose name stays inside the target. How
many entries and bytes come out is limited, and all of it goes to a hidden folder beside the target
first, so that the target either is complete or does not exist. Sizes are in bytes.
"""

import gzip
import os
import re
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, BinaryIO, NamedTuple

from tqdm import tqdm

from utils.errors import InputError
from utils.files import check_is_file, reason

MAX_BYTES = 400 * 10**9
MAX_ENTRIES = 1_000_000
# Photographs do not shrink at all and lists of names by about ten; bombs reach a thousand and more.
MAX_RATIO = 100
MAX_DEPTH = 64
# Below this no ratio is alarming: tar alone rounds each tiny file up to a kilobyte.
SMALL = 2**20
# tarfile reads a long name or extended header in one gulp, whatever length the header claims.
MAX_HEADER = 16 * 2**20
CHUNK = 2**20
GZIP_MAGIC = b"\x1f\x8b"
ZIP_MAGIC = (b"PK\x03\x04", b"PK\x05\x06")
ZIP_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # others may ask for gigabytes to unpack


class _Entry(NamedTuple):
    name: str
    refused: str | None  # what it is, if neither file nor folder
    is_folder: bool
    source: Any  # the library's own record, with which to open it


class _Meter:
    """A readable stream that stops at ``limit`` bytes and at absurd single reads."""

    def __init__(self, stream: IO[bytes] | gzip.GzipFile, limit: int):
        self.stream, self.limit = stream, limit
        self.last = b""

    def read(self, count: int) -> bytes:
        if not 0 <= count <= MAX_HEADER:
            raise InputError(f"a header claims {count} bytes")
        self.last = self.stream.read(count)
        self._check(self.stream.tell())
        return self.last

    def seek(self, position: int) -> None:
        self._check(position)
        self.stream.seek(position)

    def tell(self) -> int:
        return self.stream.tell()

    def _check(self, position: int) -> None:
        if position > self.limit:
            raise InputError(f"unpacks to more than {self.limit} bytes")


class _Tar:
    def __init__(self, file: BinaryIO, limit: int):
        is_packed = file.read(2) == GZIP_MAGIC
        file.seek(0)
        self.meter = _Meter(gzip.GzipFile(fileobj=file) if is_packed else file, limit)
        self.tar = tarfile.open(fileobj=self.meter, mode="r:")  # type: ignore[call-overload] # it reads, seeks

    def __iter__(self) -> Iterator[_Entry]:
        while (member := self.tar.next()) is not None:
            self.tar.members.clear()  # else it keeps a kilobyte for each of a million entries
            refused = None
            if not (member.isreg() or member.isdir()):
                kinds = {tarfile.SYMTYPE: "a symbolic link", tarfile.LNKTYPE: "a hard link"}
                refused = kinds.get(member.type, "a device or another special file")
            if member.size < 0:
                refused = "an entry of negative size"
            if member.issparse():
                refused = "a sparse file, which claims more bytes than the archive has"
            yield _Entry(member.name, refused, member.isdir(), member)
        # tarfile takes a broken header for the end of the archive.
        if len(self.meter.last) < tarfile.BLOCKSIZE or self.meter.last.strip(b"\0"):
            raise InputError("is damaged or cut off")

    def open(self, entry: _Entry) -> IO[bytes]:
        return self.tar.extractfile(entry.source)


class _Zip:
    def __init__(self, file: BinaryIO):
        self.zip = zipfile.ZipFile(file)

    def __iter__(self) -> Iterator[_Entry]:
        for info in self.zip.infolist():
            if info.orig_filename == "/":
                continue  # Dropbox lists the shared folder itself like this
            kind = stat.S_IFMT(info.external_attr >> 16)
            refused = None
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                refused = "a symbolic link" if kind == stat.S_IFLNK else "a special file"
            if info.compress_type not in ZIP_METHODS:
                refused = "packed in another way than zip's usual one"
            if info.flag_bits & 1:
                refused = "encrypted"
            yield _Entry(info.orig_filename, refused, info.is_dir(), info)

    def open(self, entry: _Entry) -> IO[bytes]:
        return self.zip.open(entry.source)


def _safe_parts(entry: _Entry) -> tuple[str, ...]:
    """Return the entry's name, split; refuse whatever could lead out of the target folder."""
    if entry.refused:
        raise InputError(f"entry {entry.name!r} is refused: it is {entry.refused}")
    parts = tuple(part for part in entry.name.split("/") if part not in ("", "."))
    leads_out = entry.name.startswith("/") or ".." in parts
    if leads_out or any(re.match(r"[A-Za-z]:|.*[\\\0]", part, re.DOTALL) for part in parts):
        raise InputError(f"entry {entry.name!r} is refused: its name could lead out of the folder")
    if len(parts) > MAX_DEPTH or (not parts and not entry.is_folder):
        raise InputError(f"entry {entry.name[:80]!r} is refused: no usable file name")
    return parts


def _write_all(
    content: _Tar | _Zip, folder: Path, max_bytes: int, max_entries: int, only: str
) -> None:
    """Write every entry below ``only`` into an empty folder."""
    wanted = tuple(part for part in only.split("/") if part)
    written = 0
    with tqdm(desc="unpacking", unit="entries", disable=None) as progress:
        for count, entry in enumerate(content, start=1):
            if count > max_entries:
                raise InputError(f"has more than {max_entries} entries")
            progress.update()
            parts = _safe_parts(entry)
            if parts[: len(wanted)] != wanted:
                continue
            target = folder.joinpath(*parts)
            if entry.is_folder:
                target.mkdir(parents=True, exist_ok=True)
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            if os.path.lexists(target) and not target.is_dir():
                raise InputError(f"entry {entry.name!r} is refused: there was one of that name")
            with content.open(entry) as source, target.open("xb") as sink:
                while chunk := source.read(CHUNK):
                    written += len(chunk)
                    if written > max_bytes:
                        raise InputError(f"unpacks to more than {max_bytes} bytes")
                    sink.write(chunk)


def unpack(
    archive: str | Path,
    folder: str | Path,
    *,
    max_bytes: int = MAX_BYTES,
    max_entries: int = MAX_ENTRIES,
    only: str = "",
) -> None:
    """Unpack a tar, tar.gz or zip file into a new folder; the content tells which it is.

    Args:
        archive: the file.
        folder: what to make; must not exist, and does not if anything goes wrong.
        max_bytes: most bytes that may come out, a tar's own headers included; past 1 MiB, at most
            ``MAX_RATIO`` for each byte of the archive.
        max_entries: most files and folders that may come out.
        only: write just what lies below this folder of the archive, like ``images/birds``.

    Raises:
        InputError: if the folder exists, the archive is none or damaged, passes a limit, or holds a
            link, device, sparse or encrypted entry, a name that leads out of the folder or the
            name of an earlier entry; or the disk fails.
    """
    archive, folder = Path(archive), Path(folder)
    if os.path.lexists(folder):
        raise InputError(f"{folder} exists already; expected a new folder to unpack {archive} into")
    staging = folder.with_name(f".{folder.name}.unpacking")
    check_is_file(archive)
    try:
        shutil.rmtree(staging, ignore_errors=True)  # of a run that was killed
        staging.mkdir(parents=True)
        limit = min(max_bytes, SMALL + MAX_RATIO * archive.stat().st_size)
        with archive.open("rb") as file:
            is_zip = file.read(4) in ZIP_MAGIC
            file.seek(0)
            content = _Zip(file) if is_zip else _Tar(file, limit)
            _write_all(content, staging, limit, max_entries, only)
        staging.rename(folder)
    except InputError as error:
        raise InputError(f"{archive}: {error}") from error
    except OSError as error:
        raise InputError(f"{archive}: cannot unpack: {reason(error)}") from error
    except Exception as error:  # the libraries raise whatever a damaged header makes them
        raise InputError(
            f"{archive}: not a whole tar, tar.gz or zip file ({reason(error)})"
        ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
