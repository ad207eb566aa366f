import subprocess
import sys
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


def test_a_folder_is_built_once_and_whole(tmp_path):
    path, builds = tmp_path / "caches" / "one", []

    def find():
        return (path / "content").read_text() if path.exists() else None

    def write(partial):
        assert not path.exists()  # it isn't there before it is whole
        builds.append(1)
        (partial / "content").write_text("all")

    def build():
        return find_or_build(path, "numbers", 3, find, write)

    path.with_name("one.partial").mkdir(parents=True)  # of a killed run
    assert build() == ("all", True) and build() == ("all", False) and builds == [1]
    assert sorted(p.name for p in path.parent.iterdir()) == ["one", "one.lock"]


def test_a_failed_build_leaves_nothing(tmp_path):
    def write(partial):
        (partial / "content").touch()
        raise OSError(28, "No space left on device")

    with pytest.raises(InputError, match="can't hold numbers .No space left.*: needs 3 bytes"):
        find_or_build(tmp_path / "one", "numbers", 3, lambda: None, write)
    assert not [p.name for p in tmp_path.iterdir() if p.name != "one.lock"]
