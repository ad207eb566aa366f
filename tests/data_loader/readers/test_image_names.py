"""Names of images below a folder and in a list. No file is opened, so that all are empty."""

import os
import pickle

import pytest

from data_loader.readers.image_names import Names, find_images, resolve_listed
from tests.data_loader.layouts import complaint, write_text


def write_files(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def found(root):
    names, notices = find_images(root)
    assert notices == []
    return list(names)


def test_images_are_in_the_order_of_their_paths_whatever_the_folders(tmp_path):
    # As strings: "-" comes before "/" and "1" before "2".
    names = ["a-b/1.jpg", "a/k.jpg", "a/z.jpg", "b species/10.jpg", "b species/2.jpg"]
    write_files(tmp_path / "published", *reversed(names))
    assert found(tmp_path / "published") == names
    names = ["a/1.jpg", "a.jpg", "a0.jpg", "a-.jpg", "a/b/1.jpg", "a/b.jpg", "a b/1.jpg", "é/1.jpg"]
    write_files(tmp_path / "odd", *names)
    (tmp_path / "odd/a/none/none").mkdir(parents=True)
    assert found(tmp_path / "odd") == sorted(names)


def test_all_kinds_at_any_depth_are_taken_and_the_rest_is_counted(tmp_path):
    taken = ["a/b/c/1.jpeg", "a/2.PNG", "a/3.webp", "4.JPG"]
    ignored = ["a/._1.jpg", ".DS_Store", "__MACOSX/a/._2.jpg", ".hidden/5.jpg", "a/n.txt", "b.TXT"]
    write_files(tmp_path, *taken, *ignored, "README")
    (tmp_path / "empty").mkdir()
    (tmp_path / "a/loop").symlink_to(tmp_path)
    names, notices = find_images(tmp_path)
    assert list(names) == sorted(taken)
    said = "7 files or folders left out: 4 hidden, 2 *.txt, 1 without suffix"
    assert notices == [f"{tmp_path}: {said}"]


def test_folders_without_images_name_the_accepted_suffixes(tmp_path):
    write_files(tmp_path, "a/._1.jpg", "a/1.tif")
    message = complaint(find_images, tmp_path)
    assert message.startswith(f"{tmp_path}: holds no image") and "*.jpeg, *.jpg" in message


def test_ones_own_images_may_be_of_more_kinds(tmp_path):
    write_files(tmp_path, "a/1.jpg", "a/2.tif", "a/3.TIFF", "a/4.heic", "a/5.HEIF", "a/6.dng")
    names, notices = find_images(tmp_path, own=True)
    assert [*names] == ["a/1.jpg", "a/2.tif", "a/3.TIFF", "a/4.heic", "a/5.HEIF"]
    assert notices == [f"{tmp_path}: 1 files or folders left out: 1 *.dng"]


def test_listed_paths_are_written_plainly(tmp_path, monkeypatch):
    write_files(tmp_path, "a/1.jpg", "a/.2.jpg", "3.jpg")
    (tmp_path / "list.txt").write_text(
        f"./a//1.jpg\na/./.2.jpg\n{tmp_path}/3.jpg\n3.jpg/\na/../3.jpg\na\\1.jpg\n"
    )
    monkeypatch.chdir(tmp_path / "a")
    wanted = ["a/1.jpg", "a/.2.jpg", "3.jpg", "3.jpg", "a/../3.jpg", "a/1.jpg"]
    listed = resolve_listed(tmp_path / "list.txt", tmp_path, False)
    assert list(listed) == [str(tmp_path / name) for name in wanted]


def test_listed_paths_may_be_those_of_windows(tmp_path):
    write_files(tmp_path, "a b/1 2.jpg", "a b/3.jpg")
    (tmp_path / "list.txt").write_bytes("a b\\1 2.jpg\r\na b/3.jpg\r\n".encode("utf-16"))
    listed = resolve_listed(tmp_path / "list.txt", tmp_path, False)
    assert list(listed) == [str(tmp_path / "a b" / name) for name in ("1 2.jpg", "3.jpg")]


def test_a_line_is_tried_as_given_then_under_the_root_then_beside_the_list(tmp_path, monkeypatch):
    here, root, beside = tmp_path / "here", tmp_path / "root", tmp_path / "lists"
    write_files(here, "s/1.jpg")
    write_files(root, "s/1.jpg", "s/2.jpg")
    write_files(beside, "s/1.jpg", "s/2.jpg", "s/3.jpg")
    write_files(tmp_path, "abs/with space.jpg")
    monkeypatch.chdir(here)
    lines = ["s/3.jpg", "s/1.jpg", "s/2.jpg", str(tmp_path / "abs/with space.jpg"), "s/1.jpg"]
    wanted = [beside / lines[0], here / lines[1], root / lines[2], tmp_path / lines[3]]
    wanted.append(here / lines[1])  # the list's order, repeats included
    for end in ("\n", "\r\n"):
        write_text(beside / "list.txt", *lines, end=end)
        listed = resolve_listed(beside / "list.txt", root, False)
        assert list(listed) == [str(path) for path in wanted]


def test_a_list_may_be_relative_to_a_folder_above_it(tmp_path):
    write_files(tmp_path, "inat/Aves/Species_0/0000.jpg", "elsewhere/notes.txt")
    write_text(tmp_path / "inat/list.txt", "inat/Aves/Species_0/0000.jpg")
    for root in ("elsewhere", "inat/Aves", "inat"):
        listed = resolve_listed(tmp_path / "inat/list.txt", tmp_path / root, False)
        assert list(listed) == [str(tmp_path / "inat/Aves/Species_0/0000.jpg")]


@pytest.mark.parametrize("line", ["s/9.jpg", "s", "", "x" * 5000, '{"info": {}, "images": []}'])
def test_the_line_without_an_image_is_named_unless_it_may_be_absent(tmp_path, line):
    write_files(tmp_path, "s/1.jpg")
    write_text(tmp_path / "list.txt", "s/1.jpg", line, "s/1.jpg")
    message = complaint(resolve_listed, tmp_path / "list.txt", tmp_path, False)
    assert f"{tmp_path / 'list.txt'}, line 2" in message and len(message) < 1000
    if line:
        listed = resolve_listed(tmp_path / "list.txt", tmp_path / "s", True)
        assert listed[1] == str(tmp_path / "s" / line) and len(listed) == 3


def test_empty_and_absent_lists(tmp_path):
    message = complaint(resolve_listed, tmp_path / "list.txt", tmp_path, True)
    assert str(tmp_path / "list.txt") in message and "no such file" in message
    (tmp_path / "list.txt").write_text("\n")
    message = complaint(resolve_listed, tmp_path / "list.txt", tmp_path, True)
    assert str(tmp_path / "list.txt") in message and "empty" in message


# ---- in little memory ----

LISTED = ["a.jpg", "", "b/ü 1.png", "日本.jpg", os.fsdecode(b"\xff\x80.jpg")]


@pytest.mark.parametrize("block", [1, 2, 5, 4096])
def test_they_are_read_as_a_list_is(monkeypatch, block):
    monkeypatch.setattr("data_loader.readers.image_names.JOINED", block)
    names = Names(iter(LISTED))
    assert len(names) == 5 and list(names) == LISTED
    assert [names[place] for place in range(-5, 5)] == LISTED * 2
    assert "日本.jpg" in names and names.index("b/ü 1.png") == 2
    for place in (5, -6):
        with pytest.raises(IndexError):
            names[place]
    assert not Names([]) and list(pickle.loads(pickle.dumps(names))) == LISTED


def test_they_take_a_fraction_of_a_list():
    names = Names(f"folder/{number:06d}.jpg" for number in range(10_000))
    size = sum(len(joined) + ends.itemsize * len(ends) for _, joined, ends in names._blocks)
    assert size <= 10_000 * (8 + 4) and len(names._blocks) == 3  # "folder/00", at least, is common


def test_folders_that_cannot_be_read_are_counted_and_the_first_is_refused(tmp_path, monkeypatch):
    write_files(tmp_path, "a/1.jpg", "b/2.jpg")
    real = os.scandir

    def scandir(path):
        if os.path.basename(path) == locked:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr("os.scandir", scandir)
    locked = "b"
    names, notices = find_images(tmp_path)
    assert list(names) == ["a/1.jpg"] and "1 folders that can't be read" in notices[0]
    locked = tmp_path.name
    with pytest.raises(PermissionError) as caught:  # of which `run_script` makes a line
        find_images(tmp_path)
    assert caught.value.filename == str(tmp_path)
