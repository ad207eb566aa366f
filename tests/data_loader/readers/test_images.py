import io
import os
import struct
import subprocess
import sys
import warnings
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngImageFile

from data_loader.readers.images import (
    FULL_RANGE,
    has_pages,
    image_size,
    open_image,
    oriented_size,
    value_range,
)
from tests.data_loader.layouts import NO_IMAGE, complaint, huge_png, png_chunk
from tests.recipes import ROOT


def noise(width=31, height=23) -> Image.Image:
    values = np.random.RandomState(0).randint(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def encoded(image, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, **options)
    return buffer.getvalue()


def test_images_open_as_rgb_whatever_their_mode_and_name(tmp_path):
    image, path = noise(), tmp_path / "a.jpg"
    path.write_bytes(encoded(image, format="PNG"))
    assert np.array_equal(np.asarray(open_image(path)), np.asarray(image))
    for mode in ("L", "P", "RGBA", "1"):
        path.write_bytes(encoded(image.convert(mode), format="PNG"))
        opened = open_image(path)
        assert opened.mode == "RGB" and opened.size == (31, 23)
    path.write_bytes(encoded(image.convert("CMYK"), format="JPEG"))
    assert open_image(path).mode == "RGB"


def test_absent_images_and_folders(tmp_path):
    for action in (open_image, image_size):
        assert f"{tmp_path / 'a.jpg'}: no such image" in complaint(action, tmp_path / "a.jpg")
        assert str(tmp_path) in complaint(action, tmp_path)


@pytest.mark.parametrize("content", [b"", b"this is text\n" * 50, b"\0" * 100, b"GIF89a"])
def test_files_that_are_no_images(tmp_path, content):
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    for action in (open_image, image_size):
        assert str(path) in complaint(action, path)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "WEBP"])
def test_images_cut_short(tmp_path, kind):
    whole, path = encoded(noise(), format=kind), tmp_path / "a.jpg"
    for share in (0.02, 0.3, 0.7, 0.95):
        path.write_bytes(whole[: int(len(whole) * share)])
        assert str(path) in complaint(open_image, path)


@pytest.mark.parametrize("error", [TypeError, EOFError, MemoryError, struct.error, zlib.error])
@pytest.mark.parametrize("place", ["open", "load"])
def test_whatever_a_reader_of_pillows_raises_names_the_file(tmp_path, monkeypatch, error, place):
    path = tmp_path / "a.png"
    path.write_bytes(encoded(noise(), format="PNG"))

    def broken(*_, **__):
        raise error("odd bytes")

    if place == "open":
        monkeypatch.setattr(Image, "open", broken)
    else:
        monkeypatch.setattr(PngImageFile, "load", broken)
    message = complaint(open_image, path)
    assert str(path) in message and "odd bytes" in message


@pytest.mark.parametrize("side", [10_000, 30_000])  # Pillow warns of the first, refuses the second
def test_images_too_large_for_the_memory_are_refused_without_a_warning(tmp_path, side):
    path = tmp_path / "a.png"
    path.write_bytes(huge_png(side, side))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        message = complaint(open_image, path)
    assert str(path) in message and str(side**2) in message


# ---- modes ----


def opened(tmp_path, data: bytes) -> np.ndarray:
    (tmp_path / "a.jpg").write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return np.asarray(open_image(tmp_path / "a.jpg")).astype(int)


def test_grey_of_16_bits_keeps_its_upper_8(tmp_path):
    grey = np.arange(31 * 23, dtype=np.uint16).reshape(23, 31) * 91
    pgm = b"P5 31 23 65535\n" + grey.astype(">u2").tobytes()
    for data in (encoded(Image.fromarray(grey), format="PNG"), pgm):
        rgb = opened(tmp_path, data)
        assert np.array_equal(rgb, np.repeat(grey[..., None] >> 8, 3, axis=2))
    key = encoded(Image.fromarray(grey), format="PNG", transparency=int(grey[5, 7]))
    assert opened(tmp_path, key)[5, 7].tolist() == [0, 0, 0]


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_what_is_transparent_becomes_black(tmp_path, mode):
    image = noise().convert(mode)
    alpha = np.linspace(0, 255, 31 * 23).reshape(23, 31).astype(np.uint8)
    image.putalpha(Image.fromarray(alpha))
    rgb = opened(tmp_path, encoded(image, format="PNG"))
    colours = np.asarray(image.convert("RGB")).astype(int)
    assert np.abs(rgb - colours * alpha[..., None] / 255).max() <= 1
    image.putalpha(255)
    assert np.array_equal(opened(tmp_path, encoded(image, format="PNG")), colours)


