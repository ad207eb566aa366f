"""Errors that a user can cause."""

import math


class InputError(ValueError):
    """A file, folder or flag the user gave is unusable.

    The message is one line that names the file or flag, what was found and what was expected.
    """


class ImageError(InputError):
    """An image can't be read."""


def check_finite(
    what: str, value: float, epoch: int, how: str = "", flag: str = "--learning_rate"
) -> None:
    """Check a number that training led to, before it is saved.

    Args:
        what: it is, for the message.
        value: checked.
        epoch: after which it was found.
        how: what else to say of the epoch.
        flag: that should be smaller.

    Raises:
        InputError: if it isn't finite.
    """
    if not math.isfinite(value):
        raise InputError(
            f"{what} is {value} after epoch {epoch}{how}: not saved; try a smaller {flag}"
        )
