"""How a script runs its ``main``, and how it ends when something is wrong."""

import errno
import io
import os
import re
import sys
from collections.abc import Callable

from utils.errors import InputError
from utils.files import printable, writing

# What PyTorch says where batches find no place; Docker gives a container 64 MB.
NO_SHARED_MEMORY = re.compile(
    r"shared memory\(shm\)|unable to write to file </torch_|out of shared memory"
)


def run_script(main: Callable[[], None]) -> None:
    """Run a script's ``main``; turn the user's mistakes and interruptions into clean exits.

    Exit status 2 with one line on stderr for an `InputError` (also one that a data-loading worker
    raised), for a file that the system refuses, and where the workers lack shared memory; 130 for
    Ctrl-C, 1 where one of torchrun's other processes was lost; what several of them have to say is
    printed once. Everything else is our own fault and keeps its traceback.
    """
    _prepare_streams()
    try:
        main()
        with writing("standard output"):
            sys.stdout.flush()
    except InputError as error:
        # A DataLoader worker's exception arrives with its whole traceback as the message.
        message = re.split(r"\b(?:Input|Image)Error: ", str(error))[-1].strip()
        _say(f"error: {message}")
        sys.exit(2)
    except (OSError, RuntimeError) as error:
        if refused := _refused(error):
            _say(f"error: {refused}")
            sys.exit(2)
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
    finally:
        try:
            sys.stdout.flush()
        except OSError:  # nobody reads it any more, and Python would try again in the end
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
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


def _refused(error: Exception) -> str:
    """Return what the system refused, in words; nothing if an error doesn't tell."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, BrokenPipeError):
        return f"standard output: {error.strerror}"
    advice = "give --num_workers 0, or Docker more by --shm-size 2g"
    if NO_SHARED_MEMORY.search(str(error)):
        return f"too little shared memory (/dev/shm) for batches of worker processes: {advice}"
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return f"{error.strerror}, where standard output goes or in /dev/shm: {advice}"
    return ""


def _prepare_streams() -> None:
    """Let no character that a terminal can't show end a run, nor a stream that was closed."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", errors="backslashreplace"))
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _say(message: str) -> None:
    if "TORCHELASTIC_RUN_ID" in os.environ:
        from utils.process_group import is_first_to_report

        if not is_first_to_report(message):
            return
    print(f"{sys.argv[0]}: {printable(message)}", file=sys.stderr)