def test_a_palette_and_a_colour_may_be_transparent(tmp_path):
    palette = noise().convert("P")
    colours, places = np.asarray(palette.convert("RGB")), np.asarray(palette)
    key, first = int(places[0, 0]), places == places[0, 0]
    alpha = bytes(0 if i == key else 255 for i in range(256))
    for kind, transparency in (("PNG", key), ("GIF", key), ("PNG", alpha)):
        rgb = opened(tmp_path, encoded(palette, format=kind, transparency=transparency))
        assert (rgb[first] == 0).all() and np.array_equal(rgb[~first], colours[~first])
    colour = tuple(int(v) for v in np.asarray(noise())[2, 3])
    rgb = opened(tmp_path, encoded(noise(), format="PNG", transparency=colour))
    assert (rgb[2, 3] == 0).all()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", [3, 6])
def test_images_are_not_turned(tmp_path, kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    plain = opened(tmp_path, encoded(noise(), format=kind, lossless=True))
    turned = opened(tmp_path, encoded(noise(), format=kind, lossless=True, exif=exif))
    assert Image.open(tmp_path / "a.jpg").getexif()[0x0112] == orientation
    assert np.array_equal(turned, plain)
    assert image_size(tmp_path / "a.jpg") == (31, 23)


@pytest.mark.parametrize("kind", ["TIFF", "EPS", "PDF", "ICO", "TGA"])
def test_other_formats_are_refused(tmp_path, kind):
    (tmp_path / "a.jpg").write_bytes(encoded(noise(), format=kind))
    assert NO_IMAGE in complaint(open_image, tmp_path / "a.jpg")


def test_fractions_are_refused(tmp_path):
    image = Image.fromarray(np.ones((3, 4), np.float32))
    (tmp_path / "a.jpg").write_bytes(encoded(image, format="PPM"))
    assert "fractions" in complaint(open_image, tmp_path / "a.jpg")


def test_pipes_are_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.jpg")
    assert "not a file" in complaint(open_image, tmp_path / "a.jpg")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(10))
def test_oriented_images_are_turned_as_pillow_turns_them(tmp_path, kind, orientation):
    path, exif = tmp_path / "1.jpg", Image.Exif()
    exif[0x0112] = orientation
    noise().save(path, kind, exif=exif)
    with Image.open(path) as image:
        expected = ImageOps.exif_transpose(image).convert("RGB")
    assert open_image(path, oriented=True).tobytes() == expected.tobytes()
    assert oriented_size(path) == (expected.size, orientation in range(2, 9))


def test_a_damaged_note_turns_nothing(tmp_path):
    path = tmp_path / "1.jpg"
    noise().save(path, "JPEG", exif=b"Exif\0\0MM\0*\0\0\xff\xff")
    assert oriented_size(path) == ((31, 23), False)
    assert open_image(path, oriented=True).size == (31, 23)


def png_notes() -> dict[str, bytes]:
    """Return the chunks by which a PNG may say that it is to be turned, or doesn't."""
    exif = Image.Exif()
    exif[0x0112] = 6
    note = exif.tobytes()
    raw = f"\nexif\n{len(note):8}\n{note.hex()}\n".encode()
    xmp = b"XML:com.adobe.xmp\0\0\0\0\0<x:xmpmeta tiff:Orientation='6'></x:xmpmeta>"
    return {
        "exif": png_chunk(b"eXIf", note.removeprefix(b"Exif\0\0")),
        "text": png_chunk(b"tEXt", b"Raw profile type exif\0" + raw),
        "packed text": png_chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(raw)),
        "xmp": png_chunk(b"iTXt", xmp),
        "date": png_chunk(b"tEXt", b"date:create\0" + b"2020" * 100),
    }


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("name", png_notes())
def test_notes_of_png_before_and_after_the_pixels(tmp_path, name, late):
    """Pillow reads the latter only once the pixels are decoded."""
    data = encoded(noise(), format="PNG")
    place = data.rindex(b"IEND") - 4 if late else data.index(b"IDAT") - 4
    path = tmp_path / "1.png"
    path.write_bytes(data[:place] + png_notes()[name] + data[place:])
    with Image.open(path) as image:
        turned = image.getexif().get(0x0112) == 6
    assert oriented_size(path) == ((23, 31) if turned else (31, 23), turned)
    assert open_image(path, oriented=True).size == ((23, 31) if turned else (31, 23))
    assert turned or name != "exif"
    assert not turned or name != "date"


