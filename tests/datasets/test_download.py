import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import threading
import zipfile
from functools import partial
from pathlib import Path

import pytest

from datasets.fetching.catalogue import CATALOGUE

ROOT = Path(__file__).resolve().parents[2]


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def run(*args: object, cwd: Path = ROOT, **options) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "datasets/download.py"), *map(str, args)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=30, **options)


def run_wrong(match: str, *args: object) -> None:
    result = run("--backoff", 0, *args)
    assert result.returncode == 2, result.stderr
    assert match in result.stderr and "Traceback" not in result.stderr
    assert "download.py: error: " in result.stderr.splitlines()[-1]


def packed(kind: str, *files: str) -> bytes:
    buffer = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(buffer, "w") as archive:
            for name in files:
                archive.writestr(name, name)
    else:
        with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
            for name in files:
                info = tarfile.TarInfo(name)
                info.size = len(name)
                archive.addfile(info, io.BytesIO(name.encode()))
    return buffer.getvalue()


CELEBA = [f"some/celeba/{name}/file.txt" for name in CATALOGUE["celeba"].holds]


def test_lists_everything_without_a_network(tmp_path):
    result = run(env={**os.environ, "https_proxy": "http://127.0.0.1:9"}, cwd=tmp_path)
    assert result.returncode == 0 and names(tmp_path) == []
    for item in CATALOGUE.values():
        assert item.name in result.stdout and item.folder in result.stdout
        assert item.licence in result.stdout and (item.checksum or "") in result.stdout


def test_usage_mistakes_are_one_line(tmp_path):
    run_wrong("nothing called 'celebs'; did you mean celeba", "celebs")
    run_wrong("nothing called 'zzz'", "cub", "zzz", "--to", tmp_path)
    run_wrong("--url goes with one NAME", "cub", "celeba", "--url", "http://a/", "--to", tmp_path)
    run_wrong(
        "--retries: expected an integer from 0 to 1000000000, got '-1'",
        "cub",
        "--retries",
        -1,
        "--to",
        tmp_path,
    )
    for flag in ("url", "mirror"):
        for address in ("cub.tgz", "ftp://a/", "http://[", "http://a..b"):
            text = f"--{flag}: {address!r} is no http or https address"
            run_wrong(text, "cub", f"--{flag}", address, "--to", tmp_path)
    both = ("--url", "http://a/", "--mirror", "http://b/")
    run_wrong("--mirror: not allowed with argument --url", "cub", *both, "--to", tmp_path)
    run_wrong("--checksum: 'xyz' is no MD5", "cub", "--checksum", "xyz", "--to", tmp_path)
    run_wrong("by hand, as said above: celeba", "celeba", "--to", tmp_path)
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("flag", "value"), [("retries", -1), ("retries", 1.5), ("timeout", 0), ("backoff", "nan")]
)
def test_numbers_out_of_range_are_refused_in_one_line(flag, value, tmp_path):
    done = run("cub", f"--{flag}={value}", "--to", tmp_path)
    assert done.returncode == 2 and f"argument --{flag}: " in done.stderr
    assert done.stderr.count("\n") == 1 and names(tmp_path) == []


def test_dry_run_writes_nothing(tmp_path):
    result = run("cub", "celeba", "--dry_run", "--to", tmp_path)
    assert result.returncode == 0 and names(tmp_path) == []
    assert f"to {tmp_path}/datasets/downloads/CUB_200_2011.tgz" in result.stdout
    assert "--url LINK" in result.stdout


def test_fetches_by_name_from_a_mirror_and_leaves_what_is_there(site, tmp_path):
    checkpoint = "ckpt_epoch_800_resnet50_celeba.pth"
    site.pages["/m/moco-resnet50-celeba.zip"] = site.page(packed("zip", "/", checkpoint))
    site.pages["/m/dve-hourglass-inat.zip"] = site.page(packed("zip", "wrap/unknown.pth"))
    site.pages["/m/inat_aves_100K.txt"] = site.page(body=b"Aves/a.jpg\n", kind="text/plain")
    wanted = ["moco-resnet50-celeba", "dve-hourglass-inat", "inat-aves-list"]
    for times in (1, 2):
        result = run(*wanted, "--mirror", f"{site.url}/m/", "--to", tmp_path)
        assert result.returncode == 0, result.stderr
        assert len(site.asked) == 3 and result.stdout.count("there already") == 3 * (times - 1)
    assert names(tmp_path / "Pretrained") == [checkpoint, "dve-hourglass-inat"]
    assert names(tmp_path / "Pretrained/dve-hourglass-inat") == ["unknown.pth"]
    assert names(tmp_path / "datasets/inat") == ["inat_aves_100K.txt"]
    locks = [f".{name}.lock" for name in sorted(wanted)]
    assert names(tmp_path / "datasets/downloads") == locks


