"""A web server for the tests that fetch."""

import pytest

from tests.datasets.web_server import serve


@pytest.fixture
def site(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serve() as server:
        yield server
