"""The command-line parser of the scripts."""

import argparse
import os
from collections.abc import Callable, Iterable
from functools import cache, partial
from itertools import chain
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from utils.errors import InputError
from utils.files import UNFINISHED, fault

Number = TypeVar("Number", int, float)


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Keep the script's own line breaks; print the defaults that say something.

    ``words`` are what to say of some options.
    """

    def __init__(self, *positional: Any, words: dict[str, str], **options: Any) -> None:
        super().__init__(*positional, **options)
        self.words = words

    def _get_help_string(self, action: argparse.Action) -> str | None:
        default = action.default
        if action.dest in self.words:
            return f"{action.help} [{self.words[action.dest]}]"
        if default in (None, "", [], argparse.SUPPRESS) or default is False or action.required:
            return action.help
        words = ", ".join(map(str, default)) if isinstance(default, list) else "%(default)s"
        return f"{action.help} [{words}]"


# Whether the options that a resumed run may change keep its results, by name.
_changeable: dict[str, bool] = {}


class ArgumentParser(argparse.ArgumentParser):
    """argparse with defaults in the help, no abbreviated flags and errors of one line.

    Args:
        description: of the script.
        open_folder: flag of an output that is a folder, which may hold inputs and other outputs.
    """

    def __init__(self, description: str, open_folder: str = "") -> None:
        self.open_folder = open_folder
        choices = list[tuple[str, Callable[[argparse.Namespace], Any]]]
        self._choices_of_defaults = choices(), choices(), choices()
        self._words = dict[str, str]()  # on defaults that other options may replace
        super().__init__(
            description=description,
            formatter_class=partial(_HelpFormatter, words=self._words),
            allow_abbrev=False,
        )

    def choose_default(
        self, name: str, choose: Callable[[argparse.Namespace], Any], last: bool = False
    ) -> None:
        """Let other options say what an option is that isn't given, where they have a say.

        They are asked in turn, then its default is what is left; the ``last`` ones when all others
        have their values.
        """
        first, defaults, late = self._choices_of_defaults
        (late if last else first).append((name, choose))
        action = self._action(name)
        if (default := action.default) is not None:
            self._words[name], action.default = str(default), None
            (late if last else defaults).append((name, lambda _: default))

    def choose_own_defaults(
        self, is_own: Callable[[argparse.Namespace], bool], **values: Any
    ) -> None:
        """Give options, if there are such, another default for images of one's own."""

        def choose(own: Any, options: argparse.Namespace) -> Any:
            return own if is_own(options) else None

        for name in {action.dest for action in self._actions} & set(values):
            self.choose_default(name, partial(choose, values[name]))
            self._words[name] += f"; of images of one's own {values[name]}"

    def _action(self, name: str) -> argparse.Action:
        return next(action for action in self._actions if action.dest == name)

    def read_value(self, name: str, noted: Any) -> Any:
        """Return a value that a file notes of an option; None if it is none that its flag takes."""
        action = self._action(name)
        try:
            value = None if noted is None else self._get_value(action, str(noted))
            self._check_value(action, value)
        except argparse.ArgumentError:
            return None
        return value

    def parse_known_args(self, *args: Any, **options: Any) -> Any:
        """Parse as argparse does; choose the defaults that other options decide, check paths."""
        found, rest = super().parse_known_args(*args, **options)
        for name, choose in chain(*self._choices_of_defaults):
            if getattr(found, name) is None:
                setattr(found, name, choose(found))
        check_paths(vars(found).items(), self.open_folder)
        return found, rest

    def error(self, message: str) -> NoReturn:
        """Print one line on stderr and exit with status 2."""
        self.exit(2, f"{self.prog}: error: {message} (see --help)\n")


# Flags of what is written as a whole or appended to; and these with what is read, or drawn into.
MADE = "out windows out_video page export log_path".split()
ALL = [*MADE, *"images boxes ckpt_path trained_model_path projection init annotations".split()]
ALL += "val_annotations test_annotations data_folder imagelist vis_path model_path".split()
ALL += ["resume", "cache_folder"]


