"""Annotation files of named points: the same points from each format, and how they can be wrong."""

import os
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_loader.readers.keypoint_files import (
    locate,
    one_name_each,
    read_keypoints,
    read_sizes,
)
from tests.data_loader import own_files as own
from tests.data_loader.layouts import complaint, write_text

OWN = Path(__file__).parents[3] / "../shared/data/own"
PATH = Path("points.csv")
needs_own = pytest.mark.skipif(not OWN.is_dir(), reason="../shared/data/own is absent")
WRITERS = {
    "wide": own.write_wide,
    "long": own.write_long,
    "DeepLabCut": own.write_dlc,
    "DeepLabCut's newer index": lambda folder: own.write_dlc(folder, parts=True),
    "ImageJ": own.write_imagej,
    "COCO": own.write_coco,
    "tps": own.write_tps,
}


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("form", WRITERS)
def test_each_format_gives_the_same_points(tmp_path, form, end):
    path = WRITERS[form](tmp_path)
    path = path.rename(path.with_name("points.txt"))  # the content tells the format
    path.write_bytes(path.read_bytes().replace(b"\n", end.encode()))
    table = read_keypoints(path, tmp_path)
    assert np.array_equal(table.points, own.POINTS, equal_nan=True)
    assert table.points.dtype == np.float64
    if form not in ("tps", "ImageJ"):
        assert table.names == own.NAMES and table.flip_pairs == [("left_eye", "right_eye")]
    else:
        assert table.names == ["1", "2", "3"] and table.flip_pairs == []
    if not form.startswith("Deep"):
        assert table.images == own.IMAGES
    assert all((tmp_path / name).is_file() for name in table.images)
    assert len(set(table.ids)) == 3 and "" not in table.ids
    assert table.boxes.shape == (3, 4) and table.areas.shape == (3,)
    assert table.sigmas is None and (table.notices == []) == (form != "ImageJ")


def test_y_upwards(tmp_path):
    path = own.write_wide(tmp_path, own.turned())
    table = read_keypoints(path, tmp_path, y_up=True)
    assert np.array_equal(table.points, own.POINTS, equal_nan=True)
    missing = own.wide_lines(own.turned())
    missing[2] = missing[2].replace(",,", ",-1,-1", 1)  # not flipped before it is known as missing
    write_text(path, *missing)
    table = read_keypoints(path, tmp_path, y_up=True)
    assert np.array_equal(table.points, own.POINTS, equal_nan=True)


def test_y_upwards_is_for_plain_csv(tmp_path):
    for form in ("DeepLabCut", "COCO"):
        path = WRITERS[form](tmp_path)
        assert "--y_up is for plain CSV" in complaint(read_keypoints, path, tmp_path, y_up=True)


def test_y_downwards(tmp_path, monkeypatch):
    monkeypatch.setattr(own, "turned", lambda: own.POINTS)
    table = read_keypoints(own.write_tps(tmp_path), tmp_path, y_down=True)
    assert np.array_equal(table.points, own.POINTS, equal_nan=True)
    table = read_keypoints(own.write_wide(tmp_path), tmp_path, y_down=True)  # as without it
    assert np.array_equal(table.points, own.POINTS, equal_nan=True)


def test_scales_of_several_files(tmp_path):
    one, two = own.write_tps(tmp_path).rename(tmp_path / "1.tps"), tmp_path / "2.csv"
    (tmp_path / "link").symlink_to("sub")
    write_text(
        two, "image,1_x,1_y,2_x,2_y,3_x,3_y", "./link/d.jpg,12.25,1,13,2,,", "b.png,5,5,6,6,7,7"
    )
    own.write_images(tmp_path, ["b.png"])
    for paths in ([one, two], [two, one]):
        table = read_keypoints(paths, tmp_path)
        assert len(table.images) == 4 and len(table.scales) == 3
        assert table.scales == dict.fromkeys({*table.images} - {"b.png"}, 0.01)


def test_points_are_in_the_frame_of_the_turned_image(tmp_path):
    path = own.write_tps(tmp_path)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", own.SIZE[::-1]).save(tmp_path / "a.png", exif=exif)  # stored on its side
    table = read_keypoints(path, tmp_path)
    assert np.array_equal(table.points, own.POINTS, equal_nan=True)


