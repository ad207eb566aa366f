"""CUB's parts from Torch7 files and from its own, and the ways they can be wrong."""

import numpy as np
import pytest

from data_loader.cub_annotations import read_dat, read_part_annotations
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


def test_rows_follow_the_asked_names(tmp_path):
    parts = write_cub(tmp_path, native=True)
    points, _ = read_part_annotations(tmp_path, [CUB_NAMES[3], CUB_NAMES[0], CUB_NAMES[3]])
    assert np.allclose(points, parts[[3, 0, 3], :, :2], atol=1e-6)


def test_torch7_files_go_before_cubs_own(tmp_path):
    parts = write_cub(tmp_path)
    write_text(tmp_path / "images.txt", "garbage")
    write_text(tmp_path / "parts/part_locs.txt", "garbage")
    points, _ = read_part_annotations(tmp_path, CUB_NAMES)
    assert np.allclose(points, parts[..., :2])


def test_native_parts_without_a_line_are_invisible(tmp_path):
    parts = write_cub(tmp_path, native=True)
    assert parts[2, 3, 2] == 1  # picture 23's part 4 is visible
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


def test_a_picture_without_annotation(tmp_path):
    write_cub(tmp_path / "dat")
    write_cub(tmp_path / "native", native=True)
    for form, source in {"dat": "anno", "native": "parts/part_locs.txt"}.items():
        message = complaint(read_part_annotations, tmp_path / form, [CUB_NAMES[0], "9.X/new.jpg"])
        assert "9.X/new.jpg" in message and str(tmp_path / form / source) in message


def fourteen(names, parts):
    return {
        k: {p: v for p, v in t.items() if p != b"15"} for k, t in dat_table(names, parts).items()
    }


def two_numbers(names, parts):
    return {
        k: {p: {1: v[1], 2: v[2]} for p, v in t.items()} for k, t in dat_table(names, parts).items()
    }


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a Torch7 file, but text of some length",
        torch7(dat_table(CUB_NAMES, cub_parts(5)))[:2000],
        torch7({1: 3, 2: 4}),
        torch7(b"a string"),
        torch7({b"a.jpg": b"text"}),
        torch7(fourteen(CUB_NAMES, cub_parts(5))),
        torch7(two_numbers(CUB_NAMES, cub_parts(5))),
    ],
    ids=["empty", "text", "cut", "list", "string", "no parts", "14 parts", "x and y only"],
)
def test_damaged_torch7_files(tmp_path, content):
    path = tmp_path / "train.dat"
    path.write_bytes(content)
    assert str(path) in complaint(read_dat, path)


@pytest.mark.parametrize(
    "line",
    [
        "23 16 10.0 20.0 1",
        "23 0 10.0 20.0 1",
        "23 3 10.0 20.0",
        "23 3 10.0 20.0 1 1",
        "23 3 10.0 nan 1",
        "23 3 inf 2.0 1",
        "23 3.5 10.0 20.0 1",
        "23 three 10.0 20.0 1",
        "77 3 10.0 20.0 1",
        "",
    ],
)
def test_native_parts_that_do_not_fit(tmp_path, line):
    write_cub(tmp_path, native=True)
    path = tmp_path / "parts/part_locs.txt"
    lines = path.read_text().splitlines()
    write_text(path, *lines[:4], line, *lines[4:])
    assert f"{path}, line 5" in complaint(read_part_annotations, tmp_path, CUB_NAMES)


def test_native_image_ids_that_do_not_fit(tmp_path):
    write_cub(tmp_path, native=True)
    path = tmp_path / "images.txt"
    lines = path.read_text().splitlines()
    write_text(path, lines[0], "23", *lines[2:])
    assert f"{path}, line 2" in complaint(read_part_annotations, tmp_path, CUB_NAMES)
    path.unlink()
    assert str(path) in complaint(read_part_annotations, tmp_path, CUB_NAMES)


def test_native_parts_of_a_file_that_is_no_image(tmp_path):
    write_cub(tmp_path, native=True)
    path = tmp_path / "images" / CUB_NAMES[2]
    path.write_text("this is text")
    assert str(path) in complaint(read_part_annotations, tmp_path, CUB_NAMES)
