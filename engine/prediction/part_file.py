"""What a prediction has found so far, in a file that survives a kill at any moment.

The first line says of which run it is; then there is a line of JSON for each image, in their order.
Lines are appended. What isn't a whole line, as the last one may be, is cut off when the file is
opened again.
"""

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from data_loader.framing import Box
from utils.errors import InputError
from utils.files import writing

SUFFIX = ".part"  # ends its name, beside the file that it becomes


class Found(NamedTuple):
    """What was found in one image, or that it can't be read.

    Attributes:
        index: of the image.
        image: its name.
        instance: which of the image's instances; empty if it is shown whole.
        box: that was shown, in pixels; None for the whole image.
        size: width and height; 0, 0 of a bad image.
        points: A of x and y, in its pixels; none of a bad image.
        confidence: A numbers.
        reason: why it can't be read; empty if it can.
    """

    index: int  # type: ignore[assignment]
    image: str
    instance: str
    box: Box | None
    size: tuple[int, int]
    points: list[list[float]]
    confidence: list[float]
    reason: str

    @property
    def certainty(self) -> float:
        """Return the mean confidence; 0 of a bad image."""
        return sum(self.confidence) / max(1, len(self.confidence))


class PartFile:
    """The lines of a run, of which some may be there already.

    Args:
        path: of the file.
        identity: facts by name that results depend on, each a short text.
        replace: start afresh where another run left the file.

    Attributes:
        count: of lines.
        bad: how many of them are of images that can't be read.

    Raises:
        InputError: if another run left the file, or it can't be written.
    """

    def __init__(self, path: Path, identity: dict[str, str], replace: bool) -> None:
        self.path, self.count, self.bad = path, 0, 0
        with writing(path):
            self.file = path.open("a+b")
            self.file.seek(0)
            header = self._parse(self.file.readline())
            if header is not None and header != identity and not replace:
                raise InputError(complaint(path, header, identity))
            if header != identity:
                self.file.truncate(0)
                self._write([json.dumps(identity)])
            else:
                self._count_lines()

    def _parse(self, line: bytes) -> Any:
        """Return what a whole line says, else None."""
        if not line.endswith(b"\n"):
            return None
        try:
            return json.loads(line)
        except ValueError:
            return None

    def _count_lines(self) -> None:
        """Count the whole lines in their order; cut off what follows."""
        end = self.file.tell()
        for line in self.file:
            content = self._parse(line)
            if not isinstance(content, list) or content[:1] != [self.count]:
                break
            found = Found(*content)
            self.count, self.bad = self.count + 1, self.bad + bool(found.reason)
            end += len(line)
        self.file.truncate(end)

    def append(self, found: Sequence[Found]) -> None:
        """Add the next images."""
        with writing(self.path):
            self._write([json.dumps(entry) for entry in found])
        self.count += len(found)
        self.bad += sum(bool(entry.reason) for entry in found)

    def _write(self, lines: Sequence[str]) -> None:
        self.file.write("".join(f"{line}\n" for line in lines).encode())
        self.file.flush()

    def entries(self) -> Iterator[Found]:
        """Yield all lines, one at a time."""
        with self.path.open("rb") as file:
            file.readline()
            for line in file:
                yield as_found(json.loads(line))

    def close(self) -> None:
        """Close the file, which stays."""
        self.file.close()

    def remove(self) -> None:
        """Remove the file."""
        self.file.close()
        with writing(self.path):
            self.path.unlink()


def as_found(content: list[Any]) -> Found:
    """Return what a line says."""
    found = Found(*content)
    box = None if found.box is None else tuple(found.box)
    return found._replace(box=box, size=tuple(found.size))  # type: ignore[arg-type]


def least_certain(entries: Iterator[Found], count: int) -> list[Found]:
    """Return so many images whose mean confidence is the least, the least first."""
    import heapq

    readable = (entry for entry in entries if not entry.reason)
    return heapq.nsmallest(count, readable, key=lambda entry: (entry.certainty, entry.index))


def complaint(path: Path, header: Any, identity: dict[str, str]) -> str:
    """Return what to say of a file that another run left."""
    told = header if isinstance(header, dict) else {}
    differing = [name for name in identity if told.get(name) != identity[name]]
    return (
        f"{path}: left by a run with other {', '.join(differing) or 'settings'}: give another "
        "--out, or --overwrite to start afresh"
    )


def finite(points: list[list[float]]) -> bool:
    """Tell whether all coordinates are finite."""
    return all(math.isfinite(number) for point in points for number in point)
