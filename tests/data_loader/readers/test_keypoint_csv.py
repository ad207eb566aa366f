"""CSV: headers that pair columns, long tables, DeepLabCut's, and how all can be wrong."""

import tracemalloc

import numpy as np
import pytest

from data_loader.readers.keypoint_csv import find_pairs
from data_loader.readers.keypoint_files import read_keypoints
from tests.data_loader import own_files as own
from tests.data_loader.layouts import complaint, write_text

NAN = float("nan")


def read(folder, *lines, **options):
    own.write_images(folder)
    write_text(folder / "points.csv", *lines)
    return read_keypoints(folder / "points.csv", folder, **options)


def same(points, expected) -> bool:
    return np.array_equal(points, expected, equal_nan=True)


@pytest.mark.parametrize(
    "header, names",
    [
        ("id,X1,Y1,X2,Y2", ["1", "2"]),
        ("image,eye_x,eye_y,beak_x,beak_y", ["eye", "beak"]),
        ("image,x_eye,y_eye,x_beak,y_beak", ["eye", "beak"]),
        ("image,eye.X,eye.Y,beak (x),beak (y)", ["eye", "beak"]),
        ("image,eyeX,eyeY,1x,1y", ["eye", "1"]),
        ("image,eye_x,beak_x,eye_y,beak_y", ["eye", "beak"]),
        ("image,eye_y,eye_x", ["eye"]),
        ("image,x,y", ["point"]),
        ("image,x0,x1,y0,y1", ["0", "1"]),
        ("image,vertex_x,vertex_y,x_max,y_max", ["vertex", "max"]),
        ("image,width,height,index", []),
        ("image,xmin,ymin,xmax,ymax", []),
    ],
)
def test_headers(header, names):
    assert [pair.name for pair in find_pairs(header.split(","))] == names


@pytest.mark.parametrize(
    "lines, names, points",
    [
        (["y_eye,beak_x,image,x_eye,beak_y", "4,5,a.png,3,6"], "beak eye", [[5, 6], [3, 4]]),
        (["image;a_x;a_y", "a.png;1,5;2"], "a", [[1.5, 2]]),
        (["image;a_x;a_y", "a.png;1.5;2"], "a", [[1.5, 2]]),
        # What a first line names goes before what it has.
        (["sep=,", "image,a;_x,a;_y", "a.png,1,2"], "a;", [[1, 2]]),
        (["sep=\t", "image\ta,_x\ta,_y", "a.png\t1\t2"], "a,", [[1, 2]]),
        # DeepLabCut's, of which likelihoods are no points.
        (
            [
                *("scorer,net,net,net", "bodyparts,nose,nose,nose", "coords,x,y,likelihood"),
                "a.png,1,2,0.9",
            ],
            "nose",
            [[1, 2]],
        ),
        # Not ImageJ's.
        *(([f"{image},x,y", "a.png,1,2"], "point", [[1, 2]]) for image in ("name", "", "label")),
        (["image,x,y", "a.png,1,2"], "point", [[1, 2]]),
        (["x,image,y", "1,a.png,2"], "point", [[1, 2]]),
    ],
)
def test_tables_of_an_image(tmp_path, lines, names, points):
    table = read(tmp_path, *lines)
    assert table.names == names.split() and same(table.points, [points])


def test_missing_and_invisible_points(tmp_path):
    lines = ["image,a_x,a_y,a_visible,x1,y1,v1", "a.png,1,2,1,nan,NaN,1"]
    lines += ["sub/b c.png,NA,na,1,3,4,0", "sub/d.jpg,-1,-1,True,5,6,2"]
    table = read(tmp_path, *lines)
    assert table.names == ["a", "1"]
    expected = [[[1, 2], [NAN, NAN]], [[NAN, NAN]] * 2, [[NAN, NAN], [5, 6]]]
    assert same(table.points, expected) and table.notices == []


def test_other_columns_are_noted(tmp_path):
    header = ",image,a_x,a_y,a_confidence,sex,age"
    table = read(tmp_path, header, "0,a.png,1,2,0.9,f,old")
    assert table.images == ["a.png"] and same(table.points, [[[1, 2]]])
    assert table.notices == [f"{tmp_path / 'points.csv'}: columns not used: number 1, sex, age"]


