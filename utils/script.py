"""How a script runs its ``main``, and how it ends when something is wrong."""

import os
import re
import sys
from collections.abc import Callable

from utils.errors import InputError


def run_script(main: Callable[[], None]) -> None:
    """Run a script's ``main``; turn the user's mistakes and interruptions into clean exits.

    Exit status 2 with one line on stderr for an `InputError` (also one that a data-loading worker
    raised), 130 for Ctrl-C, 1 where one of torchrun's other processes was lost; what several of
    them have to say is printed once. Everything else is our own fault and keeps its traceback.
    """
    try:
        main()
    except InputError as error:
        # A DataLoader worker's exception arrives with its whole traceback as the message.
        message = re.split(r"\b(?:Input|Image)Error: ", str(error))[-1].strip()
        _say(f"error: {message}")
        sys.exit(2)
    except RuntimeError as error:
        if "TORCHELASTIC_RUN_ID" not in os.environ:
            raise
        from utils.process_group import is_connection_lost

        if not is_connection_lost(error):
            raise
        said = str(error).splitlines()[0]
        _say(f"stopped: another process of this run has ended or can't be reached ({said})")
        sys.exit(1)
    except KeyboardInterrupt:
        _say("interrupted")
        sys.exit(130)
    if "TORCHELASTIC_RUN_ID" in os.environ:
        from utils.process_group import end_process

        end_process()


def available_cores() -> int:
    """Return the cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


# utils.process_group is imported where it is needed, since importing torch takes seconds that the
# scripts of datasets/ can do without.


def _say(message: str) -> None:
    if "TORCHELASTIC_RUN_ID" in os.environ:
        from utils.process_group import is_first_to_report

        if not is_first_to_report(message):
            return
    print(f"{sys.argv[0]}: {message}", file=sys.stderr)
