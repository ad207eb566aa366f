"""Images to predict on: which they are, and that what is shown of them is where the map says."""

import json

import numpy as np
import pytest
import tifffile
from PIL import Image

from data_loader.framing import Affine, Framing
from data_loader.readers.images import FULL_RANGE
from data_loader.unannotated import ImageFiles, Shown, open_source
from engine.prediction.predictor import Frame
from tests.data_loader.layouts import complaint, dot_image, save_image
from utils.errors import InputError


def prepare(fit="stretch", crop=0):
    return Frame(["nose"], Framing(fit, 60, 0.1), crop, (0, 0, 0), (1, 1, 1)).prepare


@pytest.fixture
def folder(tmp_path):
    for name in ("b.png", "a/c.png", "a/d.jpg"):
        save_image(tmp_path / name, dot_image((120, 80), (30, 25)))
    (tmp_path / "a/notes.txt").write_text("none\n")
    return tmp_path


def names(source):
    return [source.shown(index).name for index in range(source.count)]


def test_a_folder_an_image_and_a_list(folder):
    assert names(open_source(folder, None)) == ["a/c.png", "a/d.jpg", "b.png"]
    assert names(open_source(folder / "b.png", None)) == ["b.png"]
    (folder / "list.txt").write_text("b.png\r\na\\d.jpg\nabsent.png\n")
    source = open_source(folder / "list.txt", None)
    assert names(source) == ["b.png", "a/d.jpg", "absent.png"]
    items = source.items(prepare(), 60, 0)
    assert [items[place].reason for place in range(3)] == ["", "", "no such image"]
    (folder / "a/list.txt").write_text("b.png\na/d.jpg\n")  # relative to the folder above
    source = open_source(folder / "a/list.txt", None)
    assert names(source) == ["b.png", "a/d.jpg"]
    assert [source.items(prepare(), 60, 0)[place].reason for place in range(2)] == ["", ""]


@pytest.mark.parametrize("fit", ["stretch", "pad", "crop"])
@pytest.mark.parametrize("box", [None, (10.0, 5.0, 70.0, 60.0)])
def test_the_dot_is_where_the_map_says(folder, fit, box):
    source = ImageFiles(folder, ["b.png"], np.array([box or [np.nan] * 4]), [""])
    item = source.items(prepare(fit, crop=2), 56, 0)[0]
    assert item.image.shape == (3, 56, 56) and item.size.tolist() == [120, 80]
    x, y = Affine(*item.affine.numpy())(np.array([30.0, 25.0])) - 2
    found = np.argwhere(item.image.mean(dim=0).numpy() > 0.9 * item.image.mean(dim=0).max().item())
    assert np.abs(found.mean(axis=0) - (y, x)).max() < 1


def test_an_orientation_note_is_heeded(tmp_path):
    image = Image.new("RGB", (40, 20))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "a.jpg", exif=exif)
    item = open_source(tmp_path, None).items(prepare(), 60, 0)[0]
    assert item.size.tolist() == [20, 40]


def test_levels_belong_to_all_that_is_shown(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.full((20, 40), 2048, dtype=np.uint16))
    (tmp_path / "notes.txt").touch()
    source = open_source(tmp_path, None)
    assert source.notices == [f"{tmp_path}: 1 files or folders left out: 1 *.txt"]
    for levels, value in ((FULL_RANGE, 8), ((0, 4095), 128)):
        source.levels = levels
        [(_, image)] = source.open([0])
        assert image.getpixel((5, 5)) == (value,) * 3
        pixels = source.items(prepare(), 60, 0)[0].image
        assert np.allclose(pixels, value / 255)
    assert names(open_source(tmp_path / "a.tif", None)) == ["a.tif"]


def coco(boxes, **more):
    annotations = [{"id": n + 1, "image_id": 7, "bbox": b, **more} for n, b in enumerate(boxes)]
    image = {"id": 7, "file_name": "a/c.png"}
    return json.dumps({"images": [image], "annotations": annotations, "categories": []})


def test_boxes_are_taken_one_by_one(folder):
    (folder / "boxes.json").write_text(coco([[10, 5, 60, 55], [0, 0, 20, 20]]))
    source = open_source(folder, folder / "boxes.json")
    assert source.shown(0) == Shown("a/c.png", (10, 5, 70, 60), "1")
    assert source.shown(1).box == (0, 0, 20, 20) and source.count == 2
    assert source.items(prepare(), 60, 1)[0].index == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (coco([[1, 2, 0, 3]]), "annotation 1 has no box"),
        (coco([]), "has no annotation with a box"),
        (coco([[1, 2, 3, 3]], image_id=9), "the image_id 9"),
        ("{}", "not COCO's JSON"),
    ],
)
def test_boxes_that_dont_fit_are_refused(folder, text, words):
    (folder / "boxes.json").write_text(text)
    assert words in complaint(lambda: open_source(folder, folder / "boxes.json"))


def test_a_box_beside_the_image_is_a_bad_image(folder):
    source = ImageFiles(folder, ["b.png"], np.array([[500.0, 500.0, 510.0, 510.0]]), [""])
    assert "shows nothing" in source.items(prepare(), 60, 0)[0].reason


def test_nothing_is_no_source(tmp_path):
    for path, words in (("x", "no such folder, image, list or video"), (".", "holds no image")):
        with pytest.raises(InputError, match=words):
            open_source(tmp_path / path, None)
    (tmp_path / "empty.txt").write_text("")
    with pytest.raises(InputError, match="empty, expected one image a line"):
        open_source(tmp_path / "empty.txt", None)
    with pytest.raises(InputError, match="--images must be the folder"):
        open_source(tmp_path / "empty.txt", tmp_path / "boxes.json")
