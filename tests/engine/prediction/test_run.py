"""A part file cut off anywhere goes on with the first line that isn't whole."""

import numpy as np
import pytest

from data_loader.readers.prediction_files import Prediction
from engine.prediction.run import PartFile
from tests.data_loader.layouts import complaint

IDENTITY = {"checkpoint": "1", "images": "2"}


def found(index):
    if index % 4 == 3:
        nothing = np.empty((0, 2)), np.empty(0)
        return Prediction(f"{index}.png", (0, 0), *nothing, "", None, index, "damaged")
    box = (0.5, 1.0, 9.0, 9.5) if index % 2 else None
    points = np.array([[index + 1 / 3, 2.0], [3.0, 4e-17]])
    what = f"é {index}.png", (10, 20), points, np.array([0.5, 0.25]), "7", box, index
    return Prediction(*what, errors=np.array([0.5, np.nan] if index % 2 else []))


@pytest.fixture
def whole(tmp_path):
    part = PartFile(tmp_path / "out.part", IDENTITY, replace=False)
    part.append([found(0), found(1)])
    part.append([found(2), found(3), found(4)])
    return part.path


def test_what_was_appended_comes_back(whole):
    part = PartFile(whole, IDENTITY, replace=False)
    assert (part.count, part.bad) == (5, 1)
    np.testing.assert_equal(list(part.entries()), [found(index) for index in range(5)])
    assert [entry.number for entry in part.readable()] == [0, 1, 2, 4]


def test_a_file_cut_off_at_any_byte_is_completed(whole, tmp_path):
    content = whole.read_bytes()
    counts = set()
    for end in range(len(content)):
        path = tmp_path / "cut.part"
        path.write_bytes(content[:end])
        part = PartFile(path, IDENTITY, replace=False)
        counts.add(part.count)
        part.append([found(index) for index in range(part.count, 5)])
        assert path.read_bytes() == content
    assert counts == set(range(5))


JUNK = [b"\0" * 50, b"\0\n" * 5, b"[7, 1]\n", b"[5]\n", b"{}\n", b"5\n", b"\xff\n", b"[5,"]
JUNK += [
    b'[5, "a", "", null, [1, 1], %s, ""]\n' % p
    for p in (b'"x", "y", []', b"[[1]], [1], []", b"1, 1, 1")
]
JUNK += [b'[5, "a", "", null, [1, 1], [[1, 1]], [1], ""]\n']  # of a version before


@pytest.mark.parametrize("tail", JUNK)
def test_what_isnt_a_line_is_cut_off(whole, tail):
    content = whole.read_bytes()
    whole.write_bytes(content + tail)
    PartFile(whole, IDENTITY, replace=False)
    assert whole.read_bytes() == content


def test_another_runs_file_is_left_alone(whole):
    content, other = whole.read_bytes(), {**IDENTITY, "images": "3"}
    said = complaint(lambda: PartFile(whole, other, replace=False))
    assert "left by a run with other images: give another --out, or --overwrite" in said
    assert whole.read_bytes() == content
    part = PartFile(whole, other, replace=True)
    assert part.count == 0 and list(part.entries()) == []
    for content in (b"mine\n", b"mine", b'{\n"a": 1}\n', b"\0" * 9, b"[1, 2]\n"):
        whole.write_bytes(content)
        assert "left by no such run" in complaint(lambda: PartFile(whole, other, replace=False))
        assert whole.read_bytes() == content
