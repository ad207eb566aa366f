"""tpsDig's files: their other lines, and how they can be wrong."""

import numpy as np
import pytest

from data_loader.readers.keypoint_files import read_keypoints
from tests.data_loader import own_files as own
from tests.data_loader.layouts import complaint, write_text

RECORD = ["LM=2", "1 2", "-1 -1", "IMAGE=a.png", "ID=0", "SCALE=0.5"]


def read(folder, *lines):
    own.write_images(folder)
    write_text(folder / "points.tps", *lines)
    return read_keypoints(folder / "points.tps", folder)


def test_other_lines(tmp_path):
    record = ["", "lm = 2", "1.50000 2.00000", "NA NA", "CURVES=2", "POINTS=1", "5 6"]
    record += ["POINTS=2", "7 8", "9 9", "image=a.png", "COMMENT=has = in it", "VARIABLES=x=1"]
    second = ["LM=2", "3 4", "5 6", "IMAGE=sub\\b c.png", "SCALE=2"]
    table = read(tmp_path, *record, *second)
    assert table.images == ["a.png", "sub/b c.png"]
    expected = [[[1.5, 28], [np.nan, np.nan]], [[3, 26], [5, 24]]]  # not scaled
    assert np.array_equal(table.points, expected, equal_nan=True)
    assert table.scales == {"sub/b c.png": 2}
    assert table.notices == [
        f"{tmp_path / 'points.tps'}: 1 images have no SCALE= that is a number above 0",
        f"{tmp_path / 'points.tps'}: curves of 1 records left out",
    ]


def test_paths_of_another_machine(tmp_path):
    lines = [line.replace("a.png", r"C:\wings\a.png") for line in RECORD]
    lines += [line.replace("a.png", r"C:\wings\sub\d.jpg") for line in RECORD]
    table = read(tmp_path, *lines)
    assert table.images == ["a.png", "sub/d.jpg"]
    assert "C:/wings/a.png is a.png" in table.notices[0]


def test_records_that_arent_digitized_yet(tmp_path):
    bare = ["LM=0", "IMAGE=sub/d.jpg", "ID=7"]
    table = read(tmp_path, *bare, *RECORD, *bare)
    assert table.images == ["a.png"] and len(table.names) == 2
    said = f"{tmp_path / 'points.tps'}: 2 records without landmarks left out"
    assert table.notices[0] == said


def changed(place, line):
    return [*RECORD[:place], line, *RECORD[place + 1 :]]


@pytest.mark.parametrize(
    "line, image",
    [
        *[("IMAGE=A.PNG", "a.png"), ("IMAGE=a", "a.png"), ("IMAGE=D.JPG", "sub/d.jpg")],
        *[
            ("IMAGE=SUB/D", "sub/d.jpg"),
            (r"IMAGE=C:\w\sub\D.jpg", "sub/d.jpg"),
            ("ID=d", "sub/d.jpg"),
        ],
        *[("ID=a.png", "a.png"), ("IMAGE=a.jpg", ""), ("IMAGE=e/d.JPG", ""), ("IMAGE=b", "")],
        *[("IMAGE=5.png", ""), ("ID=7", "")],
    ],
)
def test_an_image_is_the_one_that_its_name_fits(tmp_path, line, image):
    own.write_images(tmp_path, ["b.png", "sub/b.jpg", "15.png"])
    (tmp_path / "a.txt").write_text("no image")
    lines = [*RECORD[:3], line, "SCALE=0.5"]
    if not image:
        assert "1 of the 1 images it names aren't below" in complaint(read, tmp_path, *lines)
        return
    table = read(tmp_path, *lines)
    assert table.images == [image] and table.scales == {image: 0.5}
    name, path = line.partition("=")[2].replace("\\", "/"), tmp_path / "points.tps"
    said = [f"{path}: below {tmp_path}, {name} is {image} (1 in all)"] * (name != image)
    said += [f"{path}: 1 records without IMAGE=, found by their ID="] * line.startswith("ID")
    assert table.notices[: len(said)] == said


