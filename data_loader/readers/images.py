"""Opening of image files, of which some are damaged and some are meant to be."""

import errno
import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngImageFile

from utils.errors import ImageError, InputError
from utils.files import check_is_file, reason

# Pillow knows more: of them EPS starts another program, and TIFF, which Pillow turns by its note,
# prints what is wrong with a file.
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "PPM")
SUFFIXES = {"jpg", "jpeg", "png", "gif", "bmp", "webp", "ppm", "pgm", "pbm"}  # theirs
KNOWN = ", ".join(FORMATS)
MAX_PIXELS = 2**28 // 3  # 256 MiB once decoded; from here on Pillow warns
MAX_SIDE = 2**18  # to resize or pad a longer one takes more memory than to decode it
ORIENTATION = 0x0112  # the tag's number
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
PNG_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
SIDEWAYS = [TURNS[number] for number in (5, 6, 7, 8)]
# What says nothing about the image: the machine has no more files to open, or no memory.
SHORTAGES = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
SIXTEEN_BIT = ("I;16", "I;16B", "I")  # the last one from PPM, and from PNG before Pillow 12
# What its readers log on a damaged file would appear beside the one line that the scripts print.
logging.getLogger("PIL").addHandler(logging.NullHandler())


def open_image(path: Path, data: bytes | None = None, oriented: bool = False) -> Image.Image:
    """Read an image file of one of the `FORMATS` as RGB, its pixels in the order of the file.

    With ``data``, the file's bytes, nothing is opened and ``path`` only says what to call them.

    A note in the file that the camera was turned (EXIF) is heeded if the image is to be
    ``oriented``, as annotation tools show it. Else it isn't: the benchmarks' points are pixels of
    the stored image, and the published code reads them so. Grey of 16 bits keeps its upper 8, as
    Pillow does for colours. What is transparent becomes black, like all that lies beyond an
    image's edge where a benchmark's window does.

    Raises:
        ImageError: if the file is absent, cut short, no image or of more than `MAX_PIXELS`, or
            `MAX_SIDE` along a side, which is found out before decoding; the message starts with
            the path and a colon.
        InputError: if the machine has no memory for it.
    """
    with _opened(path, data) as image:
        turn = _turn(image) if oriented else None
        plain = image.mode == "RGB" and "transparency" not in image.info
        pixels = image.convert("RGB") if plain else _as_rgb(image)
        return pixels if turn is None else pixels.transpose(turn)


def looks_dark(path: Path) -> bool:
    """Tell whether an image's 16-bit values stay below 12 bits, of which `open_image` keeps 4."""
    with _opened(path) as image:
        return image.mode in SIXTEEN_BIT and 0 < int(np.array(image).max()) < 2**12


def image_size(path: Path) -> tuple[int, int]:
    """Return the width and height in an image file's header; see `open_image`."""
    with _opened(path) as image:
        return image.size


def oriented_size(path: Path) -> tuple[tuple[int, int], bool]:
    """Return an oriented image's width and height, and whether a note says that it was turned."""
    with _opened(path) as image:
        turn, (width, height) = _turn(image), image.size
    return ((height, width) if turn in SIDEWAYS else (width, height)), turn is not None


def _turn(image: Image.Image) -> Image.Transpose | None:
    """Return how an image is to be turned by its note [EXIF 2.32, tag Orientation], if at all."""
    try:
        # PngImageFile's own decodes the pixels first, in case a note follows them.
        quick = isinstance(image, PngImageFile) and not _png_has_note(image)
        note = (Image.Image.getexif(image) if quick else image.getexif()).get(ORIENTATION)
        return TURNS.get(note) if isinstance(note, int) else None
    except Exception:  # a damaged note, which makes Pillow raise whatever it likes, says nothing
        return None


def _png_has_note(image: PngImageFile) -> bool:
    """Tell whether a PNG that isn't decoded yet has a chunk, in any place, that may be a note."""
    file = image.fp
    assert file is not None
    before = file.tell()
    try:
        file.seek(8)  # behind the signature
        while len(head := file.read(8)) == 8:
            size, kind = int.from_bytes(head[:4], "big"), head[4:]
            end = file.tell() + size + 4  # behind the checksum
            # A text is a note if its keyword says so: "Raw profile type exif", "XML:com.adobe.xmp".
            keyword = file.read(min(size, 80)).lower() if kind in PNG_TEXTS else b""
            if kind == b"eXIf" or b"exif" in keyword or b"xmp" in keyword:
                return True
            file.seek(end)
        return False
    finally:
        file.seek(before)


@contextmanager
def _opened(path: Path, data: bytes | None = None) -> Iterator[Image.Image]:
    """Yield an image whose header is read; turn what goes wrong into an `ImageError`."""
    if data is None:
        check_is_file(path, "no such image", ImageError)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            source = path if data is None else io.BytesIO(data)
            with Image.open(source, formats=FORMATS) as image:
                pixels = image.width * image.height
                if pixels > MAX_PIXELS:
                    raise ValueError(f"{pixels} pixels, more than {MAX_PIXELS}")
                if max(image.size) > MAX_SIDE:
                    raise ValueError(f"{max(image.size)} pixels along a side, more than {MAX_SIDE}")
                yield image
    except UnidentifiedImageError:
        raise ImageError(f"{path}: not an image of an accepted format ({KNOWN})") from None
    except Exception as error:  # Pillow's readers raise whatever a damaged file makes them
        short = isinstance(error, MemoryError) or getattr(error, "errno", None) in SHORTAGES
        kind = InputError if short else ImageError
        raise kind(f"{path}: unreadable image ({reason(error)})") from None


def _as_rgb(image: Image.Image) -> Image.Image:
    """Return an image of any mode as RGB; Pillow's own conversion clips 16 bits to 8."""
    if image.mode == "F":  # from PFM files; they may have any range
        raise ValueError("its pixels are fractions")
    if image.mode in SIXTEEN_BIT:
        grey = np.array(image)
        grey[grey == image.info.get("transparency", -1)] = 0
        return Image.fromarray((grey >> 8).astype(np.uint8)).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    opaque = Image.new("RGB", image.size)
    opaque.paste(image, mask=image.getchannel("A"))
    return opaque


def check_size(
    path: Path, size: tuple[int, int], expected: tuple[int, int] | tuple[float, float] | None
) -> None:
    """Raise an `InputError` unless an image has the width and height that are expected, if any."""
    if expected is not None and size != expected:
        raise InputError(
            f"{path}: {size[0]:g}x{size[1]:g} pixels, expected {expected[0]:g}x{expected[1]:g}, "
            "to which the benchmark's points belong"
        )
