"""Transfers: files over HTTP that resume where they broke off and are checked before they count.

What has arrived of NAME waits in ``NAME.part``; ``NAME.part.json`` remembers which version of the
file it is a part of, so that two versions are never spliced. Sizes are in bytes, times in seconds.
"""

import http.client
import json
import re
import shutil
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from datasets.fetching.integrity import verify
from utils.errors import InputError
from utils.files import excerpt, fsync, reason, writing

USER_AGENT = "contrastlandmark-download/0.1"
PASSING = frozenset({408, 416, 425, 429, 500, 502, 503, 504})  # may be cured by another attempt
CHUNK = 2**20
LONGEST_WAIT = 30.0


class Cut(Exception):
    """The connection broke or the server is busy; another attempt may do."""


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


class Version(NamedTuple):
    """What a part is a part of.

    Attributes:
        url: the address.
        validator: the mark by which the server knows this version of the file, if it gives one.
        total: bytes in the whole file; None if the server does not say.
    """

    url: str
    validator: str | None = None
    total: int | None = None


class _Part:
    """The ``.part`` file, with a note on the version of the file that it is a part of."""

    def __init__(self, path: Path) -> None:
        self.path = path.with_name(path.name + ".part")
        self.note = path.with_name(path.name + ".part.json")

    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def version(self, url: str) -> Version:
        """Return what the part is a part of; without a mark if that isn't known."""
        try:
            noted = Version(**json.loads(self.note.read_text()))
        except (OSError, ValueError, TypeError):
            return Version(url)
        return noted if noted.url == url else Version(url)

    def restart(self, version: Version | None = None) -> None:
        """Keep nothing of the file, and note which version comes now, if any."""
        self.path.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)
        if version is not None:
            self.note.write_text(json.dumps(version._asdict()))

    def summary(self, url: str) -> str:
        """Say what is kept and how to resume."""
        if not self.size():
            self.restart()
            return "nothing was kept; run the same command to try again"
        known = self.version(url)
        whole = f" of {known.total}" if known.total else ""
        how = "resume" if known.validator else "start over (this server cannot resume)"
        return f"{self.size()}{whole} bytes are in {self.path}; run the same command to {how}"


def direct_address(url: str) -> str:
    """Return the address of the file itself for a Dropbox share link; any other is returned as is.

    Dropbox serves a page for ``dl=0`` and, for ``dl=1``, the file, or the folder as a zip file.
    """
    parts = urllib.parse.urlsplit(url)
    if parts.hostname not in ("dropbox.com", "www.dropbox.com"):
        return url
    query = [pair for pair in urllib.parse.parse_qsl(parts.query) if pair[0] != "dl"]
    return parts._replace(query=urllib.parse.urlencode([*query, ("dl", "1")])).geturl()


