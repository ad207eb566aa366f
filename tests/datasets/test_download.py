import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
from functools import partial

import pytest

from datasets.fetching.catalogue import CATALOGUE
from tests.datasets.fetching.test_installation import write_archive
from tests.recipes import ROOT
from tests.scripts.running import run, run_inside

SCRIPT = "datasets/download.py"
CELEBA = [f"some/celeba/{name}/file.txt" for name in CATALOGUE["celeba"].holds]


def names(folder):
    return sorted(os.listdir(folder))


def download(folder, *arguments):
    return run_inside("datasets.download.py", *arguments, "--to", folder, cwd=ROOT)


def fail(said, folder, *arguments):
    done = download(folder, "--backoff", 0, *arguments)
    assert done.status == 2 and said in done.err.splitlines()[-1], done.err
    return done


@pytest.fixture
def packed(tmp_path_factory):
    """Return a function that packs files of some names."""

    def pack(kind, *names):
        path = tmp_path_factory.mktemp("packed") / "a"
        return write_archive(path, kind, *((name, name.encode()) for name in names)).read_bytes()

    return pack


def test_lists_everything_without_a_network(tmp_path):
    done = run(SCRIPT, cwd=tmp_path)
    assert done.status == 0 and names(tmp_path) == []
    for item in CATALOGUE.values():
        assert item.name in done.out and item.folder in done.out
        assert item.licence in done.out and item.checksum in done.out


ADDRESSES = ("cub.tgz", "ftp://a/", "http://[", "http://a..b")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("celebs", "nothing called 'celebs'; did you mean celeba"),
        ("cub zzz", "nothing called 'zzz'"),
        ("cub celeba --url http://a/", "--url goes with one NAME"),
        ("cub --retries=-1", "--retries: expected an integer from 0 to 1000000000, got '-1'"),
        *((f"cub --url {bad}", f"--url: {bad!r} is no http or https address") for bad in ADDRESSES),
        ("cub --mirror cub.tgz", "--mirror: 'cub.tgz' is no http or https address"),
        ("cub --url http://a/ --mirror http://b/", "--mirror: not allowed with argument --url"),
        ("cub --checksum xyz", "--checksum: 'xyz' is no MD5"),
        ("celeba", "by hand, as said above: celeba"),
    ],
)
def test_usage_mistakes_are_one_line(tmp_path, arguments, said):
    done = fail(said, tmp_path, *arguments.split())
    assert done.err.count("\n") == 1 and names(tmp_path) == []


def test_dry_run_writes_nothing(tmp_path):
    done = download(tmp_path, "cub", "celeba", "--dry_run")
    assert done.status == 0 and names(tmp_path) == []
    assert f"to {tmp_path}/datasets/downloads/CUB_200_2011.tgz" in done.out
    assert "--url LINK" in done.out and f"would check: {CATALOGUE['cub'].checksum}" in done.out


def test_fetches_by_name_from_a_mirror_and_leaves_what_is_there(site, tmp_path, packed):
    checkpoint = "ckpt_epoch_800_resnet50_celeba.pth"
    site.pages["/m/moco-resnet50-celeba.zip"] = site.page(packed("zip", "/", checkpoint))
    site.pages["/m/dve-hourglass-inat.zip"] = site.page(packed("zip", "wrap/unknown.pth"))
    site.pages["/m/inat_aves_100K.txt"] = site.page(body=b"Aves/a.jpg\n", kind="text/plain")
    wanted = ["moco-resnet50-celeba", "dve-hourglass-inat", "inat-aves-list"]
    for times in (1, 2):
        done = download(tmp_path, *wanted, "--mirror", f"{site.url}/m/")
        assert done.status == 0, done.err
        assert len(site.asked) == 3 and done.out.count("there already") == 3 * (times - 1)
    assert names(tmp_path / "Pretrained") == [checkpoint, "dve-hourglass-inat"]
    assert names(tmp_path / "Pretrained/dve-hourglass-inat") == ["unknown.pth"]
    assert names(tmp_path / "datasets/inat") == ["inat_aves_100K.txt"]
    locks = [f".{name}.lock" for name in sorted(wanted)]
    assert names(tmp_path / "datasets/downloads") == locks


