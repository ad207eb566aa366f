"""What a run logs: lines for people, scalars for plots, a progress bar on a terminal."""

import json
import os
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from operator import length_hint
from pathlib import Path
from typing import IO

from tensorboard_logger import Logger as TensorBoardLogger
from tqdm import tqdm

from utils.files import printable, writing
from utils.process_group import is_first_rank

LINE_SECONDS = 10  # between two lines of `progress`


class _Events(TensorBoardLogger):
    """A logger whose deletion doesn't report a full disk a second time."""

    def __del__(self) -> None:
        with suppress(OSError):
            super().__del__()


class RunLog:
    """Print lines, also to a file if asked, and record scalars by epoch; in the first rank only.

    Lines are kept until the log is opened: what is said before a run has passed its checks
    appears once it starts, and not at all if it doesn't.
    A file that can't be written raises an `InputError`.
    """

    def __init__(self) -> None:
        self.kept: list[str] | None = []  # None once the log is open
        self.file: IO[str] | None = None
        self.scalars: tuple[Path, _Events] | None = None  # and the folder of their files
        self.jsonl_path: Path | None = None

    def open(
        self,
        log_path: Path | None = None,
        scalar_path: Path | None = None,
        jsonl_path: Path | None = None,
        heading: str | None = None,
    ) -> None:
        """Open the log, and print the lines kept so far.

        Args:
            log_path: a file that receives every line too; appended to.
            scalar_path: folder of the TensorBoard event files; None records no scalars.
            jsonl_path: file that receives the scalars of an epoch as one JSON object a line.
            heading: a line before those that were kept.
        """
        kept, self.kept = self.kept or [], None
        if not is_first_rank():
            return
        self.jsonl_path = jsonl_path
        if log_path is not None:
            with writing(log_path):
                log_path.parent.mkdir(parents=True, exist_ok=True)
                self.file = log_path.open(
                    "a", buffering=1, encoding="utf-8", errors="backslashreplace"
                )
        if scalar_path is not None:
            with writing(scalar_path):
                self.scalars = scalar_path, _Events(str(scalar_path))
        self.line(*([] if heading is None else [heading]), *kept)

    def line(self, *texts: str) -> None:
        """Print lines of text, as `printable` makes them."""
        if self.kept is not None:
            self.kept += texts
            return
        if not is_first_rank():
            return
        for text in map(printable, texts):
            with writing("standard output"):
                tqdm.write(text, file=sys.stdout)
                sys.stdout.flush()
            if self.file is not None:
                with writing(self.file.name):
                    print(text, file=self.file)

    def step(self, text: str) -> None:
        """Print a line within an epoch, unless a progress bar says as much."""
        if not sys.stderr.isatty():
            self.line(text)

    def record(self, epoch: int, **scalars: float) -> None:
        """Record an epoch's scalars under their names."""
        if self.scalars is not None:
            folder, events = self.scalars
            with writing(folder):
                for name, value in scalars.items():
                    events.log_value(name, value, epoch)
        if self.jsonl_path is not None:
            with writing(self.jsonl_path), self.jsonl_path.open("a") as file:
                print(json.dumps({"epoch": epoch, **scalars}), file=file)


def progress(items: Iterable, title: str, total: int | None = None) -> Iterable:
    """Show how far going through items is, and the time left: a bar if stderr is a terminal.

    Elsewhere it is a line from time to time. ``total`` says how many they are if they don't.
    """
    if not is_first_rank() or sys.stderr.isatty():
        return tqdm(items, title, total, leave=False, disable=not is_first_rank())
    return _with_lines(items, title, length_hint(items, 0) if total is None else total)


def _with_lines(items: Iterable, title: str, total: int) -> Iterator:
    """Yield items; write a line to stderr whenever some seconds have passed, as `progress` says."""
    watch, said = Stopwatch(), 0.0
    for done, item in enumerate(items):
        taken = watch.seconds()
        if done and taken - said >= LINE_SECONDS:
            said, words = taken, f"{title}: {done:,}"
            if total:
                words += f" of {total:,}, {in_minutes(taken / done * (total - done))} left"
            print(words, file=sys.stderr, flush=True)
        yield item


def in_minutes(seconds: float) -> str:
    """Return a time in words."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


@contextmanager
def silenced(number: int) -> Iterator[None]:
    """Keep off the terminal what a library's own code prints; 1 is stdout's number, 2 stderr's."""
    sys.stdout.flush()
    kept = os.dup(number)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), number)
        yield
    finally:
        os.dup2(kept, number)
        os.close(kept)


class Stopwatch:
    """Measure the seconds since its construction."""

    def __init__(self) -> None:
        self.start = time.perf_counter()

    def seconds(self) -> float:
        """Return the seconds that have passed."""
        return time.perf_counter() - self.start