def test_quoted_cells(tmp_path):
    own.write_images(tmp_path, ['a, "b".png'])
    table = read(tmp_path, 'image,"a x","a y"', '"a, ""b"".png","1","2"', "")
    assert table.images == ['a, "b".png'] and table.names == ["a"]


@pytest.mark.parametrize("first", [[], ["sep=;"], ["", '"SEP=;"']])
def test_excels_first_line(tmp_path, first):
    lines = [*first, "image;a_x;a_y", "a.png;1,5;2"]
    assert same(read(tmp_path, *lines).points, [[[1.5, 2]]])
    said = f"line {len(lines) + 1}: expected a number in column 3, found 'q'"
    assert said in complaint(read, tmp_path, *lines, "sub/d.jpg;3;q")


@pytest.mark.parametrize("quoted", [False, True])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("lines", [own.wide_lines(), own.dlc_lines(), own.dlc_lines(parts=True)])
def test_tabs(tmp_path, lines, end, quoted):
    """Also where the first or the last cells of a line are empty."""
    for folder in (tmp_path, tmp_path / "labeled-data/v1"):
        own.write_images(folder, [*own.IMAGES, "b c.png", "d.jpg"])
    rows = [line.split(",") for line in lines]
    if quoted:
        rows = [[f'"{cell}"' for cell in row] for row in rows]
    path = tmp_path / "points.tsv"
    path.write_text("".join("\t".join(row) + end for row in rows), newline="")
    table = read_keypoints(path, tmp_path)
    assert table.names == own.NAMES and same(table.points, own.POINTS)


def test_tabs_and_decimal_commas(tmp_path):
    table = read(tmp_path, "\ta_x\ta_y", "a.png\t1,5\t2.5", " sub/d.jpg\t\t")
    assert table.images == ["a.png", "sub/d.jpg"]
    assert same(table.points, [[[1.5, 2.5]], [[NAN, NAN]]])


def test_instances(tmp_path):
    lines = ["image,instance,a_x,a_y", "a.png,1,1,2", "a.png,2,3,4", "sub/d.jpg,,5,6"]
    table = read(tmp_path, *lines)
    assert table.images == ["a.png", "a.png", "sub/d.jpg"]
    assert table.ids == ["a.png#1", "a.png#2", "sub/d.jpg"]
    long = ["image,instance,point,x,y", "a.png,1,a,1,2", "a.png,2,a,3,4", "sub/d.jpg,,a,5,6"]
    other = read(tmp_path, *long)
    assert other.ids == table.ids and same(other.points, table.points)


def test_boxes(tmp_path):
    header, line = "image,xmin,ymin,xmax,ymax,a_x,a_y", "a.png,1,2,11,22,3,4"
    assert read(tmp_path, header, line).boxes.tolist() == [[1, 2, 11, 22]]
    assert read(tmp_path, header, line, y_up=True).boxes.tolist() == [[1, 8, 11, 28]]
    assert np.isnan(read(tmp_path, header, "a.png,,,,,3,4").boxes).all()
    for sides in ("bbox_w,bbox_h", "bbox_width,bbox_height"):
        header = f"image,Bbox_x,bbox_y,{sides},a_x,a_y"
        sized = read(tmp_path, header, line, "sub/d.jpg,1,2,0,22,3,4")  # without area, none
        assert sized.names == ["a"] and sized.notices == []
        assert same(sized.boxes, [[1, 2, 12, 24], [NAN] * 4])


def test_long_lines_in_any_order(tmp_path):
    lines = ["x,y,landmark,file", "1,2,a,a.png", "5,6,b,sub/d.jpg", "3,4,b,a.png"]
    table = read(tmp_path, *lines)
    assert table.names == ["a", "b"] and table.images == ["a.png", "sub/d.jpg"]
    assert same(table.points, [[[1, 2], [3, 4]], [[NAN, NAN], [5, 6]]])


