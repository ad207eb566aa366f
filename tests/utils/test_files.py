import os

import pytest

from utils.errors import InputError
from utils.files import check_is_file, excerpt, quoted, unquoted, write_text


def test_an_excerpt_is_one_printable_line_of_bounded_length():
    assert excerpt("encoder.weight, é") == "encoder.weight, é"
    assert excerpt("a\nb\x1b[2J") == r"a\nb\x1b[2J"
    assert excerpt("\ud800") == r"\ud800"
    assert excerpt("x" * 1000) == "x" * 200
    assert excerpt("\0" * 1000) == r"\x00" * 50


@pytest.mark.parametrize(
    "name, text",
    [
        ("a/ü 100%.jpg", "a/ü 100%.jpg"),
        ("a\nb\r\x1b\x85.jpg", "a%0Ab%0D%1B%C2%85.jpg"),
        (" a .jpg ", "%20a .jpg%20"),
        (os.fsdecode(b"caf\xe9.jpg"), "caf%E9.jpg"),
    ],
)
def test_names_come_back_from_one_line(name, text):
    assert quoted(name) == text and unquoted(text) == name
    as_ascii = name.encode("utf-8", "surrogateescape").decode("ascii", "surrogateescape")
    assert quoted(as_ascii) == text  # of a locale without UTF-8


def test_a_file_may_have_the_longest_name(tmp_path):
    path = tmp_path / ("ü" * 127)
    write_text(path, "a")
    assert path.read_text() == "a"


def test_a_locked_folder_is_not_an_absent_file(tmp_path, monkeypatch):
    def locked(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.stat", locked)
    monkeypatch.setattr("os.lstat", locked)
    with pytest.raises(InputError, match="a.csv: Permission denied"):
        check_is_file("a.csv")


def test_paths_that_are_too_long_are_no_absent_files():
    with pytest.raises(InputError, match="x: File name too long"):
        check_is_file("x" * 300)
