"""What a prediction has found so far, in a file that survives a kill at any moment.

The first line says of which run it is; then there is a line of JSON for each image, in their order.
Lines are appended. What isn't a whole line, as the last one may be, is cut off when the file is
opened again.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from data_loader.readers.prediction_files import Prediction
from utils.errors import InputError
from utils.files import writing

SUFFIX = ".part"  # ends its name, beside the file that it becomes


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
        with writing(path), path.open("a+b") as file:
            file.seek(0)
            header = parse(file.readline())
            if header == identity:
                self._count_lines(file)
                return
            if header is not None and not replace:
                told = header if isinstance(header, dict) else {}
                other = [name for name in identity if told.get(name) != identity[name]]
                raise InputError(
                    f"{path}: left by a run with other {', '.join(other) or 'settings'}: give "
                    "another --out, or --overwrite to start afresh"
                )
            file.truncate(0)
            file.write(f"{json.dumps(identity)}\n".encode())

    def _count_lines(self, file: BinaryIO) -> None:
        """Count the whole lines in their order; cut off what follows."""
        end = file.tell()
        for line in file:
            content = parse(line)
            if not isinstance(content, list) or content[:1] != [self.count]:
                break
            self.count, self.bad = self.count + 1, self.bad + bool(content[-1])
            end += len(line)
        file.truncate(end)

    def append(self, found: Sequence[Prediction]) -> None:
        """Add the next images."""
        with writing(self.path), self.path.open("ab") as file:
            file.write("".join(f"{as_line(entry)}\n" for entry in found).encode())
        self.count += len(found)
        self.bad += sum(bool(entry.bad) for entry in found)

    def entries(self) -> Iterator[Prediction]:
        """Yield all lines, one at a time."""
        with self.path.open("rb") as file:
            file.readline()
            for line in file:
                yield read_line(line)

    def readable(self) -> Iterator[Prediction]:
        """Yield what was found in the images that can be read."""
        return (entry for entry in self.entries() if not entry.bad)


def parse(line: bytes) -> Any:
    """Return what a whole line says, else None."""
    try:
        return json.loads(line) if line.endswith(b"\n") else None
    except ValueError:
        return None


def as_line(found: Prediction) -> str:
    """Return an image's line, without its end."""
    head = [found.number, found.image, found.instance, found.box, found.size]
    return json.dumps([*head, found.points.tolist(), found.confidence.tolist(), found.bad])


def read_line(line: bytes) -> Prediction:
    """Return what an image's line says."""
    number, image, instance, box, size, points, confidence, bad = json.loads(line)
    found = Prediction(image, tuple(size), np.array(points), np.array(confidence), instance)
    return found._replace(box=None if box is None else tuple(box), number=number, bad=bad)
