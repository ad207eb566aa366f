import errno
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
from filelock import FileLock, Timeout

from utils.errors import InputError
from utils.locks import acquire_lock, find_or_build, lock_folder

HOLDER = """
import subprocess, sys, time
from pathlib import Path
from utils.locks import acquire_lock, lock_descriptor

held = acquire_lock(Path(sys.argv[1]), "")
with held:
    child = [sys.executable, "-c", "import sys; sys.stdin.read()"]
    subprocess.Popen(child, pass_fds=(lock_descriptor(held),))
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_command_keeps_the_lock_of_a_killed_program(tmp_path):
    path = tmp_path / "new" / ".lock"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdout.readline() == b"held\n"
    holder.kill()
    holder.wait()
    with pytest.raises(Timeout):
        FileLock(path).acquire(timeout=0)
    holder.stdin.close()  # which ends the command
    with acquire_lock(path, "waiting", print), pytest.raises(Timeout):
        FileLock(path).acquire(timeout=0)


def test_a_holder_is_waited_for_with_a_message(tmp_path):
    path, said = tmp_path / ".lock", []
    other = FileLock(path)
    other.acquire()

    def say(message):
        said.append(message)
        other.release()

    with acquire_lock(path, "waiting for the other", say), pytest.raises(Timeout):
        other.acquire(timeout=0)
    assert said == ["waiting for the other"]


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"file/run: can't write it \(Not a directory\)"):
        lock_folder(tmp_path / "file" / "run")


def content_of(path):
    return (path / "content").read_text() if path.exists() else None


def test_a_folder_is_built_once_and_whole(tmp_path):
    path, builds = tmp_path / "caches" / "one", []

    def write(folder):
        assert not path.exists()  # it isn't there before it is whole
        builds.append(1)
        (folder / "content").write_text("all")

    def build():
        return find_or_build(path, "numbers", 3, lambda: content_of(path), write)

    path.with_name("one.partial").mkdir(parents=True)  # of a killed run
    assert build() == ("all", True) and build() == ("all", False) and builds == [1]
    assert sorted(p.name for p in path.parent.iterdir()) == ["one", "one.lock"]
    with FileLock(f"{path}.lock"):  # what is whole needs no lock
        assert build() == ("all", False)


def test_runs_that_start_together_build_once(tmp_path):
    path, together = tmp_path / "one", threading.Barrier(2)

    def write(folder):
        time.sleep(0.3)  # for the other one to find the lock taken
        (folder / "content").write_text("all")

    def build(_):
        said = []
        together.wait()
        find = partial(content_of, path)
        return *find_or_build(path, "numbers", 3, find, write, said.append), said

    with ThreadPoolExecutor(2) as pool:
        waited, built = sorted(pool.map(build, range(2)), key=lambda result: result[1])
    said = [f"waiting for another process that builds numbers, {path}"]
    assert (waited, built) == (("all", False, said), ("all", True, []))


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (KeyboardInterrupt(), pytest.raises(KeyboardInterrupt)),
        (OSError(28, "Full"), pytest.raises(InputError, match="hold numbers .Full.: needs 3 byt")),
    ],
)
def test_a_failed_build_leaves_nothing(tmp_path, error, raised):
    def write(folder):
        (folder / "content").touch()
        raise error

    with raised:
        find_or_build(tmp_path / "one", "numbers", 3, lambda: None, write)
    assert not [p.name for p in tmp_path.iterdir() if p.name != "one.lock"]


def test_a_disk_without_room_is_named_before_anything_is_written(tmp_path, monkeypatch):
    free = shutil.disk_usage(tmp_path)._replace(free=2)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: free)
    with pytest.raises(InputError, match="too little space.: needs 3 bytes, 2 are free"):
        find_or_build(tmp_path / "one", "numbers", 3, lambda: None, lambda _: pytest.fail("writes"))


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (PermissionError(errno.EACCES, "Permission denied"), "Permission denied"),
        (NotImplementedError("no locks here"), "no locks here"),
    ],
)
def test_a_folder_that_cannot_be_locked_is_named(tmp_path, monkeypatch, error, said):
    def refused(*_, **__):
        raise error

    monkeypatch.setattr(FileLock, "acquire", refused)  # these tests may run as root
    with pytest.raises(InputError, match=f"{tmp_path}: can't hold numbers .{said}.: needs 3 bytes"):
        find_or_build(tmp_path / "one", "numbers", 3, lambda: None, Path.touch)


def test_a_file_in_place_of_a_folder_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"file: can't hold numbers .*: needs 3 bytes"):
        find_or_build(tmp_path / "file/one", "numbers", 3, lambda: None, Path.touch)
