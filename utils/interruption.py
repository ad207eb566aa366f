"""Signals that end a run: it finishes its step, saves, and exits as batch schedulers expect."""

import atexit
import multiprocessing
import signal
import sys
from types import FrameType
from typing import Any

from utils.process_group import is_first_rank, local_rank

# Signal to exit status: what a shell reports of a process it ended, 128 + its number, but for
# SIGUSR1, the scheduler's early warning: the run has ended well, and is to be queued again.
STATUS = {
    signal.SIGTERM: 128 + signal.SIGTERM,
    signal.SIGINT: 128 + signal.SIGINT,
    **({signal.SIGUSR1: 0} if hasattr(signal, "SIGUSR1") else {}),
}


class Interruption:
    """Note the first signal, for the training loop to look at between steps.

    A second one acts as it would without this; but not in one of torchrun's processes, which get
    a terminal's or scheduler's signal twice, and are killed 30 seconds after the first one anyway.
    Use as a context; handlers are put back at its end.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "Interruption":
        self._before = {number: signal.signal(number, self._note) for number in STATUS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received is None and is_first_rank():
            # Not print(): the handler may have come in the middle of another one.
            name = signal.Signals(number).name
            sys.stderr.write(f"\n{name}: finishing what is under way, then saving\n")
        self.received = self.received or signal.Signals(number)
        if local_rank() is None:
            self.__exit__()

    def leave(self, received: signal.Signals) -> None:
        """Exit with the status that belongs to a signal."""
        sys.exit(STATUS[received])


def ignore_signals(_: int = 0) -> None:
    """Leave signals to the main process: a terminal or scheduler sends them to all of them."""
    for number in STATUS:
        signal.signal(number, signal.SIG_IGN)


@atexit.register
def _end_workers() -> None:
    """Kill workers that are left at the exit, which would ask them by SIGTERM and wait for good."""
    left = [process for process in multiprocessing.active_children() if process.daemon]
    if left and hasattr(signal, "SIGCHLD"):
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's handler calls it a worker's failure
    for process in left:
        process.kill()
