"""Frames of videos, by PyAV, which only this needs."""

from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from PIL import Image

from utils.errors import InputError
from utils.files import reason

SURE = 0.98  # of the frames that a duration promises
VIDEOS = {"mp4", "m4v", "mov", "avi", "mkv", "webm", "mpg", "mpeg", "wmv"}


def import_av(path: Path) -> ModuleType:
    """Return PyAV, or raise an `InputError` that says how to install it."""
    try:
        import av
    except ImportError:
        how = "pip install -e .[video]"
        raise InputError(f"{path}: a video, and PyAV isn't installed; {how}") from None
    return av


def read_frames(path: Path) -> Iterator[Image.Image | None]:
    """Yield a video's frames as RGB, one at a time, turned as the file says.

    None stands for a frame that can't be decoded, as of a damaged packet, in its place by its time.
    A file that was cut short just ends.

    Raises:
        InputError: if PyAV is absent or the file holds no video.
    """
    av = import_av(path)
    begun, fault = False, ""
    due: list[int] = []  # times of packets whose frames haven't come
    try:
        with av.open(str(path)) as container:
            for packet in container.demux(video=0):
                due += [_time(packet)] if packet.size and not packet.is_discard else []
                try:
                    frames = packet.decode()
                except av.FFmpegError as error:
                    fault, frames = reason(error), []
                for frame in frames:
                    now, turn = _time(frame), getattr(frame, "rotation", 0) % 360
                    if fault and begun and now not in due:
                        continue  # late: what it refers to was lost
                    yield from (None for time in due if fault and time < now)  # else no frames
                    begun, due = True, [time for time in due if time > now]
                    yield None if frame.is_corrupt else frame.to_image().rotate(turn, expand=True)
    except (av.FFmpegError, OSError, IndexError) as error:
        fault = reason(error)
    if not begun:
        raise InputError(f"{path}: not a readable video ({fault or 'it holds no frame'})")
    yield from (None for _ in due if fault)


def _time(part: Any) -> int:
    return part.pts if part.pts is not None else part.dts or 0


def count_missing(path: Path, found: int) -> int:
    """Return how many more frames than were found a video's header, or duration, promises."""
    av = import_av(path)
    with suppress(av.FFmpegError), av.open(str(path)) as container:
        stream = container.streams.video[0]
        exact, rate = stream.frames, stream.average_rate if len(container.streams) == 1 else 0
        promised = exact or round((container.duration or 0) * (rate or 0) / 10**6)
        if promised > found:  # but for what an edit list cuts off
            promised -= sum(packet.is_discard for packet in container.demux(stream))
    return promised - found if found < promised * (1 if exact else SURE) else 0


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