def test_an_image_that_cant_be_read_is_said_later(tmp_path):
    path = own.write_tps(tmp_path)
    (tmp_path / "a.png").write_bytes(b"garbage")
    table = read_keypoints(path, tmp_path)
    assert np.array_equal(table.points[1:], own.POINTS[1:], equal_nan=True)
    assert np.isfinite(table.points[0]).all()


# ---- several files ----


def coco_of(folder, number):
    """Write COCO's JSON of one of the images alone, with the ids 0, 100 and 7."""
    content = own.coco_content()
    content["images"] = [{**content["images"][number], "id": 0}]
    content["annotations"] = [{**content["annotations"][number], "id": 100, "image_id": 0}]
    return own.write_coco(folder, content).rename(folder / f"{number}.json")


def test_several_files_are_one_table(tmp_path):
    """Of any formats, with points in any order; ids that two have stay apart."""
    files = [coco_of(tmp_path, 0), coco_of(tmp_path, 1), tmp_path / "c.csv"]
    order = [2, 0, 1]
    header = ",".join(f"{own.NAMES[i]}_{axis}" for i in order for axis in "xy")
    cells = ",".join(own.cell(number) for number in own.POINTS[2][order].flatten())
    write_text(files[2], f"image,sex,{header}", f"./sub/../sub/d.jpg,f,{cells}")
    table = read_keypoints(files, tmp_path)
    assert table.names == own.NAMES and table.images == own.IMAGES
    assert np.array_equal(table.points, own.POINTS, equal_nan=True)
    assert table.ids == ["100", f"{files[1]}: 100", "sub/../sub/d.jpg"]
    assert table.boxes[:2].tolist() == [[1, 2, 31, 22]] * 2 and np.isnan(table.boxes[2]).all()
    assert table.areas[:2].tolist() == [250.5] * 2 and np.isnan(table.areas[2])
    assert table.notices == [f"{files[2]}: columns not used: sex"]


def test_each_file_has_its_own_direction_of_y(tmp_path):
    tps, csv = own.write_tps(tmp_path), tmp_path / "b.csv"
    lines = [line.replace("left_eye", "1") for line in own.wide_lines()]
    lines[0] = lines[0].replace("right_eye", "2").replace("beak", "3")
    write_text(csv, lines[0], *lines[2:])
    write_text(tps, *own.tps_lines()[:7])
    for files in ([tps, csv], [csv, tps]):
        table = read_keypoints(files, tmp_path)
        points = own.POINTS[[own.IMAGES.index(name) for name in table.images]]
        assert np.array_equal(table.points, points, equal_nan=True)


def test_what_files_say_of_an_image_has_to_be_the_same(tmp_path):
    one, two, lines = own.write_wide(tmp_path), tmp_path / "b.csv", own.wide_lines()
    write_text(two, *lines[:2])
    table = read_keypoints([one, two, one], tmp_path)
    assert table.images == own.IMAGES and len(table.points) == len(table.ids) == 3
    said = f"{one} and 1 more: 1 instances that are in two files taken once"
    assert table.notices == [said]
    for line, said in (
        (lines[1].replace("3,4", "3,5"), f"{two}: a.png is in {one}, too, with other points"),
        (lines[1].replace("3,4", "99,4"), f"{two}: point left_eye of a.png is at (99, 4), beyond"),
        (lines[1].replace("a.png", "sub/../a.png").replace("20", "21"), "is in"),
    ):
        write_text(two, lines[0], line)
        assert said in complaint(read_keypoints, [one, two], tmp_path)
    write_text(two, lines[0].replace("beak", "tail"), lines[1])
    said = f"{two}: its points aren't those of {one}: beak, tail are in one of them alone"
    assert said in complaint(read_keypoints, [one, two], tmp_path)


def test_many_files_say_little(tmp_path):
    own.write_images(tmp_path, [f"{number}.png" for number in range(15)])
    files = [tmp_path / f"{number}.csv" for number in range(15)]
    for number, file in enumerate(files):
        write_text(file, f"image,a_x,a_y,sex,{number}", f"{number}.png,1,2,f,")
    notices = read_keypoints(files, tmp_path).notices
    said = f"{files[0]} and 14 more: 5 more lines like these"
    assert notices[9:] == [f"{files[9]}: columns not used: sex, 9", said]
    for file in files:  # of the image that it is named after
        write_text(file, "X,Y", "1,2")
    notices = read_keypoints(files, tmp_path).notices
    assert notices[0].startswith(f"{files[0]}: below {tmp_path}, 0 is 0.png")
    said = f"{files[0]} and 14 more: ImageJ's X and Y are taken as pixels, not as units of a scale"
    assert notices[1] == said and len(notices) == 11


