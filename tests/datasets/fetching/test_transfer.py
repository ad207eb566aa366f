import hashlib
import os
import threading
from pathlib import Path

import pytest

from datasets.fetching import transfer
from datasets.fetching.transfer import RetryPolicy, direct_address, fetch
from utils.errors import InputError

QUICK = RetryPolicy(timeout=5.0, retries=2, backoff=0.0)


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def fail(match: str, *args, policy=QUICK, **options) -> str:
    with pytest.raises(InputError, match=match) as caught:
        fetch(*args, policy=policy, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("algorithm", ["md5", "sha1", "sha256"])
def test_full_download_is_checked_and_leaves_nothing_else(site, tmp_path, algorithm):
    checksum = hashlib.new(algorithm, site.body).hexdigest().upper()
    fetch(f"{site.url}/f", tmp_path / "new/f", size=len(site.body), checksum=checksum, policy=QUICK)
    assert (tmp_path / "new/f").read_bytes() == site.body and names(tmp_path / "new") == ["f"]


def test_empty_file(site, tmp_path):
    site.pages["/f"].body = b""
    fetch(f"{site.url}/f", tmp_path / "f", policy=QUICK)
    assert (tmp_path / "f").read_bytes() == b"" and names(tmp_path) == ["f"]


def begin(site, tmp_path, kept: int = 100_000) -> None:
    site.pages["/f"].cuts = [kept]
    message = fail(
        "closed early", f"{site.url}/f", tmp_path / "f", policy=QUICK._replace(retries=0)
    )
    assert f"{kept} of {len(site.body)} bytes are in {tmp_path / 'f.part'}" in message
    assert names(tmp_path) == ["f.part", "f.part.json"]
    site.asked.clear()


def test_resumes_from_the_part(site, tmp_path):
    begin(site, tmp_path)
    fetch(f"{site.url}/f", tmp_path / "f", policy=QUICK)
    assert (tmp_path / "f").read_bytes() == site.body and names(tmp_path) == ["f"]
    assert site.asked == [("/f", "bytes=100000-")]


def test_whole_part_needs_no_request(site, tmp_path):
    begin(site, tmp_path)
    (tmp_path / "f.part").write_bytes(site.body)
    fetch(f"{site.url}/f", tmp_path / "f", policy=QUICK)
    assert (tmp_path / "f").read_bytes() == site.body and site.asked == []


@pytest.mark.parametrize("change", ["no_ranges", "etag", "careless", "size", "note", "junk", "url"])
def test_starts_over_if_the_part_cannot_go_on(site, tmp_path, change):
    begin(site, tmp_path)
    page = site.pages["/f"] = site.page(body=site.body[::-1], etag='"two"')
    if change == "no_ranges":
        page.ranges = False
    elif change == "careless":
        page.respects_if_range = False
    elif change == "size":
        page.body, page.etag, page.respects_if_range = site.body[1:], None, False
    elif change == "note":
        (tmp_path / "f.part.json").unlink()
    elif change == "junk":
        (tmp_path / "f.part.json").write_text("[1")
    elif change == "url":
        site.pages["/g"] = site.page(body=page.body)
    fetch(f"{site.url}/{'g' if change == 'url' else 'f'}", tmp_path / "f", policy=QUICK)
    assert (tmp_path / "f").read_bytes() == page.body and names(tmp_path) == ["f"]


def test_part_longer_than_the_file(site, tmp_path):
    begin(site, tmp_path)
    (tmp_path / "f.part").write_bytes(site.body + b"more")
    site.pages["/f"].codes = [416]
    fetch(f"{site.url}/f", tmp_path / "f", policy=QUICK)
    assert (tmp_path / "f").read_bytes() == site.body


def test_goes_on_after_cuts_as_long_as_each_gains_something(site, tmp_path, capsys):
    site.pages["/f"].cuts = [50_000] * 5
    fetch(f"{site.url}/f", tmp_path / "f", policy=QUICK._replace(retries=1))
    assert (tmp_path / "f").read_bytes() == site.body and len(site.asked) == 6
    assert "trying again" in capsys.readouterr().err


@pytest.mark.parametrize("etag", [None, 'W/"weak"'])
def test_without_a_validator_a_cut_means_starting_over(site, tmp_path, etag):
    site.pages["/f"] = site.page(etag=etag, cuts=[50_000, 40_000])
    fetch(f"{site.url}/f", tmp_path / "f", policy=QUICK)
    assert (tmp_path / "f").read_bytes() == site.body
    assert site.asked == [("/f", None)] * 3
    site.pages["/f"].cuts = [50_000] * 9
    message = fail("retries failed", f"{site.url}/f", tmp_path / "g")
    assert "start over" in message and len(site.asked) == 3 + 1 + 2


def test_without_a_length_the_known_size_tells_a_cut(site, tmp_path):
    site.pages["/f"] = site.page(length=False, cuts=[1000])
    fetch(f"{site.url}/f", tmp_path / "f", size=len(site.body), policy=QUICK)
    assert (tmp_path / "f").read_bytes() == site.body
    fail("has 300000 bytes; expected 1000", f"{site.url}/f", tmp_path / "g", size=1000)
    assert names(tmp_path) == ["f"]


def test_busy_server_is_asked_again(site, tmp_path):
    site.pages["/f"].codes = [503, 429]
    fetch(f"{site.url}/f", tmp_path / "f", policy=QUICK)
    site.pages["/f"].codes = [503] * 3
    fail("503.*2 retries failed; nothing was kept", f"{site.url}/f", tmp_path / "g")
    assert names(tmp_path) == ["f"]


def test_silent_server(site, tmp_path):
    site.pages["/f"].stall = threading.Event()
    message = fail("timed out", f"{site.url}/f", tmp_path / "f", policy=RetryPolicy(0.1, 0))
    site.pages["/f"].stall.set()
    assert "150000 of 300000" in message


@pytest.mark.parametrize("checks", [{"checksum": "0" * 32}, {"checksum": "0" * 64}, {"size": 3}])
def test_wrong_file_is_not_kept_and_replaces_nothing(site, tmp_path, checks):
    (tmp_path / "f").write_text("old")
    message = fail("expected (0|3)", f"{site.url}/f", tmp_path / "f", **checks)
    assert site.url in message
    assert (tmp_path / "f").read_text() == "old" and names(tmp_path) == ["f"]


def test_refusals_are_not_tried_again(site, tmp_path):
    fail("answered 404", f"{site.url}/nothing", tmp_path / "f")
    site.pages["/page"] = site.page(kind="text/html; charset=utf-8")
    fail("web page", f"{site.url}/page", tmp_path / "f")
    assert len(site.asked) == 2 and names(tmp_path) == []


def test_only_http_is_spoken(site, tmp_path):
    for target in ("file:///etc/hostname", "data:,x"):
        site.pages["/away"] = site.page(redirect=target)
        fail("not allowed", f"{site.url}/away", tmp_path / "f")
    site.pages["/moved"] = site.page(redirect="/f")
    fetch(f"{site.url}/moved", tmp_path / "f", policy=QUICK)
    assert names(tmp_path) == ["f"]


def test_closed_port(tmp_path):
    policy = QUICK._replace(retries=1)
    fail("refused.*1 retries", "http://127.0.0.1:9/", tmp_path / "f", policy=policy)
    assert names(tmp_path) == []


def test_a_failed_attempt_leaves_the_part_of_another_address(site, tmp_path):
    begin(site, tmp_path)
    fail("answered 404", f"{site.url}/mistyped", tmp_path / "f")
    fetch(f"{site.url}/f", tmp_path / "f", policy=QUICK)
    assert site.asked == [("/mistyped", None), ("/f", "bytes=100000-")]


def test_full_disk_is_seen_before_the_download(site, tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(transfer.shutil, "disk_usage", lambda _: usage)
    fail("300000 bytes needed, 1000 are free", f"{site.url}/f", tmp_path / "f")
    assert names(tmp_path) == []


def test_dropbox_links_become_files():
    assert direct_address("https://www.dropbox.com/sh/a/b?dl=0").endswith("/sh/a/b?dl=1")
    assert direct_address("https://www.dropbox.com/scl/a?rlkey=k&dl=0").endswith("?rlkey=k&dl=1")
    assert (
        direct_address("https://x.org/www.dropbox.com?dl=0") == "https://x.org/www.dropbox.com?dl=0"
    )
