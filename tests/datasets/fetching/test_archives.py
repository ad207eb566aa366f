import gzip
import io
import os
import random
import tarfile
import zipfile
from pathlib import Path

import pytest

from datasets.fetching.archives import unpack
from datasets.fetching.installation import find_root, place
from utils.errors import InputError

NOISE = random.Random(0).randbytes(20_000)


def tar_with(path: Path, *members: tuple[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def zip_with(path: Path, *members: tuple[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for member, content in members:
            file.writestr(member, content)
    return path


def tree(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.mark.parametrize("kind", ["w", "w:gz", "zip"])
def test_unpacks_files_and_folders(tmp_path, kind):
    members = [("a/one.bin", NOISE), ("a/b/two.txt", b"two"), ("three ü.txt", b"")]
    archive = tmp_path / "archive.any_name"
    zip_with(archive, *members) if kind == "zip" else tar_with(archive, *members, mode=kind)
    unpack(archive, tmp_path / "out")
    assert tree(tmp_path / "out") == ["a", "a/b", "a/b/two.txt", "a/one.bin", "three ü.txt"]
    assert (tmp_path / "out/a/one.bin").read_bytes() == NOISE
    assert sorted(os.listdir(tmp_path)) == ["archive.any_name", "out"]


def test_unpacks_only_the_wanted_part(tmp_path):
    archive = tar_with(tmp_path / "a", ("x/Aves/1", b"1"), ("x/Avesta/2", b"2"), ("y", b"3"))
    unpack(archive, tmp_path / "out", only="x/Aves")
    assert tree(tmp_path / "out") == ["x", "x/Aves", "x/Aves/1"]


def test_zip_that_lists_its_own_folder_as_dropbox_does(tmp_path):
    archive = zip_with(tmp_path / "a.zip", ("/", b""), ("w.pth", NOISE))
    unpack(archive, tmp_path / "out")
    assert tree(tmp_path / "out") == ["w.pth"]


def assert_refused(archive: Path, folder: Path, match: str) -> None:
    with pytest.raises(InputError, match=match) as caught:
        unpack(archive, folder / "out")
    assert "\n" not in str(caught.value) and archive.name in str(caught.value)


def test_a_tar_that_leads_elsewhere_is_refused(tmp_path):
    archive = tar_with(tmp_path / "a.tar", ("good", NOISE), ("../evil", b"1"))
    assert_refused(archive, tmp_path, "is refused: '../evil'")
    assert sorted(os.listdir(tmp_path)) == ["a.tar", "out"]


def test_encrypted_zip_is_refused(tmp_path):
    archive = zip_with(tmp_path / "a.zip", ("secret", NOISE))
    data = bytearray(archive.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    archive.write_bytes(data)
    assert_refused(archive, tmp_path, "secret.* is encrypted")


@pytest.mark.parametrize("cut", [0, 100, 512 * 3, 512 * 10 + 7])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_damaged_tar_is_refused(tmp_path, cut, pack):
    whole = tar_with(tmp_path / "whole", ("a", b"1"), ("b", NOISE)).read_bytes()
    (tmp_path / "cut.tar").write_bytes(pack(whole[:cut]))
    assert_refused(tmp_path / "cut.tar", tmp_path, "cut off|not a whole")
    if pack is gzip.compress:
        (tmp_path / "cut.tar").write_bytes(gzip.compress(whole)[: 100 + cut])
        assert_refused(tmp_path / "cut.tar", tmp_path, "cut off|not a whole")


def test_broken_header_is_not_taken_for_the_end(tmp_path):
    data = bytearray(tar_with(tmp_path / "a.tar", ("a", b"1"), ("b", NOISE)).read_bytes())
    data[1024 + 20] ^= 255
    (tmp_path / "a.tar").write_bytes(data)
    assert_refused(tmp_path / "a.tar", tmp_path, "damaged")


def test_damaged_zip_is_refused(tmp_path):
    whole = zip_with(tmp_path / "whole", ("a", NOISE)).read_bytes()
    (tmp_path / "a.zip").write_bytes(whole[:-30])
    assert_refused(tmp_path / "a.zip", tmp_path, "not a whole")
    (tmp_path / "a.zip").write_bytes(whole.replace(NOISE[500:510], bytes(10)))
    assert_refused(tmp_path / "a.zip", tmp_path, "not a whole")


def grow(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"{folder.name}/{name}")
    return folder


def test_find_root_takes_the_shallowest_folder_that_has_all(tmp_path):
    grow(tmp_path, "x/Img/1", "x/y/Img/1", "x/y/Anno/1", "x/z/w/Img/1", "x/z/w/Anno/1")
    assert find_root(tmp_path, ("Img", "Anno")) == tmp_path / "x/y"
    assert find_root(tmp_path, ("Img", "Nothing")) is None


def test_place_adds_to_a_folder_but_replaces_only_if_told(tmp_path):
    new, old = grow(tmp_path / "new", "a", "b/c"), grow(tmp_path / "old", "b/d", "e")
    with pytest.raises(InputError, match="old/b exists already"):
        place(new, old)
    assert tree(old) == ["b", "b/d", "e"] and tree(new) == ["a", "b", "b/c"]
    place(new, old, overwrite=True)
    assert tree(old) == ["a", "b", "b/c", "e"]


def test_place_moves_everything_back_when_it_fails(tmp_path, monkeypatch):
    new, old = grow(tmp_path / "new", "a", "b", "c"), grow(tmp_path / "old", "b")
    rename = Path.rename

    def failing(self: Path, target: Path) -> Path:
        if self == new / "c":
            raise OSError("no")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(OSError, match="no"):
        place(new, old, overwrite=True)
    assert tree(old) == ["b"] and (old / "b").read_text() == "old/b"
    assert tree(new) == [".old", "a", "b", "c"]
