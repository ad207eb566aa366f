import gzip
import os
import random
import re
import zipfile
from dataclasses import replace

import pytest

from datasets.fetching.catalogue import CATALOGUE
from datasets.fetching.installation import find_root, place, unpack
from tests.data_loader.layouts import complaint
from tests.data_loader.shard_files import write_tar

NOISE = random.Random(0).randbytes(20_000)


def write_archive(path, kind, *members):
    """Write an archive of (name, bytes); return its path."""
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            for member in members:
                file.writestr(*member)
    else:
        write_tar(path, members)
        path.write_bytes(gzip.compress(path.read_bytes()) if kind == "gz" else path.read_bytes())
    return path


def tree(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.mark.parametrize("kind", ["tar", "gz", "zip"])
def test_unpacks_files_and_folders_or_just_the_wanted_part(tmp_path, kind):
    members = [("a/one.bin", NOISE), ("ab/two.txt", b"two"), ("three ü.txt", b"")]
    archive = write_archive(tmp_path / "archive.any_name", kind, *members)
    unpack(archive, tmp_path / "out")
    assert tree(tmp_path / "out") == ["a", "a/one.bin", "ab", "ab/two.txt", "three ü.txt"]
    assert (tmp_path / "out/a/one.bin").read_bytes() == NOISE
    unpack(archive, tmp_path / "part", only="a")
    assert tree(tmp_path / "part") == ["a", "a/one.bin"]
    assert sorted(os.listdir(tmp_path)) == ["archive.any_name", "out", "part"]


def encrypt(data):
    place = data.index(b"PK\x01\x02") + 8
    return data[:place] + bytes([data[place] | 1]) + data[place + 1 :]


CUTS = [0, 100, 512 * 3, 512 * 10 + 7]


@pytest.mark.parametrize(
    ("kind", "damage", "said"),
    [
        *(("tar", lambda data, cut=cut: data[:cut], "cut off|not a whole") for cut in CUTS),
        *(
            ("tar", lambda data, cut=cut: gzip.compress(data[:cut]), "cut off|not a whole")
            for cut in CUTS
        ),
        *(("gz", lambda data, cut=cut: data[: 100 + cut], "cut off|not a whole") for cut in CUTS),
        *(
            ("tar", lambda data, pack=pack: pack(data.replace(b"bee", b"bed")), "damaged")
            for pack in (bytes, gzip.compress)
        ),
        ("zip", lambda data: data[:-30], "not a whole"),
        ("zip", lambda data: data.replace(NOISE[500:510], bytes(10)), "not a whole"),
        ("zip", encrypt, "a.* is encrypted"),
    ],
)
def test_a_damaged_archive_is_refused(tmp_path, kind, damage, said):
    """A broken header, whose checksum is wrong, isn't taken for the end either."""
    path = write_archive(tmp_path / "a.any", kind, ("a", b"1"), ("bee", NOISE))
    path.write_bytes(damage(path.read_bytes()))
    assert re.match(f"{path}: .*({said})", complaint(unpack, path, tmp_path / "out"))


def grow(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"{folder.name}/{name}")
    return folder


@pytest.mark.parametrize(
    ("item", "holds", "root"),
    [
        ("300w", ("Img", "Anno"), "x/y"),  # the shallowest that has all
        ("300w", ("Img", "Nothing"), None),
        ("regressors-bird", ("Img", "Nothing"), "x"),  # the first that holds more than a folder
        ("dve-hourglass-inat", (), "x"),
    ],
)
def test_the_folder_within_the_archive(tmp_path, item, holds, root):
    grow(tmp_path, "x/Img/1", "x/y/Img/1", "x/y/Anno/1", "x/z/w/Img/1", "x/z/w/Anno/1")
    item = replace(CATALOGUE[item], holds=holds)
    if root is None:
        assert "no folder holds all of Img, Nothing" in complaint(find_root, tmp_path, item)
    else:
        assert find_root(tmp_path, item) == tmp_path / root


def test_place_adds_to_a_folder_but_replaces_only_if_told(tmp_path):
    new, old = grow(tmp_path / "new", "a", "b/c"), grow(tmp_path / "old", "b/d", "e")
    assert "old/b exists already" in complaint(place, new, old, overwrite=False)
    assert tree(old) == ["b", "b/d", "e"] and tree(new) == ["a", "b", "b/c"]
    place(new, old, overwrite=True)
    assert tree(old) == ["a", "b", "b/c", "e"]
