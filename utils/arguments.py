"""The command-line parser of the scripts."""

import argparse
import math
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn, TypeVar

Number = TypeVar("Number", int, float)


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Keep the script's own line breaks; print the defaults that say something."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        default = action.default
        silent = default is False or default in (None, "", [], argparse.SUPPRESS)
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


def _number_parser(
    kind: Callable[[str], Number], expected: str, allows: Callable[[Number], bool]
) -> Callable[[str], Number]:
    def parse(text: str) -> Number:
        with suppress(ValueError):
            if allows(value := kind(text)):
                return value
        raise argparse.ArgumentTypeError(f"expected {expected}, got {text}")

    return parse


# Types of options, each named after the numbers that it takes.
positive_int = _number_parser(int, "an integer of at least 1", lambda n: n >= 1)
natural = _number_parser(int, "an integer of at least 0", lambda n: n >= 0)
finite_float = _number_parser(float, "a number of at least 0", lambda x: 0 <= x < math.inf)
positive_float = _number_parser(float, "a number above 0", lambda x: 0 < x < math.inf)
fraction = _number_parser(float, "a number above 0 and at most 1", lambda x: 0 < x <= 1)
unit_interval = _number_parser(float, "a number from 0 to 1", lambda x: 0 <= x <= 1)
# A decay rate of Adam's averages, which divides by what is left to 1.
adam_beta = _number_parser(float, "a number of at least 0, below 1", lambda x: 0 <= x < 1)


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
