"""A web server on this machine that misbehaves as told."""

import contextlib
import http.server
import random
import threading
from dataclasses import dataclass, field

import pytest

BODY = random.Random(0).randbytes(300_000)


@dataclass
class Page:
    """What the server has under one address, and how it misbehaves."""

    body: bytes = BODY
    etag: str | None = '"one"'
    ranges: bool = True
    kind: str = "application/octet-stream"
    redirect: str | None = None
    cuts: list[int] = field(default_factory=list)  # bytes after which each request is cut
    codes: list[int] = field(default_factory=list)  # errors to answer first
    stall: threading.Event | None = None  # wait for this before the second half


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        page = self.server.pages.get(self.path)
        self.server.asked.append((self.path, self.headers.get("Range")))
        if page is None or page.codes:
            return self.send_error(page.codes.pop(0) if page else 404)
        if page.redirect:
            self.send_response(302)
            self.send_header("Location", page.redirect)
            return self.end_headers()
        start, wanted = 0, self.headers.get("Range")
        if wanted and page.ranges:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        self.send_response(206 if start else 200)
        if start:
            span = f"bytes {start}-{len(page.body) - 1}/{len(page.body)}"
            self.send_header("Content-Range", span)
        body = page.body[start:]
        self.send_header("Content-Type", page.kind)
        if page.etag:
            self.send_header("ETag", page.etag)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if page.cuts:
            body = body[: page.cuts.pop(0)]
        with contextlib.suppress(ConnectionError):
            self.wfile.write(body[: len(body) // 2])
            if page.stall:
                page.stall.wait(10)
            self.wfile.write(body[len(body) // 2 :])


@pytest.fixture
def site(monkeypatch):
    """A running server: its ``url``, its ``pages`` by address, and what it was ``asked``."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.pages, server.asked = {"/f": Page()}, []
    server.url = f"http://127.0.0.1:{server.server_port}"
    server.page, server.body = Page, BODY
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()
