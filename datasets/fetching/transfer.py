"""Transfers: files over HTTP that resume where they broke off and are checked before they count.

What has arrived of NAME waits in ``NAME.part``; ``NAME.part.json`` remembers which version of the
file it is a part of, so that two versions are never spliced. Sizes are in bytes, times in seconds.
"""

import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import BinaryIO, NamedTuple

from tqdm import tqdm

from datasets.fetching.integrity import check_checksum, verify
from datasets.fetching.web import Cut, Response, http_address, open_address
from utils.errors import InputError
from utils.files import writing

if sys.platform != "win32":  # two downloads of one file are not kept apart there
    import fcntl

CHUNK = 2**20
LONGEST_WAIT = 30.0


def lock(file: BinaryIO, path: Path) -> None:
    """Keep other runs away from an open file until it is closed.

    Raises:
        InputError: if another run holds it, or has just moved it away.
    """
    if sys.platform == "win32":
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        is_ours = os.path.samestat(os.fstat(file.fileno()), path.stat())
    except (BlockingIOError, FileNotFoundError):
        is_ours = False
    if not is_ours:
        raise InputError(f"{path} is in use by another run of this script; wait until it ends")


class RetryPolicy(NamedTuple):
    """How long a download waits for its server.

    Attributes:
        timeout: seconds the server may be silent.
        retries: attempts in a row that may bring nothing new before it gives up.
        backoff: seconds to wait before the first of those; doubles each time, up to 30.
    """

    timeout: float = 30.0
    retries: int = 5
    backoff: float = 1.0


class _Version(NamedTuple):
    """What a part is a part of: address, the server's mark, bytes of the whole; None if unknown."""

    url: str | None = None
    validator: str | None = None
    total: int | None = None


class _Part:
    """The open ``.part`` file, with a note on the version of the file that it is a part of."""

    def __init__(self, path: Path):
        self.path = path.with_name(path.name + ".part")
        self.note = path.with_name(path.name + ".part.json")
        self.version = _Version()
        self.file = os.fdopen(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666), "r+b")

    def __enter__(self) -> "_Part":
        try:
            lock(self.file, self.path)
        except InputError:
            self.file.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if not self.size():
            self.remove()
        self.file.close()

    def size(self) -> int:
        return os.fstat(self.file.fileno()).st_size

    def continues_with(self, response: Response, offset: int) -> bool:
        """Tell whether the stream is the rest of this file; not all servers respect If-Range."""
        _, validator, total = self.version
        same_version = response.validator in (None, validator)
        return response.start == offset and same_version and response.total in (None, total)

    def read_note(self) -> None:
        try:
            note = json.loads(self.note.read_text())
            self.version = _Version(note["url"], note["validator"], note["total"])
        except (OSError, ValueError, TypeError, KeyError):
            self.version = _Version()

    def write_note(self, version: _Version) -> None:
        self.version = version
        self.note.write_text(json.dumps(version._asdict()))

    def restart(self) -> None:
        self.file.truncate(0)
        self.version = _Version()
        self.note.unlink(missing_ok=True)

    def remove(self) -> None:
        self.restart()
        self.path.unlink(missing_ok=True)

    def summary(self) -> str:
        """Say what is kept and how to resume."""
        if not self.size():
            return "nothing was kept; run the same command to try again"
        whole = f" of {self.version.total}" if self.version.total else ""
        how = "resume" if self.version.validator else "start over (this server cannot resume)"
        return f"{self.size()}{whole} bytes are in {self.path}; run the same command to {how}"


def _attempt(url: str, part: _Part, size: int | None, timeout: float) -> None:
    """Get what is missing of the part over one connection; raise Cut if that breaks."""
    known = part.version
    offset = part.size() if known.url == url and known.validator else 0
    if offset and offset == known.total:
        return
    with open_address(url, timeout, offset=offset, validator=known.validator) as response:
        if response.start and not (offset and part.continues_with(response, offset)):
            part.restart()
            if offset:
                return _attempt(url, part, size, timeout)  # nothing is kept: asks for the whole
            raise Cut("the server sent a piece of the file, but was asked for all of it")
        if size is not None and response.total not in (None, size):
            raise InputError(f"{url} has {response.total} bytes; expected {size}")
        total = size if response.total is None else response.total
        if not response.start:
            part.restart()
            part.write_note(_Version(url, response.validator, response.total))
        missing = (total or 0) - response.start
        free = shutil.disk_usage(part.path.parent).free
        if missing > free:
            raise InputError(f"{part.path.parent}: {missing} bytes needed, {free} are free")
        _copy(response, part, total)
    if total is not None and part.size() < total:
        raise Cut("the connection was closed early")
    if total is not None and part.size() > total:
        part.restart()
        raise InputError(f"{url} sends more than the {total} bytes expected")


def _copy(response: Response, part: _Part, total: int | None) -> None:
    """Append to the part, and stop soon after ``total`` bytes."""
    offset = part.file.seek(response.start)
    name = part.path.name.removesuffix(".part")
    bar = tqdm(
        desc=name, initial=offset, total=total, unit="B", unit_scale=True, leave=False, disable=None
    )
    with bar:
        try:
            while chunk := response.read(CHUNK):
                part.file.write(chunk)
                bar.update(len(chunk))
                if total is not None and part.file.tell() > total:
                    break
        finally:
            part.file.flush()


def _persist(url: str, part: _Part, size: int | None, policy: RetryPolicy) -> None:
    """Attempt until the part is whole; only attempts in a row that gain nothing count."""
    failures, furthest = 0, part.size()
    while True:
        try:
            return _attempt(url, part, size, policy.timeout)
        except Cut as error:
            failures = 0 if part.size() > furthest else failures
            furthest = max(furthest, part.size())
            if failures >= policy.retries:
                tries = f"{failures} retries failed" if failures else "no retries asked for"
                raise InputError(f"{url}: {error}; {tries}; {part.summary()}") from error
            wait = min(LONGEST_WAIT, policy.backoff * 2**failures)
            failures += 1
            tqdm.write(f"{url}: {error}; trying again in {wait:g} s", file=sys.stderr)
            time.sleep(wait)


def fetch(
    url: str,
    path: str | Path,
    *,
    size: int | None = None,
    checksum: str | None = None,
    policy: RetryPolicy = RetryPolicy(),  # noqa: B008 (it cannot be modified)
    overwrite: bool = False,
) -> None:
    """Download a file over HTTP(S); it appears under its name only when whole and checked.

    Args:
        url: address of the file; Dropbox links to a page are turned into links to the file.
        path: where it goes; ``path``.part beside it holds what has come so far, also after errors.
        size: how many bytes it must have, where known.
        checksum: its MD5, SHA-1 or SHA-256 in hexadecimal, where known.
        policy: how long to wait for the server.
        overwrite: replace ``path`` if it exists.

    Raises:
        InputError: if ``path`` exists, the server refuses or keeps failing, the file is a web page
            or fails its checks (then nothing is kept), or the disk fails.
    """
    path = Path(path)
    http_address(url)
    check_checksum(checksum)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with _Part(path) as part:
            if os.path.lexists(path) and not overwrite:
                raise InputError(f"{path} exists already; --overwrite replaces it")
            part.read_note()
            _persist(url, part, size, policy)
            os.fsync(part.file.fileno())
            try:
                verify(part.path, size=size, checksum=checksum)
            except InputError as error:
                part.remove()
                raise InputError(f"{url}: {error}; it was deleted") from error
            part.path.replace(path)
            part.note.unlink(missing_ok=True)
