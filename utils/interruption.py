"""Signals that end a run: it finishes its step, saves, and exits as batch schedulers expect."""

import atexit
import multiprocessing
import signal
import sys
from types import FrameType

# Signal to exit status: what a shell reports of a process it ended, 128 + its number, but for
# SIGUSR1, the scheduler's early warning: the run has ended well, and is to be queued again.
STATUS = {
    signal.SIGTERM: 128 + signal.SIGTERM,
    signal.SIGINT: 128 + signal.SIGINT,
    **({signal.SIGUSR1: 0} if hasattr(signal, "SIGUSR1") else {}),
}


class Interruption:
    """Note the first signal, for the training loop to look at between steps.

    A second one acts as it would without this. Use as a context; handlers are put back at its end.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> "Interruption":
        self._before = {number: signal.signal(number, self._note) for number in STATUS}
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number)
        # Not print(): the handler may have come in the middle of another one.
        sys.stderr.write(f"\n{self.received.name}: finishing the step, then saving\n")
        self.__exit__()

    def leave(self) -> None:
        """Exit with the status that belongs to the signal."""
        sys.exit(STATUS[self.received])


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