# ---- bad files ----


def test_unknown_formats(tmp_path):
    path = tmp_path / "points.txt"
    for line in ("<annotations>", "a.png 1 2 3", "name,width", "image,a,b,c", "1,2,3"):
        write_text(path, line, "x,1,2")
        assert "of no known format" in complaint(read_keypoints, path, tmp_path)
    write_text(path, "[1, 2")
    assert "not a JSON file" in complaint(read_keypoints, path, tmp_path)
    path.write_bytes(b"\x89HDF\r\n\x1a\n\x00")
    message = complaint(read_keypoints, path, tmp_path)
    assert "HDF5" in message and message.endswith(f"sio convert {path} -o points.json --to coco")
    path.write_bytes(b"\x89PNG\x00")
    assert "not a text file" in complaint(read_keypoints, path, tmp_path)
    path.write_bytes(b"")
    assert "empty" in complaint(read_keypoints, path, tmp_path)
    assert "no such file" in complaint(read_keypoints, tmp_path / "absent.csv", tmp_path)
    assert "not a file" in complaint(read_keypoints, tmp_path, tmp_path)
    os.mkfifo(tmp_path / "pipe.csv")
    assert "not a file" in complaint(read_keypoints, tmp_path / "pipe.csv", tmp_path)


@pytest.mark.parametrize("x, y", [(1000, 3), (41.5, 3), (-1.5, 3), (3, 31.5), (3, -20)])
def test_a_point_beyond_its_image(tmp_path, x, y):
    points = own.POINTS.copy()
    points[1, 2] = x, y
    path = own.write_wide(tmp_path, points)
    message = complaint(read_keypoints, path, tmp_path)
    assert f"point beak of sub/b c.png is at ({x:g}, {y:g}), beyond its 40 x 30 pixels" in message
    assert ("--y_up" in message) == (y not in (3,))


def test_a_click_may_miss_the_edge(tmp_path):
    points = own.POINTS.copy()
    points[1, 0], points[1, 2] = (-1, -0.5), (41, 30.9)
    path = own.write_wide(tmp_path, points)
    assert np.array_equal(read_keypoints(path, tmp_path).points, points, equal_nan=True)


@pytest.mark.parametrize("form", WRITERS)
def test_no_points_at_all(tmp_path, form, monkeypatch):
    nothing = np.full_like(own.POINTS, np.nan)
    monkeypatch.setattr(own, "POINTS", nothing)
    monkeypatch.setattr(own, "turned", lambda: nothing)
    if form == "wide":
        path = own.write_wide(tmp_path, nothing)
    else:
        path = WRITERS[form](tmp_path)
    message = complaint(read_keypoints, path, tmp_path)
    assert "has a point" in message or "has no annotation with points" in message


def test_a_point_that_no_instance_has_is_noted(tmp_path):
    points = own.POINTS.copy()
    points[:, 1] = np.nan
    path = own.write_wide(tmp_path, points)
    assert read_keypoints(path, tmp_path).notices == [f"{path}: no instance has right_eye"]


@pytest.mark.parametrize("form", ["wide", "long", "tps", "COCO"])
def test_fractions_and_points_at_the_origin(tmp_path, form, monkeypatch):
    points, name = np.where(own.POINTS == 0, 2, own.POINTS), "1" if form == "tps" else "left_eye"
    near = "7 of its 7 points lie within 1 px of the image's corner: expected pixels, not fractions"
    for changed, said in (
        (points / own.SIZE, near),
        (points * [[0], [1], [1]], f"always at 0,0: {name};"),
        (points * [[[0], [1], [1]], [[0], [1], [0]], [[1], [1], [1]]], f": {name} in 2 of 3"),
    ):
        monkeypatch.setattr(own, "POINTS", changed)
        monkeypatch.setattr(own, "turned", lambda found=changed: found)  # upwards, in .tps
        path = own.write_wide(tmp_path, changed) if form == "wide" else WRITERS[form](tmp_path)
        if said.endswith("3"):
            (line,) = read_keypoints(path, tmp_path).notices  # none of one that is there once
            assert line == f"{path}: points at 0,0, taken as they are{said}"
        else:
            assert said in complaint(read_keypoints, path, tmp_path)