def check_paths(flags: Iterable[tuple[str, Any]], open_folder: str = "") -> None:
    """Raise an `InputError` if a path can't be, or an output is, or holds, another or an input.

    Links are followed. Of the flags, names and values, those that are no such paths are ignored;
    for ``open_folder`` see `ArgumentParser`.
    """
    chosen = [(name, path) for name, paths in flags if name in ALL for path in as_list(paths)]
    given = [(n, f"--{n} {p}", p) for n, p in chosen if p and isinstance(p, str | Path)]
    for name, shown, path in given:
        if said := fault(path) or (fault(f"{path}.{UNFINISHED}") if name in MADE else ""):
            raise InputError(f"{shown}: {said}")
    told = [(name, shown, f"{os.path.realpath(path)}{os.sep}") for name, shown, path in given]
    for name, shown, place in told:
        for _, other, inside in told if name in MADE and name != open_folder else ():
            if inside.startswith(place) and other != shown:
                raise InputError(f"{shown}: is or holds {other}; give another path")


@cache
def integer(least: int, most: int = 10**9) -> Callable[[str], int]:
    """Return the parser of integers from ``least`` to ``most``, always the same one."""
    return _parser(int, lambda value: least <= value <= most, f"an integer from {least} to {most}")


def _parser(read: Callable[[str], Number], fits: Callable[[Number], bool], expected: str) -> Any:
    def parse(text: str) -> Number:
        try:
            value = read(text)
        except ValueError:
            value = None
        if value is None or not fits(value):
            raise argparse.ArgumentTypeError(f"expected {expected}, got {text!r}")
        return value

    return parse


# What a flag's ``type`` may be. NaN fits none; 1e30 is finite in float32, 1e6 seconds in a timer.
positive_int = integer(1)
natural = integer(0)
finite_float = _parser(float, lambda value: 0 <= value <= 1e30, "a number from 0 to 1e30")
positive_float = _parser(float, lambda value: 0 < value <= 1e6, "a number above 0, up to 1e6")
fraction = _parser(float, lambda value: 0 < value <= 1, "a number above 0 and at most 1")
unit_interval = _parser(float, lambda value: 0 <= value <= 1, "a number from 0 to 1")
# Adam divides by 1 - beta.
adam_beta = _parser(float, lambda value: 0 <= value < 1, "a number of at least 0 and below 1")


@cache
def or_auto(read: Callable[[str], Any]) -> Callable[[str], Any]:
    """Return the parser of what another one reads, or of ``auto``, always the same one."""

    def parse(text: str) -> Any:
        return text if text == "auto" else read(text)

    return parse


def epoch_list(text: str) -> tuple[int, ...]:
    """Parse epochs separated by commas, such as ``120,160,200``."""
    return tuple(positive_int(word) for word in text.split(","))


class Gather(argparse.Action):
    """Joins the lists that a flag's ``type`` makes of its words; of one value, it keeps that."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: Any = None) -> None:
        """Set the option, as argparse wants it."""
        found = [value for some in values for value in some]
        setattr(namespace, self.dest, found if len(found) > 1 else found[0])


def as_list(value: Any) -> list[Any]:
    """Return what a flag that takes several values was given, see `Gather`."""
    return value if isinstance(value, list) else [value]


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


def add_ignored_arguments(
    parser: argparse.ArgumentParser, why: str = "as published", /, **defaults: Any
) -> None:
    """Declare flags that a script takes and ignores, as the published scripts do [spec 8]."""
    group = parser.add_argument_group(f"accepted and ignored, {why}")
    for name, default in defaults.items():
        if default is False:
            group.add_argument(f"--{name}", action="store_true", help="no effect")
        else:
            group.add_argument(
                f"--{name}", type=type(default), default=default, help="no effect", metavar="X"
            )


def ignored_notices(
    args: argparse.Namespace, why: str = "as in the published code", /, **defaults: Any
) -> list[str]:
    """Return a line for each ignored flag that is set to something else than its default."""
    return [
        f"--{name} has no effect, {why}"
        for name, default in defaults.items()
        if getattr(args, name) != default
    ]
