import hashlib
import os
import threading

import pytest

from datasets.fetching import transfer
from datasets.fetching.transfer import RetryPolicy, direct_address, fetch
from tests.data_loader.layouts import complaint

QUICK = RetryPolicy(timeout=5.0, retries=2, backoff=0.0)


@pytest.fixture
def get(site, tmp_path):
    """Return a function that fetches a page of the site to a file ``f``."""

    def get(page="f", checksum="", **policy):
        fetch(f"{site.url}/{page}", tmp_path / "f", checksum, QUICK._replace(**policy))
        return (tmp_path / "f").read_bytes()

    return get


@pytest.fixture
def begun(site, get, tmp_path):
    """Have 100,000 bytes of the file."""
    site.pages["/f"].cuts = [100_000]
    message = complaint(get, retries=0)
    assert "closed early; 0 retries failed" in message
    assert f"100000 of {len(site.body)} bytes are in {tmp_path / 'f.part'}" in message
    assert names(tmp_path) == ["f.part", "f.part.json"]
    site.asked.clear()


def names(folder):
    return sorted(os.listdir(folder))


@pytest.mark.parametrize("algorithm", ["md5", "sha1", "sha256"])
def test_full_download_is_checked_and_leaves_nothing_else(site, get, tmp_path, algorithm):
    assert get(checksum=hashlib.new(algorithm, site.body).hexdigest().upper()) == site.body
    wrong = "0" * len(hashlib.new(algorithm).hexdigest())
    message = complaint(get, checksum=wrong)
    assert site.url in message and f"expected {wrong}; it was deleted" in message
    assert names(tmp_path) == ["f"] and (tmp_path / "f").read_bytes() == site.body
    site.pages["/f"].body = b""
    assert get() == b"" and names(tmp_path) == ["f"]


@pytest.mark.usefixtures("begun")
def test_resumes_from_the_part_also_after_a_failure_at_another_address(site, get, tmp_path):
    assert "answered 404" in complaint(get, "mistyped")
    assert get() == site.body and names(tmp_path) == ["f"]
    assert site.asked == [("/mistyped", None), ("/f", "bytes=100000-")]


@pytest.mark.usefixtures("begun")
def test_whole_part_needs_no_request(site, get, tmp_path):
    (tmp_path / "f.part").write_bytes(site.body)
    assert get() == site.body and site.asked == []


@pytest.mark.usefixtures("begun")
@pytest.mark.parametrize("change", ["no_ranges", "etag", "size", "longer", "note", "junk", "url"])
def test_starts_over_if_the_part_cannot_go_on(site, get, tmp_path, change):
    page = site.pages["/f"] = site.pages["/g"] = site.page(body=site.body[::-1], etag='"two"')
    if change == "no_ranges":
        page.ranges, page.etag = False, '"one"'
    elif change == "size":
        page.body, page.etag = site.body[1:], '"one"'
    elif change == "longer":
        (tmp_path / "f.part").write_bytes(site.body + b"more")
        page.codes = [416]
    elif change == "note":
        (tmp_path / "f.part.json").unlink()
    elif change == "junk":
        (tmp_path / "f.part.json").write_text("[1")
    assert get("g" if change == "url" else "f") == page.body and names(tmp_path) == ["f"]


def test_goes_on_after_cuts_as_long_as_each_gains_something(site, get, capsys):
    site.pages["/f"].cuts = [50_000] * 5
    assert get(retries=1) == site.body and len(site.asked) == 6
    assert "trying again" in capsys.readouterr().err


@pytest.mark.parametrize("etag", [None, 'W/"weak"'])
def test_without_a_validator_a_cut_means_starting_over(site, get, etag):
    site.pages["/f"] = site.page(etag=etag, cuts=[50_000, 40_000])
    assert get() == site.body and site.asked == [("/f", None)] * 3
    site.pages["/f"].cuts = [50_000] * 9
    assert "2 retries failed; nothing was kept" in complaint(get)
    assert len(site.asked) == 3 + 3


def test_busy_server_is_asked_again(site, get, tmp_path):
    site.pages["/f"].codes = [503, 429]
    assert get() == site.body
    site.pages["/f"].codes = [503] * 3
    assert "answered 503 Service Unavailable; 2 retries failed" in complaint(get)
    assert names(tmp_path) == ["f"]


def test_silent_server(site, get):
    site.pages["/f"].stall = threading.Event()
    message = complaint(get, timeout=0.1, retries=0)
    site.pages["/f"].stall.set()
    assert "timed out" in message and "150000 of 300000" in message


@pytest.mark.parametrize(
    ("page", "said"),
    [
        ({"kind": "text/html; charset=utf-8"}, "web page"),
        ({"redirect": "file:///etc/hostname"}, "not allowed"),
        ({"redirect": "data:,x"}, "not allowed"),
    ],
)
def test_refusals_are_not_tried_again(site, get, tmp_path, page, said):
    site.pages["/g"] = site.page(**page)
    assert said in complaint(get, "g")
    assert len(site.asked) == 1 and names(tmp_path) == []
    site.pages["/g"] = site.page(redirect="/f")
    assert get("g") == site.body


def test_closed_port(tmp_path):
    address = "http://127.0.0.1:9/"
    message = complaint(fetch, address, tmp_path / "f", "", QUICK._replace(retries=1))
    assert "refused; 1 retries failed; nothing was kept" in message and names(tmp_path) == []


def test_full_disk_is_seen_before_the_download(get, tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(transfer.shutil, "disk_usage", lambda _: usage)
    assert "300000 bytes needed, 1000 are free" in complaint(get)
    assert names(tmp_path) == []


def test_dropbox_links_become_files():
    assert direct_address("https://www.dropbox.com/sh/a/b?dl=0").endswith("/sh/a/b?dl=1")
    assert direct_address("https://www.dropbox.com/scl/a?rlkey=k&dl=0").endswith("?rlkey=k&dl=1")
    other = "https://x.org/www.dropbox.com?dl=0"
    assert direct_address(other) == other