def _open(url: str, part: _Part, offset: int, timeout: float) -> http.client.HTTPResponse:
    """Ask for a file, from byte ``offset`` on if the part's version is still the server's.

    Servers may answer with the whole file all the same.

    Raises:
        Cut: if there was no answer, or one that may be better next time.
        InputError: if the server refuses, or answers with a web page.
    """
    headers = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity"}
    if offset:
        headers |= {"Range": f"bytes={offset}-", "If-Range": part.version(url).validator or ""}
    request = urllib.request.Request(direct_address(url), headers=headers)
    try:
        response = urllib.request.urlopen(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        error.close()
        answer = f"the server answered {error.code} {excerpt(error.reason)}"
        if error.code not in PASSING:
            raise InputError(f"{url}: {answer}") from error
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            part.restart()
        raise Cut(answer) from error
    except (OSError, http.client.HTTPException) as error:
        raise Cut(reason(getattr(error, "reason", error))) from error
    if not isinstance(response, http.client.HTTPResponse):
        raise InputError(f"{url} leads to {response.url}, which is no http or https address")
    if url.startswith("https:") and not response.url.startswith("https:"):
        response.close()
        raise InputError(f"{url} redirects to the unencrypted {response.url}: refused")
    if response.headers.get_content_type() == "text/html":
        response.close()
        raise InputError(f"{url} is a web page, not a file; open it in a browser")
    return response


def _version(url: str, response: http.client.HTTPResponse) -> tuple[Version, int]:
    """Return which version of the file an answer is of, and which of its bytes comes first."""
    headers = response.headers
    etag = headers.get("ETag", "")
    # A weak ETag marks files that mean the same, not files that are the same.
    validator = etag if etag.startswith('"') else headers.get("Last-Modified")
    start, total = "0", headers.get("Content-Length", "")
    if response.status == http.HTTPStatus.PARTIAL_CONTENT:
        match = re.fullmatch(r"bytes (\d{1,18})-\d+/(\d+|\*)", headers.get("Content-Range", ""))
        start, total = match.groups() if match else ("-1", "")
    known = re.fullmatch("[0-9]{1,18}", total)
    return Version(url, validator, int(total) if known else None), int(start)


def _attempt(url: str, part: _Part, size: int | None, timeout: float) -> None:
    """Get what is missing of the part over one connection; raise Cut if that breaks."""
    known = part.version(url)
    offset = part.size() if known.validator else 0
    if offset and offset == known.total:
        return
    with _open(url, part, offset, timeout) as response:
        found, start = _version(url, response)
        total = size if found.total is None else found.total
        if start:  # not all servers respect If-Range
            same = found.validator in (None, known.validator) and found.total in (None, known.total)
            if start != offset or not same:
                part.restart()
                raise Cut("the server sent a piece of another version of the file")
        if size is not None and total != size:
            raise InputError(f"{url} has {total} bytes; expected {size}")
        missing, free = (total or 0) - start, shutil.disk_usage(part.path.parent).free
        if missing > free:
            raise InputError(f"{part.path.parent}: {missing} bytes needed, {free} are free")
        if not start:
            part.restart(found)
        _append(response, part, total)
    if total is not None and part.size() < total:
        raise Cut("the connection was closed early")


def _append(response: http.client.HTTPResponse, part: _Part, total: int | None) -> None:
    name, kept = part.path.name.removesuffix(".part"), part.size()
    bar = tqdm(
        desc=name, initial=kept, total=total, unit="B", unit_scale=True, leave=False, disable=None
    )
    with part.path.open("ab") as file, bar:
        while True:
            try:
                chunk = response.read1(CHUNK)
            except (OSError, http.client.HTTPException) as error:
                raise Cut(reason(error)) from error
            if not chunk:
                return
            file.write(chunk)
            bar.update(len(chunk))


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
                raise InputError(f"{url}: {error}; {tries}; {part.summary(url)}") from error
            wait = min(LONGEST_WAIT, policy.backoff * 2**failures)
            failures += 1
            tqdm.write(f"{url}: {error}; trying again in {wait:g} s", file=sys.stderr)
            time.sleep(wait)


def fetch(
    url: str,
    path: Path,
    *,
    size: int | None = None,
    checksum: str | None = None,
    policy: RetryPolicy = RetryPolicy(),  # noqa: B008 (it cannot be modified)
) -> None:
    """Download a file over HTTP(S); it appears under its name only when whole and checked.

    Args:
        url: address of the file; Dropbox links to a page are turned into links to the file.
        path: where it goes; ``path``.part beside it holds what has come so far, also after errors.
        size: how many bytes it must have, where known.
        checksum: its MD5, SHA-1 or SHA-256 in hexadecimal, where known.
        policy: how long to wait for the server.

    Raises:
        InputError: if the server refuses or keeps failing, the file is a web page or fails its
            checks (then nothing is kept), or the disk fails.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        part = _Part(path)
        _persist(url, part, size, policy)
        with part.path.open("rb") as file:
            fsync(file)
        try:
            verify(part.path, size=size, checksum=checksum)
        except InputError as error:
            part.restart()
            raise InputError(f"{url}: {error}; it was deleted") from error
        part.path.replace(path)
        part.restart()