@pytest.mark.parametrize(
    "lines, said",
    [
        (["image,a_x,a_y,a_x,a_y", "a.png,1,2,3,4"], "line 1: the column a_x is there twice"),
        (["image,x1,y1,1_x,1_y", "a.png,1,2,3,4"], "line 1: the point 1 is named twice"),
        (["a_x,a_y", "1,2"], "has no column that names the image"),
        (["image,a_x,a_y"], "has no line below its header"),
        (["image,a_x,a_y", "a.png,1"], "line 2: expected 3 cells as in the header, found 2"),
        (["image,a_x,a_y", "a.png,1,2,3"], "line 2: expected 3 cells as in the header, found 4"),
        (["image,a_x,a_y", "a.png,1,inf"], "line 2: expected a number in column 3, found 'inf'"),
        (["image,a_x,a_y", "a.png,1_0,2"], "line 2: expected a number in column 2, found '1_0'"),
        (["image,a_x,a_y", "a.png,,2"], "line 2: point a has one coordinate alone"),
        (["image,a_x,a_y", ",1,2"], "line 2: names no image"),
        (["image,a_x,a_y", 'a.png,"1,2'], "line 2: unexpected end of data"),
        (["image,point,x,y", "a.png,,1,2"], "line 2: names no point"),
        (["image,point,x,y", "a.png,a,1"], "line 2: expected 4 cells"),
        (["point,x,y", "a,1,2"], "has no column that names the image"),
        (["image,point,x,y", *(f"a.png,{i},1,2" for i in range(10_001))], "names 10,001 points"),
        (
            ["image,a_x,a_y", *(f"{i}.png,1,2" for i in range(5)), "a.png,1,2"],
            "5 of the 6 images it names aren't below",
        ),
    ],
)
def test_bad_tables(tmp_path, lines, said):
    message = complaint(read, tmp_path, *lines)
    assert said in message and message.startswith(str(tmp_path / "points.csv")), message


# ---- ImageJ's ----


@pytest.mark.parametrize("between", [",", "\t"])
@pytest.mark.parametrize("ends", ["", ":0003-0004", ":0001-0003-0004:1", ":left eye"])
def test_labels_of_imagej(tmp_path, ends, between):
    """A title, and maybe the selection's name and a stack's slice."""
    own.write_images(tmp_path, ["a.png", "b c.png", "d.tif"])
    labels = [f"{name}{ends}" for name in ("a.png", "b c.png", "d.tif")]
    table = read(tmp_path, *own.imagej_lines(labels=labels, between=between))
    assert table.images == ["a.png", "b c.png", "d.tif"] and table.names == ["1", "2", "3"]
    said = (
        f"{tmp_path / 'points.csv'}: ImageJ's X and Y are taken as pixels, not as units of a scale"
    )
    assert same(table.points, own.POINTS) and table.notices == [said]
    if "left" not in ends:  # the lines of an image need not follow each other
        lines = own.imagej_lines(labels=labels, between=between)
        moved = read(tmp_path, lines[0], *lines[1::3], *lines[2::3], *lines[3::3])
        assert moved.images == table.images and same(moved.points, own.POINTS)


def test_labels_of_a_sequence_of_imagej(tmp_path):
    """A folder that was opened at once: its name, and the files' without suffix."""
    own.write_images(tmp_path, ["day/a.1.tif", "day/b c.png", "day/d.jpeg"])  # beside sub/b c.png
    labels = ["day:a.1", "day:0001-0002:b c", "day:0001-0002-0003:d.jpeg"]
    table = read(tmp_path, *own.imagej_lines(labels=labels))
    assert table.images == ["day/a.1.tif", "day/b c.png", "day/d.jpeg"]
    assert same(table.points, own.POINTS)


def test_imagejs_file_of_an_image_has_its_name(tmp_path):
    folder = own.write_imagej_files(tmp_path)
    table = read_keypoints(sorted(folder.iterdir()), tmp_path)
    assert table.images == own.IMAGES and same(table.points, own.POINTS)
    (folder / "a.csv").unlink()
    for lines in (
        ["X,Y", "3,4", "10,4.5", "7,20"],
        [" \tx\ty", "1\t3\t4", "2\t10\t4.5", "3\t7\t20"],
    ):
        write_text(folder / "a.png.csv", *lines)
        table = read_keypoints(sorted(folder.iterdir()), tmp_path)
        assert table.images == own.IMAGES and same(table.points, own.POINTS)
    write_text(folder / "a.png.csv", "X,Y", "3,4")
    said = "its points aren't those of"
    assert said in complaint(read_keypoints, sorted(folder.iterdir()), tmp_path)
    write_text(folder / "e.csv", "X,Y", "3,4")
    assert "images it names aren't below" in complaint(read_keypoints, folder / "e.csv", tmp_path)


