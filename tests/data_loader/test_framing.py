"""Squares that are cut from images, against dots whose places are known and Pillow's resize."""

import itertools

import numpy as np
import pytest
from PIL import Image

from data_loader.framing import FITS, Framing
from data_loader.geometry import resize_square
from utils.errors import ImageError

SIZES = [(64, 48), (37, 91), (50, 50)]
BOXES = [None, (10.2, 8.7, 30.1, 20.4), (-20.0, -4.0, 12.0, 30.0), (20.0, 11.0, 22.0, 44.0)]


def noise(size: tuple[int, int]) -> Image.Image:
    """Return an image of random pixels."""
    pixels = np.random.RandomState(0).randint(0, 256, (size[1], size[0], 3))
    return Image.fromarray(pixels.astype(np.uint8))


def blob(size: tuple[int, int], centre: tuple[float, float]) -> Image.Image:
    """Return a smooth bright dot, whose weighted mean place is its centre."""
    y, x = np.mgrid[: size[1], : size[0]]
    grey = 255 * np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / (2 * 4.0**2))
    return Image.fromarray(grey.round().astype(np.uint8)).convert("RGB")


def mean_place(image: Image.Image) -> np.ndarray:
    """Return the weighted mean place of the brightness."""
    grey = np.asarray(image.convert("L"), dtype=float)
    y, x = np.mgrid[: grey.shape[0], : grey.shape[1]]
    return np.array([(x * grey).sum(), (y * grey).sum()]) / grey.sum()


@pytest.mark.parametrize("size", [*SIZES, (1, 5), (300, 7)])
@pytest.mark.parametrize("side", [16, 96])
def test_a_stretched_image_has_the_published_pixels(size, side):
    image = noise(size)
    square, _ = Framing("stretch", side).to_square(image)
    np.testing.assert_array_equal(np.asarray(square), np.asarray(resize_square(image, side)))


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("size", [(400, 300), (300, 400)])
@pytest.mark.parametrize("box", [None, (100.3, 90.6, 240.2, 200.1), (-50.0, 60.0, 250.0, 280.0)])
def test_points_follow_their_pixels(fit, size, box):
    centre = (171.3, 148.6)
    square, affine = Framing(fit, 128, margin=0.1).to_square(blob(size, centre), box)
    assert square.size == (128, 128)
    # The dot is 4 pixels wide and its tails are rounded: a tenth of a pixel is far more than that.
    np.testing.assert_allclose(affine(np.array(centre)), mean_place(square), atol=0.1)


@pytest.mark.parametrize(
    ("fit", "size", "box"), list(itertools.product(FITS, SIZES[:2], BOXES)), ids=str
)
def test_the_inverse_leads_back(fit, size, box):
    framing = Framing(fit, 32, margin=0.25)
    _, affine = framing.to_square(noise(size), box)
    points = np.array([[[0.0, 0.0], [-0.5, -0.5]], [[3.25, 7.5], [63.0, 47.0]]])
    np.testing.assert_allclose(affine.inverse(affine(points)), points, atol=1e-9)
    assert affine == framing.affine(size, box)


def test_the_corners_of_what_is_shown():
    corners = np.array([[-0.5, -0.5], [63.5, 47.5]])
    stretched = Framing("stretch", 96).affine((64, 48))
    np.testing.assert_allclose(stretched(corners), [[-0.5, -0.5], [95.5, 95.5]])
    padded = Framing("pad", 96).affine((64, 48))  # 8 rows of black above and below
    np.testing.assert_allclose(padded(corners), [[-0.5, 11.5], [95.5, 83.5]])
    cropped = Framing("crop", 96).affine((64, 48))  # 8 columns fall away at either side
    np.testing.assert_allclose(cropped(corners), [[-16.5, -0.5], [111.5, 95.5]])


def test_a_box_gets_its_margin_and_whole_pixels():
    # Pixels 10 to 19 and 20 to 39, from edge to edge; a tenth of the size more on each side.
    box = (9.5, 19.5, 19.5, 39.5)
    assert Framing("stretch", 8).window((64, 48), box) == (10, 20, 20, 40)
    assert Framing("stretch", 8, margin=0.1).window((64, 48), box) == (9, 18, 21, 42)
    assert Framing("stretch", 8).window((64, 48), (9.4, 19.5, 19.6, 39.5)) == (9, 20, 21, 40)
    assert Framing("pad", 8).window((64, 48), box) == (5, 20, 25, 40)
    assert Framing("crop", 8).window((64, 48), box) == (10, 25, 20, 35)


def test_a_box_of_no_size_shows_a_pixel():
    assert Framing("stretch", 8).window((64, 48), (5.0, 6.0, 5.0, 6.0)) == (5, 6, 6, 7)


def test_padding_is_black_beyond_the_image_and_shows_what_lies_around_a_box():
    image = Image.new("RGB", (40, 20), (200, 100, 50))
    square, _ = Framing("pad", 40).to_square(image)
    pixels = np.asarray(square)
    assert (pixels[:10] == 0).all() and (pixels[30:] == 0).all()
    assert (pixels[10:30] == (200, 100, 50)).all()
    around, _ = Framing("pad", 8).to_square(image, (9.5, 5.5, 19.5, 11.5))
    assert (np.asarray(around) == (200, 100, 50)).all()


def test_padding_equals_a_resize_of_the_padded_image():
    image = noise((120, 31))
    square, _ = Framing("pad", 24).to_square(image)
    padded = image.crop((0, -45, 120, 75))
    assert padded.size == (120, 120)
    expected = resize_square(padded, 24)
    upright, _ = Framing("pad", 24).to_square(image.transpose(Image.Transpose.TRANSPOSE))
    # Pillow rounds between the axes, and takes either first.
    for found in (square, upright.transpose(Image.Transpose.TRANSPOSE)):
        difference = np.asarray(found, int) - np.asarray(expected, int)
        assert np.abs(difference).max() <= 1


def test_a_long_image_is_padded_without_holding_its_square():
    square, affine = Framing("pad", 32).to_square(Image.new("RGB", (60_000, 3), "white"))
    assert square.size == (32, 32)
    np.testing.assert_allclose(affine(np.array([59_999.5, 1.0])), [31.5, 15.5], atol=1e-3)


@pytest.mark.parametrize("box", [(70.0, 0.0, 80.0, 10.0), (30.0, 0.0, 20.0, 9.0)])
def test_a_box_beside_the_image_is_refused(box):
    with pytest.raises(ImageError, match="shows nothing of 64 x 48 pixels"):
        Framing("pad", 32).to_square(noise((64, 48)), box)
