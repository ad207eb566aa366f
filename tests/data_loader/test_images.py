import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from data_loader.images import image_size, open_image
from tests.data_loader.layouts import complaint


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


def test_size_is_width_and_height(tmp_path):
    (tmp_path / "a.png").write_bytes(encoded(noise(), format="PNG"))
    assert image_size(tmp_path / "a.png") == (31, 23)


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


@pytest.mark.parametrize(
    "error",
    [
        TypeError,
        IndexError,
        KeyError,
        EOFError,
        OverflowError,
        MemoryError,
        struct.error,
        zlib.error,
    ],
)
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


def huge_png(width, height) -> bytes:
    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(100))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("side", [10_000, 30_000])  # Pillow warns of the first, refuses the second
def test_pictures_too_large_for_the_memory_are_refused_without_a_warning(tmp_path, side):
    path = tmp_path / "a.png"
    path.write_bytes(huge_png(side, side))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        message = complaint(open_image, path)
    assert str(path) in message and str(side**2) in message
