"""Folders of one's own images: framing, orientation, colour statistics."""

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from data_loader.folder import Folder, measure_colours
from data_loader.framing import FITS, Framing
from data_loader.storage.image_cache import cache_images
from data_loader.storage.sharded_images import ShardedFolder
from data_loader.storage.shards import find_shards
from data_loader.views.random_view import IMAGENET_MEAN, IMAGENET_STD
from tests.data_loader import shard_files
from tests.data_loader.layouts import bright_spot, complaint, dot_image, save_image
from tests.data_loader.own_files import write_boxes

PLAIN = {"do_augmentations": False, "imwidth": 64, "crop": 4}


def save_turned(path, image, orientation):
    """Save an image that a note says was turned: shown, it looks as given."""
    back = {6: Image.Transpose.ROTATE_90, 3: Image.Transpose.ROTATE_180}[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.transpose(back).save(path, "JPEG", quality=95, exif=exif)


@pytest.mark.parametrize("fit", FITS)
def test_images_are_framed_as_asked(tmp_path, fit):
    save_image(tmp_path / "a/b/1.png", dot_image((120, 80), (50, 45)))
    dataset = Folder(tmp_path, fit=fit, **PLAIN)
    data, *_ = dataset[0]
    assert data.shape == (6, 56, 56)
    expected = Framing(fit, 64).affine((120, 80))(np.array([50, 45])) - 4
    assert np.abs(bright_spot(data[:3], dataset) - expected).max() < 0.1


def test_each_box_is_an_image(tmp_path):
    save_image(tmp_path / "a/1.png", dot_image((120, 80), (50, 45)))
    save_image(tmp_path / "a/2.png", dot_image((120, 80), (90, 45)))
    boxes = [(30, 25, 70, 65), (40, 20, 60, 70), (80, 30, 110, 60)]
    names = ["a/1.png", "a/1.png", "a/2.png"]
    path = write_boxes(tmp_path / "boxes.json", list(zip(names, boxes, strict=True)))
    dataset = Folder(tmp_path, fit="stretch", boxes=path, margin=0.1, **PLAIN)
    assert dataset.filenames == names
    framing = Framing("stretch", 64, 0.1)
    for index, (box, dot) in enumerate(zip(boxes, ((50, 45), (50, 45), (90, 45)), strict=True)):
        expected = framing.affine((120, 80), box)(np.array(dot)) - 4
        assert np.abs(bright_spot(dataset[index][0][:3], dataset) - expected).max() < 0.3
    # Its squares aren't those of whole images, and a cache of the ones isn't taken for the others.
    assert dataset.digest() != Folder(tmp_path, **PLAIN).digest()
    assert "exclude each other" in complaint(
        Folder, tmp_path, boxes=path, imagelist=tmp_path / "list", **PLAIN
    )
    path = write_boxes(path, [("a/1.png", (0, 0, 9, 9)), ("a/9.png", (0, 0, 9, 9))])
    assert "1 of the 2 images it names aren't below" in complaint(
        Folder, tmp_path, boxes=path, **PLAIN
    )
    path = write_boxes(path, [("a/1.png", (200, 0, 209, 9))])
    assert "1.png: the box 200, 0, 209, 9 shows nothing" in complaint(
        Folder(tmp_path, boxes=path, **PLAIN).read_square, 0
    )


def test_images_are_turned_as_their_notes_say_and_counted(tmp_path):
    for number, orientation in ((1, 6), (2, 3)):
        save_turned(tmp_path / f"{number}.jpg", dot_image((120, 80), (50, 45)), orientation)
    save_image(tmp_path / "3.png", dot_image((120, 80), (50, 45)))
    (tmp_path / "4.jpg").write_bytes(b"no image")  # which is said when it is needed
    dataset = Folder(tmp_path, fit="pad", **PLAIN)
    expected = Framing("pad", 64).affine((120, 80))(np.array([50, 45])) - 4
    for index in range(3):
        assert np.abs(bright_spot(dataset[index][0][:3], dataset) - expected).max() < 0.3
    assert dataset.count_notice() == [
        "2 of 4 images are turned as a note in their file says (EXIF)"
    ]


def test_another_fit_is_another_cache_of_squares(tmp_path):
    save_image(tmp_path / "in/1.png", dot_image((120, 80), (50, 45)))
    squares = []
    for fit in ("stretch", "pad"):
        dataset = Folder(tmp_path / "in", fit=fit, **PLAIN)
        cache_images(dataset, tmp_path / "cache", 0, lambda line: None)
        squares.append(dataset.square_item(0).image)
    assert not torch.equal(*squares)
    assert (squares[1][:, :10] == 0).all()


def test_colours_are_imagenets_unless_measured(tmp_path):
    for number, value in enumerate((10, 30)):
        pixels = np.full((8, 8, 3), value, np.uint8)
        pixels[:, :4, 1] += 100
        save_image(tmp_path / f"{number}.png", Image.fromarray(pixels))
    dataset = Folder(tmp_path, imwidth=8, crop=0)
    assert (dataset.mean, dataset.std) == (IMAGENET_MEAN, IMAGENET_STD)
    assert dataset.noted_colours() == {}
    mean, std, _ = measure_colours(dataset)
    np.testing.assert_allclose(np.array(mean) * 255, [20, 70, 20])
    # Of 10, 10, 30, 30; and of 10, 110, 30, 130.
    np.testing.assert_allclose(np.array(std) * 255, [10, 2600**0.5, 10])
    dataset.standardise_by(mean, std)
    levels = (0, 65535)
    assert dataset.noted_colours() == {"colours": {"mean": mean, "std": std, "levels": levels}}
    assert torch.allclose(dataset.normalize(torch.ones(3, 1, 1))[0], torch.tensor(235 / 10))
    torch.manual_seed(0)
    assert float(dataset[0][0].abs().max()) < 40  # the random views follow: not ImageNet's -2


def save_deep(path, values):
    """Save values of 16 bits, as grey in a PNG, in colours in a TIFF."""
    if path.suffix == ".png":
        Image.fromarray(values).save(path)
    else:
        tifffile.imwrite(path, np.repeat(values[..., None], 3, axis=2), photometric="rgb")


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_the_range_of_16_bit_values_is_measured_too(tmp_path, suffix):
    for number in range(3):
        values = np.full((8, 8), 1000 * number + 1000, dtype=np.uint16)
        save_deep(tmp_path / f"{number}.{suffix}", values)
    dataset, plain = (Folder(tmp_path, imwidth=8, crop=0) for _ in range(2))
    dark, said = dataset.count_notice()[0], "16-bit values: 1,000 is black, 3,000 white"
    assert f"0.{suffix}: its 16-bit values stay below 12 bits: nearly black" in dark
    mean, std, levels = measure_colours(dataset)
    assert levels == (1000, 3000) and said in dataset.count_notice()
    np.testing.assert_allclose(np.array(mean) * 255, (0 + 127 + 255) / 3)
    dataset.standardise_by(mean, std, levels)
    assert np.asarray(dataset.read_square(1)).max() == 127
    assert np.asarray(plain.read_square(1)).max() == 2000 >> 8
    assert dataset.noted_colours()["colours"]["levels"] == (1000, 3000)
    assert dataset.digest() != plain.digest()  # no cache of the one is taken for the other's


def test_the_first_page_is_read_with_a_line(tmp_path):
    for number in range(3):
        values = np.zeros((number + 1, 8, 8), dtype=np.uint8)
        tifffile.imwrite(tmp_path / f"{number}.tif", values, photometric="minisblack")
    said = f"of 2 TIFF files the first page is read: {tmp_path / '1.tif'}"
    assert Folder(tmp_path, **PLAIN).count_notice() == [said]


def test_unreadable_images_are_left_out_of_the_colours_if_they_may_be_bad(tmp_path):
    save_image(tmp_path / "1.png", Image.new("RGB", (8, 8), (51, 51, 51)))
    (tmp_path / "2.png").write_bytes(b"no image")
    assert "not an image" in complaint(measure_colours, Folder(tmp_path, imwidth=8, crop=0))
    mean, _, _ = measure_colours(Folder(tmp_path, imwidth=8, crop=0, skip_bad=True))
    np.testing.assert_allclose(mean, 0.2)


def test_shards_are_framed_and_measured_alike(tmp_path):
    pattern = shard_files.write_shards(tmp_path, [3, 2])
    shards = find_shards(pattern)
    dataset = ShardedFolder(shards, fit="pad", imwidth=24, crop=0)
    square = np.asarray(dataset.read_square(1))
    assert square.shape == (24, 24, 3) and (square[:2] == 0).all()  # images of 24 x 20
    pixels = np.stack([np.asarray(dataset.read_square(i)) for i in range(5)]) / 255
    mean, std, _ = measure_colours(dataset)
    np.testing.assert_allclose(mean, pixels.mean(axis=(0, 1, 2)))
    np.testing.assert_allclose(std, np.maximum(pixels.std(axis=(0, 1, 2)), 0.01))


def test_of_many_images_some_headers_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr("data_loader.folder.HEADERS", 3)
    for number in range(2):  # of five, those at both ends and in the middle are looked at
        save_turned(tmp_path / f"{number}.jpg", dot_image((40, 30), (5, 5)), 6)
    for number in range(2, 5):
        save_image(tmp_path / f"{number}.jpg", dot_image((40, 30), (5, 5)))
    said = "1 of 3 images looked at, of 5, are turned as a note in their file says (EXIF)"
    assert Folder(tmp_path, **PLAIN).count_notice() == [said]
