"""What a run says: lines for people, scalars for plots, a progress bar on a terminal."""

import json
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from tensorboard_logger import Logger as TensorBoardLogger
from tqdm import tqdm

from utils.distributed import is_first


class RunLog:
    """Print lines, also to a file if asked, and record scalars by epoch; in the first rank only.

    Args:
        log_path: a file that receives every line too; appended to.
        scalar_path: folder of the TensorBoard event files; None records no scalars.
        jsonl_path: file that receives the scalars of an epoch as one JSON object a line.
    """

    def __init__(
        self,
        log_path: Path | None = None,
        scalar_path: Path | None = None,
        jsonl_path: Path | None = None,
    ) -> None:
        self.file = self.jsonl_path = self.scalars = None
        if not is_first():
            return
        if log_path is not None:
            log_path.parent.mkdir(parents=True, exist_ok=True)
            self.file = log_path.open("a", buffering=1)
        self.jsonl_path = jsonl_path
        if scalar_path is not None:
            self.scalars = TensorBoardLogger(str(scalar_path))

    def line(self, text: str) -> None:
        """Print a line of text."""
        if not is_first():
            return
        tqdm.write(text, file=sys.stdout)
        sys.stdout.flush()
        if self.file is not None:
            print(text, file=self.file)

    def step(self, text: str) -> None:
        """Print a line within an epoch, unless a progress bar says as much."""
        if not sys.stderr.isatty():
            self.line(text)

    def record(self, epoch: int, **scalars: float) -> None:
        """Record an epoch's scalars under their names."""
        if self.scalars is not None:
            for name, value in scalars.items():
                self.scalars.log_value(name, value, epoch)
        if self.jsonl_path is not None:
            with self.jsonl_path.open("a") as file:
                print(json.dumps({"epoch": epoch, **scalars}), file=file)


def progress(items: Iterable, title: str, total: int | None = None) -> Iterable:
    """Show a bar while going through items, if stderr is a terminal."""
    is_shown = is_first() and sys.stderr.isatty()
    return tqdm(items, desc=title, total=total, leave=False, disable=not is_shown)


class Stopwatch:
    """Count things per second since it was made or last read."""

    def __init__(self) -> None:
        self.start = time.perf_counter()

    def seconds(self) -> float:
        """Return the seconds since the start."""
        return time.perf_counter() - self.start
