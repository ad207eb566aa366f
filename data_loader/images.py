"""Opening of image files."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from utils.errors import InputError


def open_image(path: Path) -> Image.Image:
    """Read an image file as RGB.

    Raises:
        InputError: if the file is absent, cut short, no image or beyond Pillow's limit of size;
            names the file.
    """
    with _opened(path) as image:
        return image.convert("RGB")


def image_size(path: Path) -> tuple[int, int]:
    """Return the width and height that an image file's header tells.

    Raises:
        InputError: if the file is absent or no image; names the file.
    """
    with _opened(path) as image:
        return image.size


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Yield an image whose header is read; turn what goes wrong into an `InputError`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                yield image
    except FileNotFoundError:
        raise InputError(f"{path}: no such image") from None
    except UnidentifiedImageError:
        raise InputError(f"{path}: not an image that Pillow can read") from None
    except Exception as error:  # Pillow's readers raise whatever a damaged file makes them
        raise InputError(f"{path}: unreadable image ({error})") from None
