"""Where the images lie that an annotation file names."""

from pathlib import Path

import numpy as np
import pytest

from data_loader.readers.keypoint_images import locate, read_sizes
from tests.data_loader.layouts import complaint
from tests.data_loader.own_files import write_images

PATH = Path("points.csv")


def test_names_as_they_are(tmp_path):
    write_images(tmp_path, ["a.png", "b/a.png"])
    assert locate(PATH, tmp_path, ["b/a.png", "a.png"]) == (["b/a.png", "a.png"], [])
    assert locate(PATH, tmp_path, [r"b\a.png"]) == (["b/a.png"], [])
    absolute = str(tmp_path / "a.png")
    assert locate(PATH, tmp_path / "b", [absolute])[0] == [absolute]


@pytest.mark.parametrize(
    "files, names, found",
    [
        (["i/a.png", "i/b.png"], ["a.png", "b.png"], ["i/a.png", "i/b.png"]),
        (["a.png", "b.png"], ["x/y/a.png", "x/y/b.png"], ["a.png", "b.png"]),
        (["y/a.png", "z/b.png"], ["x/y/a.png", "x/z/b.png"], ["y/a.png", "z/b.png"]),
        (["y/a.png", "a.png"], ["x/y/a.png"], ["y/a.png"]),
        (["a.png"], ["/home/me/a.png"], ["a.png"]),
    ],
)
def test_one_change_of_folder_for_all(tmp_path, files, names, found):
    write_images(tmp_path, files)
    images, notices = locate(PATH, tmp_path, names)
    assert images == found
    assert notices == [f"points.csv: below {tmp_path}, {names[0]} is {found[0]}"]


@pytest.mark.parametrize(
    "files, names",
    [
        (["i/a.png", "j/b.png"], ["a.png", "b.png"]),  # no one folder
        (["i/a.png", "j/a.png"], ["a.png"]),  # two folders
        (["a.png", "i/b.png"], ["a.png", "b.png"]),  # one is where its name says
        (["a.png"], ["v1/a.png", "v2/a.png"]),  # two images would be one
        (["a.png"], ["v1/a.png", "b.png"]),
        (["b/a.png"], ["../a.png"]),
    ],
)
def test_no_guesses(tmp_path, files, names):
    write_images(tmp_path, files)
    assert "images it names aren't below" in complaint(locate, PATH, tmp_path, names)


def test_absent_images_are_counted_and_the_first_named(tmp_path):
    write_images(tmp_path, ["a.png"])
    names = ["a.png", *(f"{i}.png" for i in range(5)), "1.png"]
    assert complaint(locate, PATH, tmp_path, names) == (
        f"points.csv: 5 of the 6 images it names aren't below {tmp_path}: 0.png, 1.png, 2.png, ..."
    )
    strange = ["a/" * 3000, "\0", "\ud800", "x" * 5000]
    assert "4 of the 4" in complaint(locate, PATH, tmp_path, strange)
    assert "no such folder" in complaint(locate, PATH, tmp_path / "absent", names)


def test_sizes(tmp_path):
    write_images(tmp_path, ["a.png"], (40, 30))
    (tmp_path / "bad.png").write_bytes(b"")
    sizes, turned = read_sizes(tmp_path, ["a.png", "bad.png", "a.png"])
    assert np.array_equal(sizes, [[40, 30], [np.nan] * 2, [40, 30]], equal_nan=True)
    assert not turned.any()
