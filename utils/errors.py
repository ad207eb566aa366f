"""What a user can get wrong, and how a script says so in one line."""

import os
import re
import sys
from collections.abc import Callable


class InputError(ValueError):
    """A file, folder or flag the user gave is unusable.

    The message is one line that names the file or flag, what was found and what was expected.
    """


class ImageError(InputError):
    """A picture can't be read."""


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
        if not _has_lost_contact(error):
            raise
        said = str(error).splitlines()[0]
        _say(f"stopped: another process of this run has ended or can't be reached ({said})")
        sys.exit(1)
    except KeyboardInterrupt:
        _say("interrupted")
        sys.exit(130)


# utils.distributed is imported where it is needed, since importing torch takes seconds that the
# scripts of datasets/ can do without.


def _say(message: str) -> None:
    if "TORCHELASTIC_RUN_ID" in os.environ:
        from utils.distributed import first_to_say

        if not first_to_say(message):
            return
    print(f"{sys.argv[0]}: {message}", file=sys.stderr)


def _has_lost_contact(error: RuntimeError) -> bool:
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return False
    from utils.distributed import has_lost_contact

    return has_lost_contact(error)
