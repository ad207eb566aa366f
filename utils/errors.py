"""Errors that a user can cause."""


class InputError(ValueError):
    """A file, folder or flag the user gave is unusable.

    The message is one line that names the file or flag, what was found and what was expected.
    """


class ImageError(InputError):
    """An image can't be read."""
