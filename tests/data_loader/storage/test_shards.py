"""Shards are found, counted and read; what is in them is not trusted."""

import gzip
import os
import tarfile

import pytest

from data_loader.storage import shards
from data_loader.storage.shards import (
    Shard,
    count_images,
    find_shards,
    holds_shards,
    image_key,
    images,
)
from tests.data_loader.layouts import complaint
from tests.data_loader.shard_files import image, write_index, write_shards, write_tar


def read_all(path, count=None):
    shard = Shard(path, count_images(path) if count is None else count)
    return list(images(shard, 0, shard.count))


# ---- finding ----


def test_a_pattern_a_tar_a_folder_and_an_index_name_shards(tmp_path, monkeypatch):
    pattern = write_shards(tmp_path, [3, 1, 2])
    paths = [tmp_path / f"birds-00{i}.tar" for i in range(3)]
    expected = [Shard(path, count) for path, count in zip(paths, [3, 1, 2], strict=True)]
    entries = [(path.name, count) for path, count in expected]
    for name in (pattern, str(tmp_path), write_index(tmp_path / "all.json", *entries)):
        assert holds_shards(name)
        assert find_shards(name) == expected
    assert find_shards(str(paths[0])) == expected[:1]
    assert find_shards(str(tmp_path / "birds-{001,000}.tar")) == [expected[1], expected[0]]
    monkeypatch.chdir(tmp_path)
    assert find_shards("birds-{000..002}.tar") == expected
    assert find_shards("all.json") == expected
    (tmp_path / "x{1,2}.tar").write_bytes(paths[0].read_bytes())
    assert find_shards("x{1,2}.tar") == [Shard(tmp_path / "x{1,2}.tar", 3)]


def test_the_folder_of_a_benchmark_is_none_of_shards(tmp_path):
    assert not holds_shards(str(tmp_path))
    assert not holds_shards(str(tmp_path / "absent"))
    write_shards(tmp_path, [1])
    (tmp_path / ".cache").mkdir()
    assert holds_shards(str(tmp_path))
    (tmp_path / "Img").mkdir()
    assert not holds_shards(str(tmp_path))


def test_an_index_saves_counting(tmp_path, monkeypatch):
    write_shards(tmp_path, [3])
    monkeypatch.setattr(shards, "read_images", None)
    index = write_index(tmp_path / "i.json", ("birds-000.tar", 3))
    assert find_shards(index) == [Shard(tmp_path / "birds-000.tar", 3)]


@pytest.mark.parametrize("name", ["a.tar", "b-{0..2}.tar", "a.json", ""])
def test_absent_shards(tmp_path, name):
    assert str(tmp_path) in complaint(find_shards, str(tmp_path / name))


@pytest.mark.parametrize("pattern", ["a{0..1.tar", "a{0..99999999999}.tar", "a{0..%s}.tar"])
def test_patterns_that_cannot_be_expanded(pattern):
    pattern = pattern.replace("%s", "9" * 5000)
    assert complaint(find_shards, pattern).startswith(pattern[:9])


def test_a_shard_named_twice(tmp_path):
    write_shards(tmp_path, [3])
    entry = ("birds-000.tar", 3)
    assert "twice" in complaint(find_shards, write_index(tmp_path / "i.json", entry, entry))
    assert "twice" in complaint(find_shards, str(tmp_path / "birds-{000,000}.tar"))