def test_fetches_from_the_users_address_and_overwrites_only_if_told(site, tmp_path, packed):
    page = site.pages["/x"] = site.page(packed("gz", *CELEBA))
    here = ("celeba", "--url", f"{site.url}/x")
    folder = tmp_path / "datasets/celeba"
    (folder / "Img").mkdir(parents=True)
    (folder / "Img/mine").write_text("mine")
    fail("holds Img but not Anno", tmp_path, *here)
    assert names(folder) == ["Img"] and not site.asked
    checksum = hashlib.sha256(page.body).hexdigest()
    done = download(tmp_path, *here, "--overwrite", "--checksum", checksum, "--keep_archive")
    assert done.status == 0, done.err
    assert names(folder) == ["Anno", "Eval", "Img", "MAFL"]
    assert names(folder / "Img") == ["file.txt"]
    assert names(tmp_path / "datasets/downloads") == [".celeba.lock", "celeba.tar"]


def test_takes_an_archive_that_was_saved_by_hand(tmp_path, packed):
    archive = tmp_path / "datasets/downloads/celeba.tar"
    archive.parent.mkdir(parents=True)
    archive.write_bytes(packed("zip", *CELEBA))
    fail(f"{archive} is kept: delete it", tmp_path, "celeba", "--checksum", "0" * 32)
    assert download(tmp_path, "celeba").status == 0
    assert archive.exists() and (tmp_path / "datasets/celeba/Img/file.txt").exists()


def test_what_is_wrong_with_an_archive_leaves_nothing_half_made(site, tmp_path, packed):
    site.pages["/CUB_200_2011.tgz"] = site.page(packed("gz", "CUB_200_2011/images/a"))
    site.pages["/celeba.tar"] = site.page(packed("gz", *CELEBA[1:]))
    site.pages["/300w.tar"] = site.page(packed("tar", "../evil"))
    fail(f"expected {CATALOGUE['cub'].checksum}", tmp_path, "cub", "--mirror", site.url)
    fail("not celeba: no folder", tmp_path, "celeba", "--mirror", site.url)
    fail("cannot unpack: '../evil'", tmp_path, "300w", "--mirror", site.url)
    left = [path.name for path in tmp_path.rglob("[!.]*") if path.is_file()]
    assert sorted(left) == ["300w.tar", "celeba.tar"]


def begin(item, site, folder, **options):
    """Start to fetch an item from the site; both streams may be read."""
    command = [sys.executable, ROOT / SCRIPT, item, "--to", folder, "--mirror", site.url]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **options)


def test_of_two_runs_one_fetches(site, tmp_path, packed):
    page = site.pages["/celeba.tar"] = site.page(packed("tar", *CELEBA), stall=threading.Event())
    first = begin("celeba", site, tmp_path, stdout=subprocess.PIPE)
    while not site.asked:
        threading.Event().wait(0.01)
    second = begin("celeba", site, tmp_path, stdout=subprocess.PIPE)
    said = second.stdout.readline()
    page.stall.set()
    assert "waiting for another run" in said
    for process in (first, second):
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0 and "now in" in out, err
    assert len(site.asked) == 1


def test_interruption_keeps_the_part(site, tmp_path):
    page = site.pages["/inat_aves_100K.txt"] = site.page(stall=threading.Event())
    # A suite that runs in the background has SIGINT ignored, and hands that on.
    with_sigint = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = begin("inat-aves-list", site, tmp_path, preexec_fn=with_sigint)
    part = tmp_path / "datasets/inat/inat_aves_100K.txt.part"
    for _ in range(6000):
        if part.exists() and part.stat().st_size >= 100_000:
            break
        threading.Event().wait(0.01)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    page.stall.set()
    assert process.returncode == 130 and "Traceback" not in stderr
    assert part.stat().st_size >= 100_000
    assert json.loads(part.with_name(f"{part.name}.json").read_text())
