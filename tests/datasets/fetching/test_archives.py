import gzip
import io
import os
import random
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from datasets.fetching.archives import unpack
from datasets.fetching.installation import find_root, place
from utils.errors import InputError

NOISE = random.Random(0).randbytes(20_000)


def tar_with(path: Path, *members: tuple[tarfile.TarInfo | str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as tar:
        for member, content in members:
            info = tarfile.TarInfo(member) if isinstance(member, str) else member
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def zip_with(path: Path, *members: tuple[zipfile.ZipInfo | str, bytes]) -> Path:
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


def zip_link() -> zipfile.ZipInfo:
    info = zipfile.ZipInfo("evil")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


def zip_pipe() -> zipfile.ZipInfo:
    info = zipfile.ZipInfo("evil")
    info.external_attr = (stat.S_IFIFO | 0o777) << 16
    return info


HOSTILE_TARS = {
    "parent": "../evil",
    "parent_inside": "a/../../evil",
    "absolute": "/tmp/evil_of_a_test",
    "backslash": "..\\evil",
    "drive": "C:evil",
    "deep": "/".join(["evil"] * 500),
    "nothing": "./.",
    "symlink": special("evil", tarfile.SYMTYPE, "/tmp"),
    "symlink_inside": special("evil", tarfile.SYMTYPE, "good"),
    "hard_link": special("evil", tarfile.LNKTYPE, "good"),
    "device": special("evil", tarfile.CHRTYPE),
    "block_device": special("evil", tarfile.BLKTYPE),
    "pipe": special("evil", tarfile.FIFOTYPE),
}
HOSTILE_ZIPS = {
    "parent": "../evil",
    "absolute": "/tmp/evil_of_a_test",
    "backslash": "..\\evil",
    "backslash_absolute": "\\evil",
    "drive": "c:/evil",
    "symlink": zip_link(),
    "pipe": zip_pipe(),
}


def assert_refused(archive: Path, folder: Path, match: str, **limits: float) -> None:
    before = tree(folder)
    with pytest.raises(InputError, match=match) as caught:
        unpack(archive, folder / "out", **limits)
    assert "\n" not in str(caught.value) and archive.name in str(caught.value)
    assert tree(folder) == before
    assert not Path("/tmp/evil_of_a_test").exists()


@pytest.mark.parametrize("name", HOSTILE_TARS)
def test_hostile_tar_is_refused_by_name(tmp_path, name):
    archive = tar_with(tmp_path / "a.tar", ("good", NOISE), (HOSTILE_TARS[name], b""))
    assert_refused(archive, tmp_path, "(evil|'./.').* is refused")


@pytest.mark.parametrize("name", HOSTILE_ZIPS)
def test_hostile_zip_is_refused_by_name(tmp_path, name):
    archive = zip_with(tmp_path / "a.zip", ("good", NOISE), (HOSTILE_ZIPS[name], b"/tmp"))
    assert_refused(archive, tmp_path, "evil.* is refused")


def test_encrypted_zip_is_refused(tmp_path):
    archive = zip_with(tmp_path / "a.zip", ("evil", NOISE))
    data = bytearray(archive.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    archive.write_bytes(data)
    assert_refused(archive, tmp_path, "encrypted")


def test_bombs_are_refused(tmp_path):
    zeros = bytes(3_000_000)
    assert_refused(zip_with(tmp_path / "a.zip", ("0", zeros)), tmp_path, "more than")
    assert_refused(tar_with(tmp_path / "a.tgz", ("0", zeros), mode="w:gz"), tmp_path, "more than")
    skipped = tar_with(tmp_path / "b.tgz", ("0", zeros), ("x/1", b"1"), mode="w:gz")
    assert_refused(skipped, tmp_path, "more than", only="x")


def test_limits_on_bytes_and_entries(tmp_path):
    many = [(f"{i}", b"1") for i in range(20)]
    for archive in (zip_with(tmp_path / "a.zip", *many), tar_with(tmp_path / "a.tar", *many)):
        assert_refused(archive, tmp_path, "more than 19 entries", max_entries=19)
        assert_refused(archive, tmp_path, "more than 19 bytes", max_bytes=19)
        unpack(archive, tmp_path / f"out{archive.suffix}", max_entries=20)


def test_header_of_absurd_length_is_refused(tmp_path):
    info = special("evil", tarfile.GNUTYPE_LONGNAME)
    info.size = 2**35
    (tmp_path / "a.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    assert_refused(tmp_path / "a.tar", tmp_path, "header claims")


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


def test_existing_folder_is_left_alone(tmp_path):
    archive = tar_with(tmp_path / "a.tar", ("a", b"new"))
    (tmp_path / "out").mkdir()
    with pytest.raises(InputError, match="exists already"):
        unpack(archive, tmp_path / "out")
    assert tree(tmp_path) == ["a.tar", "out"]


def test_file_where_a_folder_is_needed(tmp_path):
    archive = tar_with(tmp_path / "a.tar", ("a", b"1"), ("a/b", b"2"))
    assert_refused(archive, tmp_path, "cannot unpack")


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


@pytest.mark.parametrize("again", ["a/b", "./a/b", "a//b"])
def test_an_entry_that_comes_twice_is_refused(tmp_path, again):
    members = [("a/b", b"1"), ("c", b"2"), (again, b"3")]
    if again == "a/b":
        with pytest.warns(UserWarning, match="Duplicate"):
            archives = [zip_with(tmp_path / "a.zip", *members)]
    else:
        archives = [zip_with(tmp_path / "a.zip", *members)]
    for archive in (*archives, tar_with(tmp_path / "a.tar", *members)):
        assert_refused(archive, tmp_path, "refused: there was one of that name")


def test_a_folder_may_come_twice(tmp_path):
    members = [(special("a", tarfile.DIRTYPE), b""), ("a/b", b"1")]
    archive = tar_with(tmp_path / "a.tar", *members, (special("a/", tarfile.DIRTYPE), b""))
    unpack(archive, tmp_path / "out")
    assert tree(tmp_path / "out") == ["a", "a/b"]


def test_sparse_files_are_refused(tmp_path):
    archive = tar_with(tmp_path / "a.tar", (special("evil", tarfile.GNUTYPE_SPARSE), b""))
    assert_refused(archive, tmp_path, "sparse")


def test_other_ways_to_pack_a_zip_are_refused(tmp_path):
    for method in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        with zipfile.ZipFile(tmp_path / "a.zip", "w", method) as file:
            file.writestr("evil", NOISE)
        assert_refused(tmp_path / "a.zip", tmp_path, "evil.* packed in another way")


def test_what_is_no_file_is_no_archive(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "folder"):
        assert_refused(tmp_path / name, tmp_path, f"{name}: not a file")
    assert_refused(tmp_path / "gone", tmp_path, "gone: no such file")