def test_nothing_is_run_or_fetched(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    canary = tmp_path / "canary"
    commands = [f"pipe:touch {canary}", f"pipe:touch {canary}{{a,b}}.tar"]
    for name in [*commands, "http://localhost:9/a.tar", "s3://a/b.tar", "file:///etc/passwd"]:
        assert "shards are files" in complaint(find_shards, name)
        index = write_index(tmp_path / "i.json", (name, 1))
        assert "shards are files" in complaint(find_shards, index)
    for name in ("-", "\0", "a\nb.tar", "x" * 5000, ".", f" pipe:touch {canary}"):
        complaint(find_shards, write_index(tmp_path / "i.json", (name, 1)))
    os.mkfifo("fifo.tar")
    assert "not a file" in complaint(find_shards, "fifo.tar")
    # Even a file of such a name is only read.
    os.mkdir(tmp_path / "pipe:touch ..")
    write_tar(tmp_path / "pipe:touch .." / "a.tar", [("a.jpg", image(1))])
    (path,) = find_shards(str(tmp_path / "pipe:touch .." / "a.tar"))
    assert len(read_all(path.path)) == 1
    assert not canary.exists()


ENTRIES = ["3", "[]", "{}", '{"url": "birds-000.tar"}', '{"url": "absent.tar", "nsamples": 3}']
ENTRIES += [f'{{"url": {url}, "nsamples": 3}}' for url in ("3", "null", '""', '["birds-000.tar"]')]
COUNTS = ("-1", "0", "3.0", '"3"', "true", "null", "1e3", "99999999999999")
ENTRIES += [f'{{"url": "birds-000.tar", "nsamples": {count}}}' for count in COUNTS]


@pytest.mark.parametrize(
    "content",
    [
        *("", "[]", "3", "{", "{}", "[" * 100_000, "\xff"),
        '{"wids_version": 2, "shardlist": [{"url": "birds-000.tar", "nsamples": 3}]}',
        '{"wids_version": 1, "shardlist": []}',
        '{"wids_version": 1, "shardlist": {"url": "birds-000.tar"}}',
        *(f'{{"wids_version": 1, "shardlist": [{entry}]}}' for entry in ENTRIES),
    ],
)
def test_an_index_of_another_form(tmp_path, content):
    write_shards(tmp_path, [3])
    (tmp_path / "i.json").write_text(content, encoding="latin-1")
    assert str(tmp_path) in complaint(find_shards, str(tmp_path / "i.json"))


# ---- reading ----


def test_images_are_read_in_order_from_any_place(tmp_path):
    write_shards(tmp_path, [5])
    path = tmp_path / "birds-000.tar"
    all_of_them = read_all(path)
    assert [p.data for p in all_of_them] == [image(i) for i in range(5)]
    assert [p.path for p in all_of_them] == [path / f"{i:06}.jpg" for i in range(5)]
    for first in range(5):
        for stop in range(first, 6):
            assert list(images(Shard(path, 5), first, stop)) == all_of_them[first:stop]


@pytest.mark.parametrize(
    "options", [{"format": tarfile.GNU_FORMAT}, {"format": tarfile.PAX_FORMAT}]
)
def test_long_names_labels_folders_and_notes(tmp_path, options):
    folder, long = tarfile.TarInfo("a"), "a/" + "b" * 110
    folder.type = tarfile.DIRTYPE
    members = [
        ("__notes__/x.jpg", b"?"),
        (folder, b""),
        ("a/0.cls", b"1"),
        ("a/0.JPG", image(0)),
        ("a/0.seg.png", b"?"),
        ("a/0.json", b"{}"),
        (f"{long}.txt", b"?"),
        (f"{long}.webp", image(1)),
        (".hidden.jpg", b"?"),
        ("b.jpeg", image(2)),
    ]
    path = write_tar(tmp_path / "a.tar", members, **options)
    found = read_all(path)
    assert [p.data for p in found] == [image(i) for i in range(3)]
    assert [str(p.path) for p in found] == [
        f"{path}/a/0.JPG",
        f"{path}/{long}.webp",
        f"{path}/b.jpeg",
    ]
    assert list(images(Shard(path, 3), 1, 3)) == found[1:]


def test_names_that_are_images():
    for name in (
        "a/b.jpg",
        "./a.d/b.PNG",
        "a.2.jpg",
        "2019.04.12.png",
        "a.rf.3fb.jpg",
        "a/b .c d.jpg",
    ):
        assert image_key(name) == name[:-4]
    for name in ("a.cls", "a", "jpg", ".jpg", "a.jpg/b", "a.jpg\n", "__a__/b.jpg", "._a.jpg"):
        assert image_key(name) is None
    for name in ("a.seg.png", "a/b.mask1.png", "a/b.x.depth16.png"):
        assert image_key(name) is None
    assert image_key("a/b.2.jpg", {"b", "a", "a/b.2"}) == "a/b.2"
    assert image_key("a/b.2.jpg", {"a/b"}) is None


def test_dots_in_names(tmp_path):
    """Dates are read; a sample's second image isn't, wherever reading begins."""
    members = [
        ("IMG_2019.04.12.jpg", image(0)),
        ("IMG_2019.04.13.jpg", image(1)),
        ("a.seg.png", b"?"),
        ("a.jpg", image(2)),
        ("b.jpg", image(3)),
        ("a.2.jpg", b"?"),
        ("a.cls", b"1"),
    ]
    path = write_tar(tmp_path / "a.tar", members)
    assert find_shards(str(path)) == [Shard(path, 4)]
    for first in range(4):
        found = [i.data for i in images(Shard(path, 4), first, 4)]
        assert found == [image(i) for i in range(first, 4)]
    path = write_tar(tmp_path / "a.tar", [*members, members[0]])
    assert "two images with the key 'IMG_2019.04.12'" in complaint(find_shards, str(path))


def test_names_that_lead_elsewhere_are_only_names(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    names = ["../up.jpg", str(tmp_path / "absolute.jpg"), "../../\x1b[31m.jpg"]
    path = write_tar(folder / "a.tar", [(name, image(i)) for i, name in enumerate(names)])
    found = read_all(path)
    assert [p.data for p in found] == [image(i) for i in range(3)]
    assert all(str(p.path).startswith(f"{path}/") and str(p.path).isprintable() for p in found)
    assert [p.name for p in tmp_path.iterdir()] == ["in"]
    assert [p.name for p in folder.iterdir()] == ["a.tar"]


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE]
)
def test_links_and_devices_are_no_images(tmp_path, kind):
    link = tarfile.TarInfo("b.jpg")
    link.type, link.linkname = kind, "/etc/passwd"
    path = write_tar(tmp_path / "a.tar", [("a.jpg", image(0)), (link, b""), ("c.jpg", image(1))])
    assert f"{path}: " in complaint(count_images, path)
    assert f"{path}: unusable shard ('b.jpg' is a link or device)" in complaint(read_all, path, 3)


