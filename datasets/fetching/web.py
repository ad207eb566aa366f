"""Web addresses: one HTTP(S) request for a file, or for the rest of one.

Nothing but http and https is spoken, not even after a redirect, and errors come in two kinds:
`Cut`, which a new attempt may cure, and `InputError`, which it cannot.
"""

import http.client
import re
import ssl
import urllib.error
import urllib.parse
import urllib.request
from typing import IO

from utils.errors import InputError

USER_AGENT = "contrastlandmark-download/0.1"
PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})


class Cut(Exception):
    """The connection broke or the server is busy; another attempt may do."""


def http_address(url: str) -> str:
    """Return a usable http or https address as it is; raise InputError for any other."""
    try:
        parts = urllib.parse.urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and (parts.port or 1)
    except ValueError:
        usable = False
    if not usable or re.search(r"[^!-~]", url):
        raise InputError(f"{url!r} is no http or https address")
    return url


def direct_address(url: str) -> str:
    """Return the address of the file itself for a Dropbox share link; any other is returned as is.

    Dropbox serves a page for ``dl=0`` and, for ``dl=1``, the file, or the folder as a zip file.
    """
    parts = urllib.parse.urlsplit(url)
    if parts.hostname not in ("dropbox.com", "www.dropbox.com"):
        return url
    query = [pair for pair in urllib.parse.parse_qsl(parts.query) if pair[0] != "dl"]
    return parts._replace(query=urllib.parse.urlencode([*query, ("dl", "1")])).geturl()


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but never to another protocol or from https back to http."""

    def redirect_request(  # noqa: D102 (urllib's)
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        try:
            http_address(newurl)
            if req.full_url.startswith("https:") and not newurl.startswith("https:"):
                raise InputError(f"{req.full_url} redirects to the unencrypted {newurl}: refused")
        except InputError:
            fp.close()
            raise
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener() -> urllib.request.OpenerDirector:
    # Built by hand: urllib's default one also opens file:, ftp: and data: addresses.
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPDefaultErrorHandler,
        _Redirects,
        urllib.request.HTTPErrorProcessor,
        urllib.request.UnknownHandler,
    ):
        opener.add_handler(handler())
    return opener


class Response:
    """The answer to a request: a stream of bytes with what the server says about the whole file.

    Attributes:
        start: index in the file of the first byte of the stream.
        total: bytes in the whole file; None if the server does not say.
        validator: the mark by which the server knows this version of the file, if it gives one.
    """

    def __init__(self, stream: http.client.HTTPResponse):
        self._stream, headers = stream, stream.headers
        self.start, self.total = 0, _number(headers.get("Content-Length"))
        if stream.status == 206:
            match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", headers.get("Content-Range", ""))
            if not match:
                raise Cut("the server sent a piece of the file without saying which")
            self.start, self.total = int(match[1]), _number(match[2])
        etag = headers.get("ETag", "")
        # A weak ETag marks files that mean the same, not files that are the same.
        self.validator = etag if etag.startswith('"') else headers.get("Last-Modified")

    def __enter__(self) -> "Response":
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def read(self, count: int) -> bytes:
        """Return up to ``count`` bytes, none at the end; raise Cut if the connection breaks."""
        try:
            return self._stream.read1(count)
        except (OSError, http.client.HTTPException) as error:
            raise Cut(_one_line(error)) from error


def open_address(
    url: str, timeout: float, *, offset: int = 0, validator: str | None = None
) -> Response:
    """Ask for a file, from byte ``offset`` on if it is still the version that ``validator`` marks.

    Servers may answer with the whole file all the same: see `Response.start`.

    Raises:
        Cut: if there was no answer, or one that may be better next time.
        InputError: if the server refuses, or answers with a web page.
    """
    url = direct_address(url)
    headers = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity"}
    if offset and validator:
        headers |= {"Range": f"bytes={offset}-", "If-Range": validator}
    try:
        stream = _opener().open(urllib.request.Request(url, headers=headers), timeout=timeout)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and offset:
            return open_address(url, timeout)
        answer = f"the server answered {error.code} {_one_line(error.reason)}"
        if error.code in PASSING:
            raise Cut(answer) from error
        raise InputError(f"{url}: {answer}") from error
    except (http.client.InvalidURL, UnicodeError) as error:
        raise InputError(f"{url!r} is no http or https address: {_one_line(error)}") from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise InputError(f"{url}: {_one_line(reason)}") from error
        raise Cut(_one_line(reason)) from error
    if stream.headers.get_content_type() == "text/html":
        stream.close()
        raise InputError(f"{url} is a web page, not a file; open it in a browser")
    return Response(stream)


def _number(text: str | None) -> int | None:
    return int(text) if text and re.fullmatch("[0-9]{1,18}", text) else None


def _one_line(error: object) -> str:
    return " ".join(str(error).split()) or type(error).__name__
