"""CUB's parts from Torch7 files and from its own, and the ways they can be wrong."""

import struct

import numpy as np
import pytest

from data_loader.readers.cub_annotations import read_dat, read_part_annotations
from tests.data_loader.layouts import (
    CUB_NAMES,
    complaint,
    cub_parts,
    dat_table,
    torch7,
    write_cub,
    write_text,
)


def test_both_forms_give_the_same_parts(tmp_path):
    parts = write_cub(tmp_path / "dat")
    write_cub(tmp_path / "native", native=True)
    for form in ("dat", "native"):
        points, visible = read_part_annotations(tmp_path / form, CUB_NAMES)
        assert points.shape == (5, 15, 2) and visible.shape == (5, 15)
        assert np.allclose(points, parts[..., :2], atol=1e-6)
        assert visible.dtype == bool and np.array_equal(visible, parts[..., 2] == 1)


def test_torch7_files_go_before_cubs_own(tmp_path):
    parts = write_cub(tmp_path)
    write_text(tmp_path / "images.txt", "garbage")
    write_text(tmp_path / "parts/part_locs.txt", "garbage")
    points, _ = read_part_annotations(tmp_path, CUB_NAMES)
    assert np.allclose(points, parts[..., :2])


def test_native_parts_without_a_line_are_invisible(tmp_path):
    parts = write_cub(tmp_path, native=True)
    assert parts[2, 3, 2] == 1  # image 23's part 4 is visible
    path = tmp_path / "parts/part_locs.txt"
    lines = path.read_text().splitlines()
    write_text(path, *(line for line in lines if not line.startswith("23 4 ")))
    points, visible = read_part_annotations(tmp_path, [CUB_NAMES[2]])
    parts[2, 3] = 0
    assert np.array_equal(visible[0], parts[2, :, 2] == 1)
    assert np.allclose(points[0], parts[2, :, :2], atol=1e-6)


def test_neither_form_there(tmp_path):
    message = complaint(read_part_annotations, tmp_path, CUB_NAMES)
    assert str(tmp_path) in message and "train.dat" in message and "part_locs.txt" in message


@pytest.mark.parametrize("gone", ["train.dat", "val.dat"])
def test_one_of_the_two_torch7_files_is_absent(tmp_path, gone):
    write_cub(tmp_path)
    (tmp_path / "anno" / gone).unlink()
    message = complaint(read_part_annotations, tmp_path, CUB_NAMES)
    assert str(tmp_path / "anno" / gone) in message and "no such file" in message


def test_a_image_without_annotation(tmp_path):
    write_cub(tmp_path / "dat")
    write_cub(tmp_path / "native", native=True)
    for form, source in {"dat": "anno", "native": "parts/part_locs.txt"}.items():
        message = complaint(read_part_annotations, tmp_path / form, [CUB_NAMES[0], "9.X/new.jpg"])
        assert "9.X/new.jpg" in message and str(tmp_path / form / source) in message


def changed(value):
    table = dat_table(CUB_NAMES, cub_parts(5))
    table[CUB_NAMES[1].rsplit("/")[-1].encode()][b"3"][1] = value
    return torch7(table)


def dat_of_arrays(parts, size=3, stride=1, offset=1):
    """Return a file in which Torch7 has tensors where it usually has tables; parts (15, 3)."""
    names = [b"V 1", b"torch.DoubleTensor", b"V 1", b"torch.DoubleStorage"]
    names = [struct.pack("<i", len(name)) + name for name in names]
    table = struct.pack("<iii", 3, 1, 1) + torch7(b"a.jpg") + struct.pack("<iii", 3, 2, 15)
    for a, row in enumerate(parts, 1):
        table += torch7(str(a).encode()) + struct.pack("<ii", 4, 2 * a + 1) + names[0] + names[1]
        table += struct.pack("<iqqq", 1, size, stride, offset)
        table += struct.pack("<ii", 4, 2 * a + 2) + names[2] + names[3]
        table += struct.pack("<q", 3) + row.tobytes()
    return table


def test_parts_may_be_arrays(tmp_path):
    parts = np.array([[0.25, 0.5, 1.0]] * 15)
    (tmp_path / "a.dat").write_bytes(dat_of_arrays(parts))
    assert np.array_equal(read_dat(tmp_path / "a.dat")["a.jpg"], parts)