def test_names_that_differ_beside_names_that_dont(tmp_path):
    lines = [*RECORD, *changed(3, "IMAGE=B C.png"), *changed(3, "IMAGE=d")]
    table = read(tmp_path, *lines)
    assert table.images == own.IMAGES
    assert "B C.png is sub/b c.png, d is sub/d.jpg (2 in all)" in table.notices[0]
    message = complaint(read, tmp_path, *lines, *changed(3, "IMAGE=no.png"))
    assert message.endswith(f"1 of the 4 images it names aren't below {tmp_path}: no.png")


def test_decimal_commas_and_latin_1(tmp_path):
    own.write_images(tmp_path, ["fl\xfcgel.png"])
    lines = changed(1, "1,5 2,25")[:3] + [
        "IMAGE=fl\xfcgel.png",
        "COMMENT=\xb5m \u20ac",
        "SCALE=0,5",
    ]
    (tmp_path / "points.tps").write_bytes("\r\n".join(lines).encode("cp1252"))
    table = read_keypoints(tmp_path / "points.tps", tmp_path)
    assert table.points[0, 0].tolist() == [1.5, 27.75] and table.scales == {"fl\xfcgel.png": 0.5}
    assert [line.partition(": ")[2] for line in table.notices[:2]] == [
        "not in UTF-8, read as Latin-1 (Windows-1252)",
        "commas are decimal ones, as in '1,5 2,25'",
    ]
    (tmp_path / "points.tps").write_bytes(b"image,a_x,a_y\nfl\xfcgel.png,1,2\n")
    assert "save it as UTF-8" in complaint(read_keypoints, tmp_path / "points.tps", tmp_path)


@pytest.mark.parametrize("scale", ["", "x", "0", "-1", "nan", "1e999"])
def test_a_scale_that_is_none(tmp_path, scale):
    table = read(tmp_path, *changed(5, f"SCALE={scale}"))
    assert table.scales == {} and "1 images have no SCALE=" in table.notices[0]


@pytest.mark.parametrize(
    "lines, said",
    [
        (changed(0, "LM=3"), "line 4: expected x and y of a point (3 after line 1), found 'IMAGE="),
        (changed(0, "LM=1"), "line 3: expected a line of a .tps file, such as LM= or IMAGE="),
        (changed(0, "LM=x"), "line 1: expected a number of points, found 'x'"),
        (changed(0, "LM=-1"), "line 1: expected a number of points"),
        (["LM=0", *RECORD[3:]], "none of its 1 records has a point"),
        (["LM3=1", "1 2 3", *RECORD[3:]], "three dimensions"),
        (["LM=2", "1 2"], "line 1: expected x and y of a point (2 after line 1), found ''"),
        (changed(1, "1 2 3"), "line 2: expected x and y"),
        (changed(1, "1 1e999"), "line 2: expected x and y"),
        (changed(1, "1 nan"), "line 2: point 1 has one coordinate alone"),
        (changed(3, "ID=3"), "line 5: the record has ID= twice"),
        (RECORD[:3], "line 1: the record has no line IMAGE= and no ID="),
        ([*RECORD[:3], "IMAGE=", "ID="], "line 1: the record has no line IMAGE= and no ID="),
        (changed(1, "1,5,2 3"), "line 2: expected x and y"),
        ([*RECORD, "LM=1", "1 2", "IMAGE=a.png"], "line 7: expected 2 landmarks as in the first"),
        ([*RECORD, "LM=2", "1 2", "3 4", "IMAGE=a.png"], "line 7: point 2 of a.png is there twice"),
        ([*RECORD, *RECORD[:3], "IMAGE=no.png"], "1 of the 2 images it names aren't below"),
    ],
)
def test_bad_records(tmp_path, lines, said):
    message = complaint(read, tmp_path, *lines)
    assert said in message and message.startswith(str(tmp_path / "points.tps")), message