def test_formats_mixed(tmp_path):
    own.write_images(tmp_path)
    wide, tps, dlc = own.wide_lines(), own.tps_lines(), own.dlc_lines()
    path = tmp_path / "points"
    header = "image,point,x,y,left_eye_x,left_eye_y"
    for lines, said in (
        ([*wide, *tps], "line 5: expected 7 cells as in the header, found 1"),
        ([*tps, *wide], "line 22: expected a line of a .tps file"),
        ([*wide, *dlc[:3]], "line 5: expected a number in column 2, found 'me'"),
        ([*dlc, *wide], "line 7: expected a number in column 2, found 'left_eye_x'"),
        ([header, "a.png,beak,1,2,3,4"], "two formats mixed"),
        (["{", *wide], "not a JSON file"),
    ):
        write_text(path, *lines)
        message = complaint(read_keypoints, path, tmp_path)
        assert said in message and message.startswith(str(path)), message


# ---- where the images are ----


def test_names_as_they_are(tmp_path):
    own.write_images(tmp_path, ["a.png", "b/a.png"])
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
    own.write_images(tmp_path, files)
    images, notices = locate(PATH, tmp_path, names)
    assert images == found
    assert notices == [f"points.csv: below {tmp_path}, {names[0]} is {found[0]}"]


@pytest.mark.parametrize(
    "files, names, said",
    [
        # No one folder, two folders.
        (["i/a.png", "j/b.png"], ["a.png", "b.png"], "a.png, b.png; a.png may be i/a.png"),
        (["i/a.png", "j/a.png"], ["a.png"], "a.png; a.png may be i/a.png, j/a.png"),
        (["a.png", "i/b.png"], ["a.png", "b.png"], ""),  # one is where its name says
        (["a.png"], ["v1/a.png", "v2/a.png"], ""),  # two images would be one
        (["a.png"], ["v1/a.png", "b.png"], ""),
        (["b/a.png"], ["../a.png"], ""),
        (
            ["i/a.png", "b.png"],
            ["x/a.png", "I/A.PNG"],
            "; I/A.PNG may be i/a.png: only the case differs",
        ),
        (["a.png", "b.png"], ["a.png", "b"], "b; b may be b.png"),
    ],
)
def test_no_guesses(tmp_path, files, names, said):
    own.write_images(tmp_path, files)
    message = complaint(locate, PATH, tmp_path, names)
    assert "images it names aren't below" in message and message.endswith(said)


def test_many_folders_take_no_minutes(tmp_path):
    own.write_images(tmp_path, ["x/y/a.png"])
    begin = time.perf_counter()
    assert "1 of the 1" in complaint(locate, PATH, tmp_path, ["a/" * 16_000 + "a.png"])
    assert locate(PATH, tmp_path, ["a/" * 16_000 + "x/y/a.png"])[0] == ["x/y/a.png"]
    assert time.perf_counter() - begin < 20  # 160 if each folder cost as much as all


def test_absent_images_are_counted_and_the_first_named(tmp_path):
    own.write_images(tmp_path, ["a.png"])
    names = ["a.png", *(f"{i}.png" for i in range(5)), "1.png"]
    assert complaint(locate, PATH, tmp_path, names) == (
        f"points.csv: 5 of the 6 images it names aren't below {tmp_path}: 0.png, 1.png, 2.png, ..."
    )
    strange = ["a/" * 3000, "\0", "\ud800", "x" * 5000]
    assert "4 of the 4" in complaint(locate, PATH, tmp_path, strange)
    assert "no such folder" in complaint(locate, PATH, tmp_path / "absent", names)


def test_sizes(tmp_path):
    own.write_images(tmp_path, ["a.png"], (40, 30))
    (tmp_path / "bad.png").write_bytes(b"")
    sizes, turned = read_sizes(tmp_path, ["a.png", "bad.png", "a.png"])
    assert np.array_equal(sizes, [[40, 30], [np.nan] * 2, [40, 30]], equal_nan=True)
    assert not turned.any()