def test_the_size_of_a_png_is_told_without_decoding_it(tmp_path, monkeypatch):
    path = tmp_path / "1.png"
    path.write_bytes(encoded(noise(), format="PNG"))
    monkeypatch.setattr(PngImageFile, "load", lambda image: 1 / 0)
    assert oriented_size(path) == ((31, 23), False)


def test_images_that_are_too_long_to_be_resized_are_refused(tmp_path):
    for length in (2**18, 2**18 + 1):
        Image.new("L", (length, 1)).save(tmp_path / "a.png")
        if length == 2**18:
            assert open_image(tmp_path / "a.png").size == (length, 1)
        else:
            message = complaint(open_image, tmp_path / "a.png")
            assert "262145 pixels along a side, more than 262144" in message


# ---- formats of one's own images alone ----

COLOURS = np.random.RandomState(1).randint(0, 2**16, (23, 31, 3)).astype(np.uint16)
TIFFS = {
    "plain": {},
    "tiles": {"tile": (16, 16)},
    "packed tiles": {"tile": (16, 16), "compression": "zlib", "predictor": True},
    "big-endian": {"byteorder": ">", "rowsperstrip": 5},
    "packed big-endian": {"byteorder": ">", "compression": "lzma"},
    "long offsets": {"bigtiff": True},
    "planes": {"planarconfig": "separate"},
}


def write_tiff(path, values, **options):
    """Write values (h, w) or (h, w, 3) as a TIFF, of colours one after the other if so asked."""
    kind = "minisblack" if values.ndim == 2 else "rgb"
    if "planarconfig" in options:
        values = np.moveaxis(values, 2, 0)
    tifffile.imwrite(path, values, photometric=kind, **options)


