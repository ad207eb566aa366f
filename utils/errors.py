"""What a user can get wrong, and how a script says so in one line."""

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
    raised), 130 for Ctrl-C. Everything else is our own fault and keeps its traceback.
    """
    try:
        main()
    except InputError as error:
        # A DataLoader worker's exception arrives with its whole traceback as the message.
        message = re.split(r"\b(?:Input|Image)Error: ", str(error))[-1].strip()
        print(f"{sys.argv[0]}: error: {message}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print(f"{sys.argv[0]}: interrupted", file=sys.stderr)
        sys.exit(130)
