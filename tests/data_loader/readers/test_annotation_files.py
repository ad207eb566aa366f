import numpy as np
import pytest

from data_loader.readers.annotation_files import (
    check_images,
    check_points,
    check_unique,
    find_annotated,
    parse_table,
    read_lines,
    read_names,
    replace_backslashes,
)
from tests.data_loader.layouts import complaint


@pytest.fixture
def file(tmp_path):
    return tmp_path / "list.txt"


@pytest.mark.parametrize(
    "content",
    [
        b"one 1\n\ntwo \xc3\xa9\n",
        b"\xef\xbb\xbfone 1\n\ntwo \xc3\xa9\n",
        b"one 1\r\n\r\ntwo \xc3\xa9\r\n",
        b"  one 1\t\n\ntwo \xc3\xa9",
        b"\xef\xbb\xbfone 1\r\n \r\ntwo \xc3\xa9\r\n\r\n  \r\n",
    ],
    ids=["plain", "BOM", "CRLF", "blanks around", "all of them"],
)
def test_lines_are_the_same_whatever_editor_wrote_them(file, content):
    file.write_bytes(content)
    assert read_lines(file) == ["one 1", "", "two é"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_utf16_is_read_by_its_mark_and_else_named(file, encoding):
    text = "one 1\r\n\r\ntwo é\r\n"
    file.write_bytes((text if encoding == "utf-16" else f"\ufeff{text}").encode(encoding))
    assert read_lines(file) == ["one 1", "", "two é"]
    file.write_bytes("one 1\n".encode("utf-16-le"))
    assert "if it is UTF-16" in complaint(read_lines, file)


CONTROL = [b"a.jpg 1\0 2", b"\x1b[31m 1 2", b"a\xc2\x9b 1", b"a\x1cb"]


@pytest.mark.parametrize("content", [b"\xff\xfe\0", b"\x89PNG\r\n", b"caf\xe9\n", *CONTROL])
def test_what_is_no_text_in_utf8_or_utf16_is_refused(file, content):
    file.write_bytes(content)
    said = "not a text file" if content in CONTROL else "not a text file in UTF-8"
    assert f"{file}: {said}" in complaint(read_lines, file)


def test_names_are_the_first_words_and_may_have_to_differ(file):
    file.write_text("b.jpg 1 2\na\nb.jpg 3\n\n")
    assert read_names(file) == ["b.jpg", "a", "b.jpg"]
    assert f"{file}: b.jpg appears twice" in complaint(read_names, file, once=True)


def test_names_of_images_may_have_spaces(file):
    file.write_text("my photo 1.jpg\n a/b c.JPEG 1 2\nd.jpg.txt x\n")
    assert read_names(file) == ["my photo 1.jpg", "a/b c.JPEG", "d.jpg.txt"]
    names, numbers = parse_table(
        file, ["my photo 1.jpg -1 2.5", "2 3.png 3e1 5 6"], 2, first_line=1
    )
    assert names == ["my photo 1.jpg", "2 3.png"] and numbers.tolist() == [[-1, 2.5], [30, 5]]


def test_separators_of_windows_are_replaced_unless_the_file_has_them(tmp_path):
    (tmp_path / "a\\1.jpg").touch()
    names = ["a\\1.jpg", "a\\2.jpg", "b/3.jpg"]
    assert replace_backslashes(tmp_path, names) == ["a\\1.jpg", "a/2.jpg", "b/3.jpg"]


def test_missing_points_are_minus_one_or_nan_or_a_whole_image_of_zeros():
    nan = np.nan
    points = np.array(
        [[[-1, -1], [-1, 3]], [[nan, nan], [5, 5]], [[0, 0], [0, 0]], [[0, 0], [1, 0]]]
    )
    found = [[False, True], [False, True], [False, False], [True, True]]
    assert find_annotated(points).tolist() == found


def test_absent_files_and_folders_are_refused(tmp_path):
    assert f"{tmp_path / 'x'}: no such file" in complaint(read_lines, tmp_path / "x")
    assert str(tmp_path) in complaint(read_lines, tmp_path)
    (tmp_path / "file").touch()
    assert str(tmp_path / "file/x") in complaint(read_lines, tmp_path / "file/x")


@pytest.mark.parametrize(
    ("content", "said"), [("", "empty"), ("\n \n", "empty"), ("a\n\nb", "line 2")]
)
def test_names_that_are_missing(file, content, said):
    file.write_text(content)
    message = complaint(read_names, file)
    assert str(file) in message and said in message


@pytest.mark.parametrize(
    "line",
    ["", "c", "c 1", "1 2", "c 1 x", "c 1 nan", "c -inf 1", "c 1,5 2", "c 1 0x10", "c 1_0 2"],
)
def test_table_names_the_first_line_that_does_not_fit(file, line):
    lines = ["a 1 2", "b 3 4", line, "also wrong"]
    message = complaint(parse_table, file, lines, 2, first_line=5)
    assert f"{file}, line 7" in message and "2 finite numbers" in message


def test_table_names_the_name_that_stands_twice(file):
    message = complaint(parse_table, file, ["a 1", "b 2", "c 3", "b 4", "a 5"], 1, first_line=1)
    assert message.startswith(f"{file}: b ")
    check_unique(file, ["a", "b", "A"])  # says nothing


def test_images_are_looked_for_in_each_folder(tmp_path):
    for name in ("a/1.jpg", "b/1.jpg", "2.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    source = tmp_path / "list.txt"
    check_images(tmp_path, ["a/1.jpg", "2.jpg", "b/1.jpg"], source)  # says nothing
    for absent in ("a/2.jpg", "3.jpg", "b/1.JPG"):
        message = complaint(check_images, tmp_path, ["a/1.jpg", absent], source)
        assert str(tmp_path / absent) in message and str(source) in message
    message = complaint(check_images, tmp_path, ["c/1.jpg"], source)
    assert f"{tmp_path / 'c'}: no such folder" in message and str(source) in message


def test_points_may_be_outside_their_image_but_not_by_more_than_its_size(file):
    points = np.array([[[-10, 40], [20, -20]], [[5, 5], [5, 5]]], dtype=float)
    check_points(file, ["a", "b"], points, (10, 20))  # says nothing
    check_points(file, ["a", "b"], points, [(10, 20), (4, 3)])
    for far in ((-10.5, 0), (20.5, 0), (0, -21), (0, 1e300)):
        points[1, 1] = far
        message = complaint(check_points, file, ["a", "b"], points, (10, 20))
        assert f"{file}: point 2 of b is at ({far[0]:g}, {far[1]:g})" in message
    check_points(file, [], np.empty((0, 5, 2)), (10, 20))


@pytest.mark.parametrize("name", ["x" * 5000, "x/" * 3000 + "y", "a\0b/c"])
def test_names_that_can_be_no_path(tmp_path, name):
    assert "list.txt" in complaint(check_images, tmp_path, [name], tmp_path / "list.txt")


@pytest.mark.parametrize("at_a_time", [1, 2, 3, 5, 2**20])
@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n \n",
        "a",
        "a\n",
        "\n\na\n\n\nb c \n d\n\n",
        "a\r\n\r\nb\r\n",
        "a\rb\r\rc",
        "a\u2028b\nc",
    ],
)
def test_lines_are_those_of_the_whole_text(tmp_path, monkeypatch, text, at_a_time):
    monkeypatch.setattr("data_loader.readers.annotation_files.AT_A_TIME", at_a_time)
    file = tmp_path / "list.txt"
    file.write_bytes(text.encode())
    wanted = [line.strip() for line in text.splitlines()]
    while wanted and not wanted[-1]:
        wanted.pop()
    assert read_lines(file) == wanted