def spread_out(values, low, high):
    """Return 16-bit values as 8: those from ``low`` to ``high`` in 256 equal steps."""
    steps = [(min(max(int(v), low), high) - low) * 256 // (high - low + 1) for v in values.flat]
    return np.array(steps).reshape(values.shape)


@pytest.mark.parametrize("how", TIFFS)
@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("shape", ["grey", "colours"])
def test_tiffs_of_all_kinds(tmp_path, shape, depth, how):
    if (shape, how) == ("grey", "planes"):
        return
    values = COLOURS if shape == "colours" else COLOURS[..., 0]
    values = values if depth == 16 else (values >> 8).astype(np.uint8)
    path, levels = tmp_path / "a.tif", (1000, 40_000)
    write_tiff(path, values, **TIFFS[how])
    rgb = values if shape == "colours" else np.repeat(values[..., None], 3, axis=2)
    found = np.asarray(open_image(path, oriented=True))
    assert np.array_equal(found, rgb >> (depth - 8)) and oriented_size(path) == ((31, 23), False)
    found = np.asarray(open_image(path, oriented=True, levels=levels))
    assert np.array_equal(found, rgb if depth == 8 else spread_out(rgb, *levels))
    ends = None if depth == 8 else (values.min(), values.max())
    assert value_range(path, oriented=True) == ends
    assert open_image(path, path.read_bytes(), oriented=True).size == (31, 23)
    assert NO_IMAGE in complaint(open_image, path)  # as a benchmark's


@pytest.mark.parametrize("levels", [FULL_RANGE, (0, 4095), (7, 7)])
@pytest.mark.parametrize("kind", ["PNG", "PPM"])
def test_levels_of_other_images_of_16_bits(tmp_path, kind, levels):
    grey = np.arange(31 * 23, dtype=np.uint16).reshape(23, 31) * 91
    (tmp_path / "a.png").write_bytes(
        b"P5 31 23 65535\n" + grey.astype(">u2").tobytes()
        if kind == "PPM"
        else encoded(Image.fromarray(grey), format="PNG")
    )
    found = np.asarray(open_image(tmp_path / "a.png", levels=levels))[..., 1]
    assert np.array_equal(found, spread_out(grey, *levels))


@pytest.mark.parametrize("mode", ["RGB", "L", "heic"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_own_formats_are_turned_by_their_notes(tmp_path, mode, orientation):
    path, note = tmp_path / "a", Image.Exif()
    note[0x0112] = orientation
    image = noise(32, 24) if mode == "heic" else noise().convert(mode)
    stored = io.BytesIO(encoded(image, format="PNG", exif=note))
    expected = ImageOps.exif_transpose(Image.open(stored)).convert("RGB")
    for depth in (8, 16):
        if mode == "heic":
            image.save(path, "HEIF", quality=-1, chroma=444, exif=note.tobytes())
        else:
            values = np.asarray(image) if depth == 8 else np.asarray(image).astype(np.uint16) * 257
            write_tiff(path, values, extratags=[(0x0112, 3, 1, orientation, True)])
        # What pillow-heif reads has been turned.
        turned = mode != "heic" and orientation > 1
        assert oriented_size(path) == (expected.size, turned)
        for levels in (FULL_RANGE, (0, 65534)):
            found = open_image(path, oriented=True, levels=levels)
            assert found.size == expected.size
            far = np.abs(np.asarray(found).astype(int) - np.asarray(expected)).max()
            assert far <= (3 if mode == "heic" else 0)  # whose colours aren't stored as RGB


def test_the_first_of_several_pages_is_read(tmp_path):
    path, pages = tmp_path / "a.tif", COLOURS[..., 0].reshape(1, 23, 31) // np.array([[[1]], [[2]]])
    tifffile.imwrite(path, pages.astype(np.uint16), photometric="minisblack")
    assert has_pages(path)
    assert np.array_equal(np.asarray(open_image(path, oriented=True))[..., 0], pages[0] >> 8)
    write_tiff(path, COLOURS)
    assert not has_pages(path) and not has_pages(tmp_path / "b.tif")


@pytest.mark.parametrize("how", ["plain", "packed tiles", "planes", "heic"])
@pytest.mark.parametrize("levels", [FULL_RANGE, (0, 4095)])
def test_own_formats_cut_short(tmp_path, capfd, how, levels):
    path = tmp_path / "a.tif"
    if how == "heic":
        noise().save(path, "HEIF")
    else:
        write_tiff(path, COLOURS, **TIFFS[how])
    whole = path.read_bytes()
    for share in (0.02, 0.3, 0.7, 0.95):
        path.write_bytes(whole[: int(len(whole) * share)])
        assert str(path) in complaint(open_image, path, None, True, levels)
    assert capfd.readouterr().err == ""  # of libtiff


@pytest.mark.parametrize("kind", [np.int16, np.int32, np.float32, np.complex64])
def test_values_of_other_kinds_are_refused(tmp_path, kind):
    write_tiff(tmp_path / "a.tif", COLOURS[..., 0].astype(kind))
    message = complaint(open_image, tmp_path / "a.tif", None, True)
    words = {"i": "signed, or of 32 bits", "f": "fractions", "c": NO_IMAGE[:-1]}
    assert words[np.dtype(kind).kind] in message


def test_what_is_to_be_installed_is_said(tmp_path, monkeypatch):
    path = tmp_path / "a.tif"
    write_tiff(path, COLOURS)
    monkeypatch.setitem(sys.modules, "tifffile", None)
    message = complaint(open_image, path, None, True)
    assert "tifffile isn't installed; pip install -e .[tiff]" in message


WITHOUT_HEIC = """
import sys
from pathlib import Path
sys.modules["pillow_heif"] = None
from data_loader.readers.image_names import find_images
from data_loader.readers.images import open_image
folder = Path(sys.argv[1])
for action in (
    lambda: open_image(folder / "a.HEIC", oriented=True),
    lambda: find_images(folder, own=True),
    lambda: print(find_images(folder.parent, own=True)[1]),
):
    try:
        action()
    except ValueError as error:
        print(error)
"""


def test_without_its_reader_heic_is_named(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    noise().save(folder / "a.HEIC", "HEIF")
    noise().save(tmp_path / "b.png")
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_HEIC, folder], cwd=ROOT, capture_output=True, text=True
    )
    lines, how = done.stdout.splitlines(), "; HEIC with pip install -e .[heic]"
    assert lines[0].endswith(f"PNG, GIF, BMP, WEBP, PPM, TIFF{how})")
    assert lines[1].startswith(f"{folder}: holds no image") and lines[1].endswith(how)
    assert lines[2] == f"['{tmp_path}: 1 files or folders left out: 1 *.heic{how}']"
