"""Transfers: files over HTTP that resume where they broke off and are checked before they count.

What has arrived of NAME waits in ``NAME.part``; ``NAME.part.json`` remembers which version of the
file it is a part of, so that two versions are never spliced. Sizes are in bytes, times in seconds.
"""

import hashlib
import http.client
import json
import shutil
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from utils.errors import InputError
from utils.files import excerpt, fsync, read_json, reason, writing

USER_AGENT = "contrastlandmark-download/0.1"
PASSING = {408, 416, 425, 429, 500, 502, 503, 504}  # may be cured by another attempt
CHUNK = 2**20
LONGEST_WAIT = 30.0
HASHES = {32: "md5", 40: "sha1", 64: "sha256"}  # by number of hexadecimal digits


class Cut(Exception):
    """The connection broke or the server is busy; another attempt may do."""


class RetryPolicy(NamedTuple):
    """How long a download waits for its server."""

    timeout: float  # seconds the server may be silent
    retries: int  # attempts in a row that may bring nothing new before it gives up
    backoff: float  # seconds before the first of those; doubles each time, up to 30


def direct_address(url: str) -> str:
    """Return the address of the file itself for a Dropbox share link; any other is returned as is.

    Dropbox serves a page for ``dl=0`` and, for ``dl=1``, the file, or the folder as a zip file.
    """
    parts = urllib.parse.urlsplit(url)
    if parts.hostname not in ("dropbox.com", "www.dropbox.com"):
        return url
    query = [pair for pair in urllib.parse.parse_qsl(parts.query) if pair[0] != "dl"]
    return parts._replace(query=urllib.parse.urlencode([*query, ("dl", "1")])).geturl()


def verify(path: Path, checksum: str) -> None:
    """Check a file's MD5, SHA-1 or SHA-256, told apart by their length, if it is known.

    Raises:
        InputError: if it differs.
    """
    if not checksum:
        return
    digest = hashlib.new(HASHES[len(checksum)], usedforsecurity=False)
    desc, size = f"checking {path.name}", path.stat().st_size
    with path.open("rb") as raw, tqdm.wrapattr(raw, "read", size, desc=desc, disable=None) as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    if digest.hexdigest() != checksum.lower():
        kind = digest.name.upper()
        raise InputError(f"{path} has {kind} {digest.hexdigest()}; expected {checksum.lower()}")


def fetch(url: str, path: Path, checksum: str, policy: RetryPolicy) -> None:
    """Download a file over HTTP(S); it appears under its name only when whole and checked.

    Args:
        url: address of the file; Dropbox links to a page are turned into links to the file.
        path: where it goes; ``path``.part beside it holds what has come so far, also after errors.
        checksum: its MD5, SHA-1 or SHA-256 in hexadecimal, empty if not known.
        policy: how long to wait for the server.

    Raises:
        InputError: if the server refuses or keeps failing, the file is a web page or fails its
            check (then nothing is kept), or the disk fails.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(path.name + ".part")
        _persist(url, part, policy)
        with part.open("rb") as file:
            fsync(file)
        try:
            verify(part, checksum)
        except InputError as error:
            _drop(part)
            raise InputError(f"{url}: {error}; it was deleted") from error
        part.replace(path)
        _drop(part)


def _persist(url: str, part: Path, policy: RetryPolicy) -> None:
    """Attempt until the part is whole; only attempts in a row that gain nothing count."""
    failures, furthest = 0, _find_part(url, part)[1]
    while True:
        try:
            return _attempt(url, part, policy.timeout)
        except Cut as error:
            version, kept = _find_part(url, part)
            failures = 0 if kept > furthest else failures
            furthest = max(kept, furthest)
            if failures >= policy.retries:
                total = f" of {version['total']}" if kept and version["total"] else ""
                state = f"{kept}{total} bytes are in {part}" if kept else "nothing was kept"
                again = f"run the same command to {'resume' if kept else 'start over'}"
                raise InputError(
                    f"{url}: {error}; {failures} retries failed; {state}; {again}"
                ) from error
            wait = min(LONGEST_WAIT, policy.backoff * 2**failures)
            failures += 1
            tqdm.write(f"{url}: {error}; trying again in {wait:g} s", file=sys.stderr)
            time.sleep(wait)


def _attempt(url: str, part: Path, timeout: float) -> None:
    """Get what is missing of the part over one connection; raise Cut if that breaks."""
    known, offset = _find_part(url, part)
    if offset and offset == known["total"]:
        return
    with _open(url, part, offset, timeout) as response:
        headers, missing = response.headers, response.length
        if response.status != http.HTTPStatus.PARTIAL_CONTENT:
            offset = 0  # the whole file all the same
        total = None if missing is None else offset + missing
        # A weak ETag marks files that mean the same, not files that are the same.
        etag = headers.get("ETag", "")
        validator = etag if etag.startswith('"') else headers.get("Last-Modified")
        version = {"url": url, "validator": validator, "total": total}
        span = headers.get("Content-Range", "")
        if offset and not (version == known and span.startswith(f"bytes {offset}-")):
            _drop(part)
            raise Cut("the server sent a piece of another version of the file")
        free = shutil.disk_usage(part.parent).free
        if missing is not None and missing > free:
            raise InputError(f"{part.parent}: {missing} bytes needed, {free} are free")
        if not offset:
            _drop(part)
            _note(part).write_text(json.dumps(version))
        bar = {"total": total, "desc": part.stem, "initial": offset, "leave": False}
        with part.open("ab") as raw, tqdm.wrapattr(raw, "write", disable=None, **bar) as file:
            while chunk := _read(response):
                file.write(chunk)
    if total is not None and part.stat().st_size < total:
        raise Cut("the connection was closed early")


def _open(url: str, part: Path, offset: int, timeout: float) -> http.client.HTTPResponse:
    """Ask for a file from byte ``offset`` on; servers may answer with the whole file all the same.

    Raises:
        Cut: if there was no answer, or one that may be better next time.
        InputError: if the server refuses, or answers with a web page.
    """
    headers = {"User-Agent": USER_AGENT} | ({"Range": f"bytes={offset}-"} if offset else {})
    request = urllib.request.Request(direct_address(url), headers=headers)
    try:
        response: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        error.close()
        answer = f"the server answered {error.code} {excerpt(error.reason)}"
        if error.code not in PASSING:
            raise InputError(f"{url}: {answer}") from error
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            _drop(part)
        raise Cut(answer) from error
    except (OSError, http.client.HTTPException) as error:
        raise Cut(reason(getattr(error, "reason", error))) from error
    refusal = ""
    if not response.url.startswith("https:" if url.startswith("https:") else "http"):
        refusal = f"redirects to {response.url}: refused"
    elif response.headers.get_content_type() == "text/html":
        refusal = "is a web page, not a file; open it in a browser"
    if refusal:
        response.close()
        raise InputError(f"{url} {refusal}")
    return response


def _read(response: http.client.HTTPResponse) -> bytes:
    try:
        return response.read1(CHUNK)
    except (OSError, http.client.HTTPException) as error:
        raise Cut(reason(error)) from error


def _find_part(url: str, part: Path) -> tuple[dict[str, Any], int]:
    """Return the version that there is a part of, and its bytes: 0 if it can't go on."""
    version = read_json(_note(part))
    goes_on = version.get("url") == url and version.get("validator") and part.is_file()
    return version, part.stat().st_size if goes_on else 0


def _note(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _drop(part: Path) -> None:
    part.unlink(missing_ok=True)
    _note(part).unlink(missing_ok=True)