@pytest.mark.parametrize("form", ["wide", "long", "tps", "COCO"])
@pytest.mark.parametrize("other", ["./a.png", "sub/../a.png", "link.png", "A.PNG"])
def test_an_image_by_two_names_is_one(tmp_path, form, other):
    path = WRITERS[form](tmp_path)
    # The second of these as if the disk ignored case.
    make = {"link.png": os.symlink, "A.PNG": os.link}.get(other, lambda *_: None)
    make(tmp_path / "a.png", tmp_path / other)
    if form == "COCO":
        content = own.coco_content()
        content["images"][2]["file_name"] = other
        own.write_coco(tmp_path, content)
        assert "image a.png is there twice" in complaint(read_keypoints, path, tmp_path)
        return
    lines = path.read_text().splitlines()
    first, count = {"wide": (1, 1), "long": (1, 3), "tps": (0, 6)}[form]
    copies = [line.replace("a.png", other) for line in lines[first : first + count]]
    write_text(path, *lines, *copies)
    table = read_keypoints(path, tmp_path)
    assert table.images == table.ids == own.IMAGES
    assert np.array_equal(table.points, own.POINTS, equal_nan=True)
    assert table.notices[0].endswith("that repeat another one left out")
    write_text(path, *lines, *(line.replace("10", "11") for line in copies))
    said = "of a.png is there twice, at other places; a.png is first on line"
    assert said in complaint(read_keypoints, path, tmp_path)


def test_a_folder_by_two_names_is_one(tmp_path):
    own.write_images(tmp_path, ["a/1.png", "a/2.png", "a/3.png", "0.png"])
    (tmp_path / "b").symlink_to("a")
    names = ["b/1.png", "a/2.png", "./a/../a/3.png", "0.png", "absent/x.png"]
    assert one_name_each(tmp_path, names) == ["b/1.png", "b/2.png", "b/3.png", *names[3:]]


# ---- the files that others made ----


@needs_own
def test_wings_by_csv_and_by_tps():
    """Both hold the same points, y upwards: row = 480 - y."""
    folder = OWN / "wings/images"
    csv = read_keypoints(OWN / "wings/landmarks.csv", folder, y_up=True)
    tps = read_keypoints(OWN / "wings/landmarks.tps", folder)
    assert csv.points.shape == (58, 12, 2)
    assert np.array_equal(csv.points, tps.points)
    assert csv[:2] == tps[:2] and csv.ids == tps.ids
    assert csv.images[0] == "63001.jpg" and csv.points[0, 0].tolist() == [290, 480 - 108]
    above = read_keypoints(OWN / "wings/landmarks.tps", OWN / "wings")
    assert above.images[0] == "images/63001.jpg" and np.array_equal(above.points, tps.points)


@needs_own
def test_the_mouse():
    path = OWN / "mouse/labeled-data/m4s1/CollectedData_Pranav.csv"
    table = read_keypoints(path, OWN / "mouse")
    assert table.names == ["snout", "leftear", "rightear", "tailbase"]
    assert table.flip_pairs == [("leftear", "rightear")]
    assert table.points.shape == (116, 4, 2)
    assert table.points[0, 0].tolist() == [21.521, 265.428]
    inside = read_keypoints(path, path.parent)  # of the video alone
    assert inside.images[0] == "img0000.png" and np.array_equal(inside.points, table.points)


@needs_own
@pytest.mark.parametrize(
    "name, instances, points, pairs",
    [("people", 12, 17, 8), ("ap10k", 2, 17, 7), ("animalpose", 2, 20, 8), ("fly", 2, 32, 14)],
)
def test_coco_files(name, instances, points, pairs):
    path = next((OWN / "coco" / name).glob("*.json"))
    table = read_keypoints(path, path.parent)
    assert table.points.shape == (instances, points, 2)
    assert len(table.flip_pairs) == pairs
    assert (table.sigmas is not None) == (name == "people")
    inside = (table.points >= table.boxes[:, None, :2] - 1) & (
        table.points <= table.boxes[:, None, 2:] + 1
    )
    assert (inside | np.isnan(table.points)).mean() > 0.97


def test_images_outside_the_folder_are_said(tmp_path):
    own.write_images(tmp_path / "in")
    own.write_images(tmp_path)
    names = ["a.png", str(tmp_path / "a.png"), "../sub/b c.png", str(tmp_path / "in/a.png")]
    _, notices = locate(PATH, tmp_path / "in", names)
    outside = f"{tmp_path}/a.png, ../sub/b c.png"
    assert notices == [f"points.csv: names 2 images outside {tmp_path / 'in'}: {outside}"]