@pytest.mark.parametrize(
    "shape", [{"size": 10**12}, {"stride": 2}, {"stride": -(10**9)}, {"offset": 2}, {"offset": 0}]
)
def test_arrays_larger_than_what_the_file_holds_are_refused(tmp_path, shape):
    (tmp_path / "a.dat").write_bytes(dat_of_arrays(np.ones((15, 3)), **shape))
    assert "no table or array that the file holds" in complaint(read_dat, tmp_path / "a.dat")


def test_a_table_that_holds_itself_is_refused(tmp_path):
    content = struct.pack("<iii", 3, 1, 1) + torch7(b"a.jpg") + struct.pack("<ii", 3, 1)
    (tmp_path / "a.dat").write_bytes(content)
    assert "expected a Torch7 table" in complaint(read_dat, tmp_path / "a.dat")
    deep = b"".join(struct.pack("<iii", 3, n, 1) + torch7(b"a") for n in range(1, 5000))
    (tmp_path / "a.dat").write_bytes(deep)
    assert "recursion" in complaint(read_dat, tmp_path / "a.dat")


@pytest.mark.parametrize("native", [False, True])
def test_visible_parts_far_outside_are_refused(tmp_path, native):
    write_cub(tmp_path, native)
    if native:
        path = tmp_path / "parts/part_locs.txt"
        lines = path.read_text().splitlines()
        place = next(i for i, line in enumerate(lines) if line.endswith(" 1"))
        words = lines[place].split()
        lines[place] = " ".join([*words[:2], "1000", *words[3:]])
        write_text(path, *lines)
    else:
        path = tmp_path / "anno"
        table = dat_table(CUB_NAMES, cub_parts(5))
        table[CUB_NAMES[1].rsplit("/")[-1].encode()][b"1"] = {1: 2.1, 2: 0.5, 3: 1}
        (path / "train.dat").write_bytes(torch7(table))
        (path / "val.dat").write_bytes(torch7({}))
    message = complaint(read_part_annotations, tmp_path, CUB_NAMES)
    assert str(path) in message and "further outside" in message


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a Torch7 file, but text of some length",
        torch7(dat_table(CUB_NAMES, cub_parts(5)))[:2000],
        torch7({1: 3, 2: 4}),
        torch7(b"a string"),
        torch7({b"a.jpg": b"text"}),
        torch7(dat_table(CUB_NAMES, cub_parts(5)[:, :14])),
        torch7(dat_table(CUB_NAMES, cub_parts(5)[..., :2])),
        changed(float("nan")),
        changed(float("inf")),
        changed(b"text"),
        changed({}),
    ],
    ids=["empty", "text", "cut", "list", "string", "no parts", "14 parts", "x and y only"]
    + ["not a number", "infinite", "text for a number", "table for a number"],
)
def test_damaged_torch7_files(tmp_path, content):
    path = tmp_path / "train.dat"
    path.write_bytes(content)
    assert str(path) in complaint(read_dat, path)


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("parts/part_locs.txt", "23 16 10.0 20.0 1"),
        ("parts/part_locs.txt", "23 0 10.0 20.0 1"),
        ("parts/part_locs.txt", "23 3 10.0 20.0"),
        ("parts/part_locs.txt", "23 3 10.0 20.0 1 1"),
        ("parts/part_locs.txt", "23 3 10.0 nan 1"),
        ("parts/part_locs.txt", "23 3.5 10.0 20.0 1"),
        ("parts/part_locs.txt", "77 3 10.0 20.0 1"),
        ("parts/part_locs.txt", "40 1 10.0 20.0 1"),  # that part is there already
        ("parts/part_locs.txt", ""),
        ("images.txt", "23"),
        ("images.txt", "1 001.Tern/a_4.jpg"),  # that id is, too
    ],
)
def test_native_lines_that_do_not_fit(tmp_path, file, line):
    write_cub(tmp_path, native=True)
    path = tmp_path / file
    lines = path.read_text().splitlines()
    write_text(path, *lines[:4], line, *lines[4:])
    assert f"{path}, line 5" in complaint(read_part_annotations, tmp_path, CUB_NAMES)


def test_native_parts_of_a_file_that_is_no_image(tmp_path):
    write_cub(tmp_path, native=True)
    path = tmp_path / "images" / CUB_NAMES[2]
    path.write_text("this is text")
    assert str(path) in complaint(read_part_annotations, tmp_path, CUB_NAMES)