@pytest.mark.parametrize("label", ["d.gif:2", "d.gif:0012-0003-0004", "d.gif:eye:12", "d.tif:2"])
def test_later_slices_of_a_file_of_imagej_are_refused(tmp_path, label):
    own.write_images(tmp_path, ["d.gif", "d.tif"])
    said = complaint(read, tmp_path, "Label,X,Y", "d.gif:1,1,2", f"{label},3,4")
    assert f"line 3: {label} is of a slice after the first" in said


def test_images_of_imagej_have_as_many_points(tmp_path):
    lines = own.imagej_lines()
    said = "has 3 points of a.png and 2 of sub/d.jpg: they are numbered in their order"
    assert said in complaint(read, tmp_path, *lines[:-1])
    lines[-1] = lines[-1].replace("NaN,NaN", ",")  # a missing one, by the line that it keeps
    assert same(read(tmp_path, *lines).points, own.POINTS)
    assert "point X,Y has one" in complaint(read, tmp_path, *lines[:-1], "9,sub/d.jpg,0,,1")
    assert "line 2: names no image" in complaint(read, tmp_path, lines[0], "1,,0,1,2")


# ---- small files of large tables ----


def instances(points: int, count: int) -> list[str]:
    """Return a long table of so many points' names, of which each instance has one."""
    lines = [f"a.png,{i},{i % points},1,2" for i in range(count)]
    return ["image,instance,point,x,y", *lines]


def animals(count: int) -> list[str]:
    """Return DeepLabCut's table of so many animals, each with a part of its own, in 15 frames."""
    own_names = [f"{i // 2}" for i in range(2 * count)]
    heads = [["scorer", *own_names], ["individuals", *own_names], ["bodyparts", *own_names]]
    frames = [f"{i}.png" + ",1" * 2 * count for i in range(15)]
    return [*map(",".join, [*heads, ["coords", *"xy" * count]]), *frames]


@pytest.mark.parametrize(
    "lines", [instances(10_000, 10_000), instances(5_000, 40_000), animals(2_000)]
)
def test_a_small_file_of_a_large_table_is_refused_before_it_is_made(tmp_path, lines):
    own.write_images(tmp_path, [f"{i}.png" for i in range(15)])
    tracemalloc.start()
    try:
        said = complaint(read, tmp_path, *lines)
        assert tracemalloc.get_traced_memory()[1] < 100e6
    finally:
        tracemalloc.stop()
    assert "expected most names in most of them" in said


def test_a_table_with_holes_is_read(tmp_path):
    table = read(tmp_path, *instances(500, 6_000))  # of few cells, of which one of 500 is given
    assert table.points.shape == (6_000, 500, 2)
    assert same(table.points[:3, :3], np.where(np.eye(3)[..., None], [1, 2], NAN))


# ---- DeepLabCut's ----


def test_each_animal_is_an_instance(tmp_path):
    path = own.write_individuals(tmp_path)
    table = read_keypoints(path, tmp_path)
    assert table.names == ["nose", "tail"]
    assert table.images == ["a.png", "a.png", "sub/b c.png"]
    assert table.ids == ["a.png#one", "a.png#two", "sub/b c.png#two"]
    expected = [[[1, 2], [3, 4]], [[11, 12], [13, 14]], [[5, 6], [NAN, NAN]]]
    assert same(table.points, expected)
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


def test_repeated_frames(tmp_path):
    path = own.write_dlc(tmp_path)
    lines = own.dlc_lines()
    write_text(path, *lines, lines[3])
    table = read_keypoints(path, tmp_path)
    assert len(table.images) == 3 and "1 lines that repeat another one" in table.notices[0]
    write_text(path, *lines, lines[3].replace("20", "19"))
    said = "line 7: point beak of labeled-data/v1/a.png is there twice, at other places"
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
def test_bad_tables_of_deeplabcut(tmp_path, line, old, new, said):
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
