"""Opening of image files, of which some are damaged and some are meant to be."""

import errno
import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile

from utils.errors import ImageError, InputError
from utils.files import check_is_file, reason
from utils.log import silenced

# Pillow knows more, of which EPS starts another program.
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "PPM")
SUFFIXES = {"jpg", "jpeg", "png", "gif", "bmp", "webp", "ppm", "pgm", "pbm"}  # theirs
HEIC_SUFFIXES = {"heic", "heif"}
OWN_SUFFIXES = {*SUFFIXES, "tif", "tiff", *HEIC_SUFFIXES}  # of one's own images
OWN_FORMATS: tuple[str, ...] = (*FORMATS, "TIFF")
NO_HEIC = "; HEIC with pip install -e .[heic]"  # what a message adds where its reader is absent
with suppress(ImportError):
    from pillow_heif import register_heif_opener

    register_heif_opener()
    OWN_FORMATS, NO_HEIC = (*OWN_FORMATS, "HEIF"), ""
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
WIDTH, LENGTH, BITS = 256, 257, 258  # numbers of a TIFF's tags
Levels = tuple[int, int]  # the 16-bit values that become black and white
FULL_RANGE = (0, 2**16 - 1)  # keeps the upper 8 bits
# What its readers log on a damaged file would appear beside the one line that the scripts print.
for package in ("PIL", "tifffile"):
    logging.getLogger(package).addHandler(logging.NullHandler())


def open_image(
    path: Path, data: bytes | None = None, oriented: bool = False, levels: Levels = FULL_RANGE
) -> Image.Image:
    """Read an image file as RGB, its pixels in the order of the file.

    With ``data``, the file's bytes, nothing is opened and ``path`` only says what to call them.

    One's own images are to be ``oriented``: a note in the file that the camera was turned (EXIF)
    is heeded, as annotation tools show it. Beside the `FORMATS` they may be HEIC or TIFF, of whose
    pages the first is read. The benchmarks' points are pixels of the stored image, and the
    published code reads them so.

    Values of 16 bits between the ``levels`` are spread over 8; a PNG's colours keep their upper 8.
    What is transparent becomes black, like all that lies beyond an image's edge where a
    benchmark's window does.

    Raises:
        ImageError: if the file is absent, cut short, no image or of more than `MAX_PIXELS`, or
            `MAX_SIDE` along a side, which is found out before decoding; the message starts with
            the path and a colon.
        InputError: if the machine has no memory for it.
    """
    with _opened(path, data, oriented) as image:
        turn = _turn(image) if oriented else None
        values = _values_of_16_bits(image)
        if isinstance(image, TiffImageFile) and (values is None or values.ndim == 2):
            turn = None  # Pillow turns what it decodes
        if values is not None:
            low, high = levels
            table = (np.arange(2**16).clip(low, high) - low) * 2**8 // (high + 1 - low)
            pixels = Image.fromarray(table.astype(np.uint8)[values]).convert("RGB")
        else:
            plain = image.mode == "RGB" and "transparency" not in image.info
            pixels = image.convert("RGB") if plain else _as_rgb(image)
        return pixels if turn is None else pixels.transpose(turn)


def value_range(path: Path, data: bytes | None = None, oriented: bool = False) -> Levels | None:
    """Return the least and the largest value of an image of 16 bits, None of others."""
    with _opened(path, data, oriented) as image:
        values = _values_of_16_bits(image)
        return None if values is None else (int(values.min()), int(values.max()))


def image_size(path: Path) -> tuple[int, int]:
    """Return the width and height in an image file's header; see `open_image`."""
    with _opened(path) as image:
        return image.size


def oriented_size(path: Path) -> tuple[tuple[int, int], bool]:
    """Return an oriented image's width and height, and whether a note says that it was turned."""
    with _opened(path, oriented=True) as image:
        turn, (width, height) = _turn(image), image.size
        if isinstance(image, TiffImageFile):  # whose size newer releases of Pillow turn
            width, height = image.tag_v2[WIDTH], image.tag_v2[LENGTH]
    return ((height, width) if turn in SIDEWAYS else (width, height)), turn is not None


def has_pages(path: Path) -> bool:
    """Tell whether a file is a TIFF of several pages, as far as it can be read."""
    with suppress(ImageError), _opened(path, oriented=True) as image:
        return isinstance(image, TiffImageFile) and image.is_animated
    return False


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
def _opened(path: Path, data: bytes | None = None, oriented: bool = False) -> Iterator[Image.Image]:
    """Yield an image whose header is read; turn what goes wrong into an `ImageError`."""
    if data is None:
        check_is_file(path, "no such image", ImageError)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # Not by its name: grey TIFF that Pillow maps into memory is turned twice.
            source = path.open("rb") if data is None else io.BytesIO(data)
            formats = OWN_FORMATS if oriented else FORMATS
            with source as file, Image.open(file, formats=formats) as image:
                pixels = image.width * image.height
                if pixels > MAX_PIXELS:
                    raise ValueError(f"{pixels} pixels, more than {MAX_PIXELS}")
                if max(image.size) > MAX_SIDE:
                    raise ValueError(f"{max(image.size)} pixels along a side, more than {MAX_SIDE}")
                # libtiff prints what is wrong with a file.
                with silenced(2) if isinstance(image, TiffImageFile) else nullcontext():
                    yield image
    except UnidentifiedImageError:
        known = ", ".join(OWN_FORMATS) + NO_HEIC if oriented else ", ".join(FORMATS)
        raise ImageError(f"{path}: not an image of an accepted format ({known})") from None
    except Exception as error:  # Pillow's readers raise whatever a damaged file makes them
        short = isinstance(error, MemoryError) or getattr(error, "errno", None) in SHORTAGES
        kind = InputError if short else ImageError
        raise kind(f"{path}: unreadable image ({reason(error)})") from None


def _values_of_16_bits(image: Image.Image) -> np.ndarray | None:
    """Return an image's values (h, w) or (h, w, 3) if they have 16 bits, else None."""
    if isinstance(image, TiffImageFile):
        if image.mode == "I":
            raise ValueError("its values are signed, or of 32 bits")
        if image.tag_v2.get(BITS) == (16, 16, 16):  # of which Pillow keeps 8
            assert image.fp is not None  # until it is decoded
            return _read_colours(image.fp)
    if image.mode not in SIXTEEN_BIT:
        return None
    grey = np.array(image)
    if (transparent := image.info.get("transparency")) is not None:
        grey[grey == transparent] = 0  # NumPy 2.0 crashes on -1 where bytes are swapped
    return grey


def _read_colours(file: IO[bytes]) -> np.ndarray:
    """Return the colours (h, w, 3) of a TIFF's first page."""
    try:
        import tifffile
    except ImportError:
        raise ValueError("tifffile isn't installed; pip install -e .[tiff]") from None
    file.seek(0)
    with tifffile.TiffFile(file) as tiff:
        page = tiff.pages.first
        values = page.asarray(maxworkers=1)
        return values if page.planarconfig == 1 else np.moveaxis(values, 0, 2)


def _as_rgb(image: Image.Image) -> Image.Image:
    """Return an image of any mode as RGB."""
    if image.mode == "F":  # from PFM files; they may have any range
        raise ValueError("its pixels are fractions")
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