@pytest.mark.parametrize("other", ["a.jpg", "a.png", "a.JPG"])
def test_two_images_of_one_key(tmp_path, other):
    for names in (("a.jpg", other, "c.jpg"), ("a.jpg", "c.jpg", other)):
        path = write_tar(tmp_path / "a.tar", [(name, image(0)) for name in names])
        for action, count in ((count_images, ()), (read_all, (3,))):
            assert f"{path}: unusable shard (two images" in complaint(action, path, *count)


@pytest.mark.parametrize("count", [1, 3, 5, 6])
def test_counts_that_turn_out_wrong(tmp_path, count):
    write_shards(tmp_path, [4])
    path = tmp_path / "birds-000.tar"
    assert str(path) in complaint(read_all, path, count)
    assert str(path) in complaint(lambda: list(images(Shard(path, count), count - 1, count)))


# ---- damage ----


def test_files_that_are_no_shards(tmp_path):
    path = tmp_path / "a.tar"
    whole = write_tar(path, [("a.jpg", image(0))]).read_bytes()
    contents = [b"", b"text\n" * 500, image(0), gzip.compress(whole), bytes(5), bytes(10240)]
    for content in contents:
        path.write_bytes(content)
        assert str(path) in complaint(find_shards, str(path))
        assert str(path) in complaint(read_all, path, 1)
    write_tar(path, [("a.txt", b"?")])
    assert "holds no image" in complaint(find_shards, str(path))
    path.unlink()
    assert f"{path}: no such shard" in complaint(read_all, path, 1)


def test_shards_cut_short(tmp_path):
    write_shards(tmp_path, [4])
    path = tmp_path / "birds-000.tar"
    whole = path.read_bytes()
    ends = len(whole.rstrip(b"\0")) // 512 * 512 + 512
    for length in [*range(0, ends, 256), ends - 1, ends]:
        path.write_bytes(whole[:length])
        assert str(path) in complaint(count_images, path)
        if length < ends - 1536:  # behind the last image there is a label
            assert str(path) in complaint(read_all, path, 4)


def header(name: str, size: bytes, kind: bytes = b"0") -> bytes:
    """Return a header with a size field (12 bytes) of any content."""
    block = bytearray(tarfile.TarInfo(name).tobuf(tarfile.USTAR_FORMAT))
    block[124:136] = size
    block[156:157] = kind
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


@pytest.mark.parametrize(
    ("size", "kind"),
    [
        (b"\x80" + (2**62).to_bytes(11, "big"), b"0"),
        (b"\x80" + (2**62).to_bytes(11, "big"), b"L"),  # a long name
        (b"\x80" + (2**62).to_bytes(11, "big"), b"x"),  # pax
        (b"\x80" + (2**62).to_bytes(11, "big"), b"S"),  # sparse
        (b"\xff" * 11 + b"\x00", b"0"),  # -256, back into this header
        (b"\xff" * 10 + b"\xfa\x00", b"0"),
        (b"\xff" * 11 + b"\x00", b"x"),
        (b"not octal\0\0\0", b"0"),
    ],
)
def test_sizes_that_lie(tmp_path, size, kind):
    path = tmp_path / "a.tar"
    first = write_tar(path, [("a.jpg", image(0))]).read_bytes().rstrip(b"\0")
    for start in (b"", first + bytes(-len(first) % 512)):
        path.write_bytes(start + header("b.jpg", size, kind) + bytes(10240))
        assert str(path) in complaint(count_images, path)
        assert str(path) in complaint(read_all, path, 3)
