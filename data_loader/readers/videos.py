"""Frames of videos, by PyAV, which only this needs."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from PIL import Image

from utils.errors import InputError
from utils.files import reason

VIDEOS = {"mp4", "m4v", "mov", "avi", "mkv", "webm", "mpg", "mpeg", "wmv"}


def import_av(path: Path) -> ModuleType:
    """Return PyAV, or raise an `InputError` that says how to install it."""
    try:
        import av
    except ImportError:
        how = "pip install -e .[video]"
        raise InputError(f"{path}: a video, and PyAV isn't installed; {how}") from None
    return av


def read_frames(path: Path) -> Iterator[Image.Image]:
    """Yield a video's frames as RGB, one at a time, turned as the file says.

    What can't be decoded after the first frame, such as the end of a file that was cut short, ends
    the frames.

    Raises:
        InputError: if PyAV is absent or the file holds no video.
    """
    av = import_av(path)
    begun = False
    try:
        with av.open(str(path)) as container:
            for frame in container.decode(video=0):
                image = frame.to_image()
                if turn := getattr(frame, "rotation", 0) % 360:
                    image = image.rotate(turn, expand=True)
                begun = True
                yield image
    except (av.FFmpegError, OSError, IndexError) as error:
        if not begun:
            raise InputError(f"{path}: not a readable video ({reason(error)})") from None
    if not begun:
        raise InputError(f"{path}: holds no frame of a video")


def frame_rate(path: Path) -> Fraction:
    """Return a video's frames a second, 25 if it doesn't say."""
    av = import_av(path)
    with av.open(str(path)) as container:
        return Fraction(container.streams.video[0].average_rate or 25)


def write_video(path: Path, frames: Iterator[Image.Image], rate: Fraction) -> int:
    """Write frames of one size as a video; return how many.

    Sizes that a codec can't take, of odd numbers of pixels, lose their last row or column.

    Raises:
        InputError: if it can't be written.
    """
    av = import_av(path)
    count = 0
    # The more widely read one if it is there; the other always is.
    codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
    try:
        with av.open(str(path), "w") as container:
            stream: Any = None
            for image in frames:
                size = image.width // 2 * 2, image.height // 2 * 2
                if stream is None:
                    stream = container.add_stream(codec, rate=rate)
                    stream.width, stream.height = size
                    stream.pix_fmt = "yuv420p"
                pixels = np.asarray(image.crop((0, 0, stream.width, stream.height)))
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
                count += 1
            if stream is not None:
                container.mux(stream.encode())
    except (av.FFmpegError, OSError, ValueError) as error:
        raise InputError(f"{path}: can't write it ({reason(error)})") from None
    return count
