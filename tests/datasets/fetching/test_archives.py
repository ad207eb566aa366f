import gzip
import os
import random
import re
import zipfile

import pytest

from datasets.fetching.archives import unpack
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
