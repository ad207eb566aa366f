"""DeepLabCut's tables: animals, repeated frames, and headers that can be wrong."""

import numpy as np
import pytest

from data_loader.readers.keypoint_files import read_keypoints
from tests.data_loader import own_files as own
from tests.data_loader.layouts import complaint, write_text


def test_each_animal_is_an_instance(tmp_path):
    path = own.write_individuals(tmp_path)
    table = read_keypoints(path, tmp_path)
    assert table.names == ["nose", "tail"]
    assert table.images == ["a.png", "a.png", "sub/b c.png"]
    assert table.ids == ["a.png#one", "a.png#two", "sub/b c.png#two"]
    expected = [[[1, 2], [3, 4]], [[11, 12], [13, 14]], [[5, 6], [np.nan, np.nan]]]
    assert np.array_equal(table.points, expected, equal_nan=True)
    assert table.notices == [f"{path}: 1 of 3 frames have no point, left out"]


def test_animals_may_have_other_parts(tmp_path):
    path = own.write_individuals(tmp_path)
    lines = [
        own.INDIVIDUALS[0] + ",me,me",
        own.INDIVIDUALS[1] + ",single,single",
        own.INDIVIDUALS[2] + ",door,door",
        own.INDIVIDUALS[3] + ",x,y",
        own.INDIVIDUALS[4] + ",20,21",
    ]
    write_text(path, *lines)
    table = read_keypoints(path, tmp_path)
    assert table.names == ["nose", "tail", "door"] and table.ids[2] == "a.png#single"
    assert np.isnan(table.points[2, :2]).all() and table.points[2, 2].tolist() == [20, 21]
    assert np.isnan(table.points[:2, 2]).all()


def test_a_frame_without_points_is_kept_of_one_animal(tmp_path):
    path = own.write_dlc(tmp_path)
    lines = own.dlc_lines()
    lines[-1] = "labeled-data/v1/d.jpg,,,,,,"
    write_text(path, *lines)
    table = read_keypoints(path, tmp_path)
    assert len(table.images) == 3 and np.isnan(table.points[2]).all()


def test_likelihoods_are_no_points(tmp_path):
    own.write_images(tmp_path)
    path = tmp_path / "a.csv"
    write_text(
        *[path, "scorer,net,net,net", "bodyparts,nose,nose,nose", "coords,x,y,likelihood"],
        "a.png,1,2,0.9",
    )
    table = read_keypoints(path, tmp_path)
    assert table.names == ["nose"] and table.points.tolist() == [[[1, 2]]]


def test_repeated_frames(tmp_path):
    path = own.write_dlc(tmp_path)
    lines = own.dlc_lines()
    write_text(path, *lines, lines[3])
    table = read_keypoints(path, tmp_path)
    assert len(table.images) == 3 and "1 lines that repeat another one" in table.notices[0]
    write_text(path, *lines, lines[3].replace("20", "19"))
    said = "line 7: labeled-data/v1/a.png is there twice with other points, first on line 4"
    assert said in complaint(read_keypoints, path, tmp_path)


@pytest.mark.parametrize(
    "line, old, new, said",
    [
        (1, "bodyparts", "parts", "begins as DeepLabCut's tables"),
        (2, ",x,y,x,y,x,y", ",x,y,x,y,x", "line 1: expected 6 cells as on the line of coords"),
        (2, "x,y", "x,z", "line 3: expected x or y in column 3, found 'z'"),
        (2, "x,y", "x,likelihood", "the point left_eye has no column of x or of y"),
        (1, "right_eye,right_eye", "left_eye,left_eye", "the point left_eye is named twice"),
        (1, "beak,beak", ",", "a point has no name"),
        (3, "3,4", "3", "line 4: expected 7 cells as in the header, found 6"),
        (3, "3,4", "3,q", "line 4: expected a number in column 3, found 'q'"),
        (3, "3,4", "3,", "line 4: point left_eye has one coordinate alone"),
        (3, "labeled-data/v1/a.png", "", "line 4: names no image"),
    ],
)
def test_bad_tables(tmp_path, line, old, new, said):
    path = own.write_dlc(tmp_path)
    lines = own.dlc_lines()
    assert old in lines[line]
    lines[line] = lines[line].replace(old, new, 1)
    write_text(path, *lines)
    message = complaint(read_keypoints, path, tmp_path)
    assert said in message and message.startswith(str(path)), message


def test_no_frames(tmp_path):
    path = own.write_dlc(tmp_path)
    write_text(path, *own.dlc_lines()[:3])
    assert "has no line below its header" in complaint(read_keypoints, path, tmp_path)
    path = own.write_individuals(tmp_path)
    write_text(path, *own.INDIVIDUALS[:4], own.INDIVIDUALS[6])
    assert "none of its frames has a point" in complaint(read_keypoints, path, tmp_path)