def test_fetches_from_the_users_address_and_overwrites_only_if_told(site, tmp_path):
    page = site.pages["/x"] = site.page(packed("tar", *CELEBA))
    here = ("celeba", "--url", f"{site.url}/x", "--to", tmp_path)
    folder = tmp_path / "datasets/celeba"
    (folder / "Img").mkdir(parents=True)
    (folder / "Img/mine").write_text("mine")
    run_wrong("holds Img but not Anno", *here)
    assert names(folder) == ["Img"] and not site.asked
    checksum = hashlib.sha256(page.body).hexdigest()
    result = run(*here, "--overwrite", "--checksum", checksum, "--keep_archive")
    assert result.returncode == 0, result.stderr
    assert names(folder) == ["Anno", "Eval", "Img", "MAFL"]
    assert names(folder / "Img") == ["file.txt"]
    assert names(tmp_path / "datasets/downloads") == [".celeba.lock", "celeba.tar"]


def test_takes_an_archive_that_was_saved_by_hand(tmp_path):
    archive = tmp_path / "datasets/downloads/celeba.tar"
    archive.parent.mkdir(parents=True)
    archive.write_bytes(packed("zip", *CELEBA))
    assert run("celeba", "--to", tmp_path).returncode == 0
    assert archive.exists() and (tmp_path / "datasets/celeba/Img/file.txt").exists()


def test_what_is_wrong_with_an_archive_leaves_nothing_half_made(site, tmp_path):
    site.pages["/CUB_200_2011.tgz"] = site.page(packed("tar", "CUB_200_2011/images/a"))
    run_wrong("expected 1150585339", "cub", "--mirror", site.url, "--to", tmp_path)
    site.pages["/celeba.tar"] = site.page(packed("tar", *CELEBA[1:]))
    run_wrong("not celeba: no folder", "celeba", "--mirror", site.url, "--to", tmp_path)
    site.pages["/300w.tar"] = site.page(packed("tar", "../evil"))
    run_wrong("is refused: '../evil'", "300w", "--mirror", site.url, "--to", tmp_path)
    left = [path.name for path in tmp_path.rglob("[!.]*") if path.is_file()]
    assert sorted(left) == ["300w.tar", "celeba.tar"]


def test_of_two_runs_one_fetches(site, tmp_path):
    page = site.pages["/celeba.tar"] = site.page(packed("tar", *CELEBA), stall=threading.Event())
    command = [sys.executable, str(ROOT / "datasets/download.py"), "celeba", "--to", str(tmp_path)]
    command += ["--mirror", site.url]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    first = subprocess.Popen(command, **options)
    while not site.asked:
        threading.Event().wait(0.01)
    second = subprocess.Popen(command, **options)
    said = second.stdout.readline()
    page.stall.set()
    assert "waiting for another run" in said
    for run in (first, second):
        out, _ = run.communicate(timeout=60)
        assert run.returncode == 0 and "now in" in out, out
    assert len(site.asked) == 1


def test_interruption_keeps_the_part(site, tmp_path):
    site.pages["/inat_aves_100K.txt"] = site.page(stall=threading.Event())
    script = str(ROOT / "datasets/download.py")
    command = [sys.executable, script, "inat-aves-list", "--mirror", site.url, "--to", tmp_path]
    # A suite that runs in the background has SIGINT ignored, and hands that on.
    with_sigint = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=with_sigint)
    part = tmp_path / "datasets/inat/inat_aves_100K.txt.part"
    for _ in range(6000):
        if part.exists() and part.stat().st_size >= 100_000:
            break
        threading.Event().wait(0.01)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    site.pages["/inat_aves_100K.txt"].stall.set()
    assert process.returncode == 130 and "Traceback" not in stderr
    assert part.stat().st_size >= 100_000 and json.loads(
        part.with_name(f"{part.name}.json").read_text()
    )
