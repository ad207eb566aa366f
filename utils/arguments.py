"""The command-line parser of the scripts."""

import argparse
import math
from typing import Any, NoReturn


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Keep the script's own line breaks; print the defaults that say something."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        silent = action.default in (None, "", False, [], argparse.SUPPRESS)
        return action.help if silent or action.required else f"{action.help} [%(default)s]"


# Whether the options that a resumed run may change keep its results, by name.
_changeable: dict[str, bool] = {}


class ArgumentParser(argparse.ArgumentParser):
    """argparse with defaults in the help, no abbreviated flags and errors of one line."""

    def __init__(self, description: str) -> None:
        super().__init__(
            description=description, formatter_class=_HelpFormatter, allow_abbrev=False
        )

    def error(self, message: str) -> NoReturn:
        """Print one line on stderr and exit with status 2."""
        self.exit(2, f"{self.prog}: error: {message} (see --help)\n")


def positive_int(text: str) -> int:
    """Parse an integer of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected an integer of at least 1, got {text}")
    return value


def natural(text: str) -> int:
    """Parse an integer of at least 0."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"expected an integer of at least 0, got {text}")
    return value


def finite_float(text: str) -> float:
    """Parse a number of at least 0 that isn't infinite."""
    value = float(text)
    if not (math.isfinite(value) and value >= 0):
        raise argparse.ArgumentTypeError(f"expected a number of at least 0, got {text}")
    return value


def positive_float(text: str) -> float:
    """Parse a number above 0 that isn't infinite."""
    value = float(text)
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text}")
    return value


def fraction(text: str) -> float:
    """Parse a proportion: a number above 0 and at most 1."""
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"expected a number above 0 and at most 1, got {text}")
    return value


def unit_interval(text: str) -> float:
    """Parse a number from 0 to 1, both included, as a momentum is."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 1, got {text}")
    return value


def adam_beta(text: str) -> float:
    """Parse a decay rate of Adam's averages: at least 0 and below 1, by which Adam divides."""
    value = float(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"expected a number of at least 0, below 1, got {text}")
    return value


def epoch_list(text: str) -> tuple[int, ...]:
    """Parse epochs separated by commas, such as ``120,160,200``."""
    return tuple(positive_int(word) for word in text.split(","))


def allow_change(*names: str, keeps_results: bool = True) -> None:
    """Declare that a run may be resumed with other values of some options.

    Args:
        names: of the options, without ``--``.
        keeps_results: whether no value of theirs changes a result, beyond rounding.
    """
    _changeable.update(dict.fromkeys(names, keeps_results))


def changeable_options() -> set[str]:
    """Return the options declared so far that a resumed run may change."""
    return set(_changeable)


def neutral_options() -> set[str]:
    """Return the options declared so far that change no result."""
    return {name for name, keeps_results in _changeable.items() if keeps_results}


def add_ignored_arguments(parser: argparse.ArgumentParser, **defaults: Any) -> None:
    """Declare flags that the published scripts parse and ignore [spec 8], as these do."""
    group = parser.add_argument_group("accepted and ignored, as published")
    for name, default in defaults.items():
        if default is False:
            group.add_argument(f"--{name}", action="store_true", help="no effect")
        else:
            group.add_argument(
                f"--{name}", type=type(default), default=default, help="no effect", metavar="X"
            )


def ignored_notices(args: argparse.Namespace, **defaults: Any) -> list[str]:
    """Return a line for each ignored flag that is set to something else than its default."""
    return [
        f"--{name} has no effect, as in the published code"
        for name, default in defaults.items()
        if getattr(args, name) != default
    ]
