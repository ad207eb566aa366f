"""Reading of the benchmarks' lists and tables, with errors that name the file and the line."""

from pathlib import Path

import numpy as np

from utils.errors import InputError


def read_lines(path: Path) -> list[str]:
    """Return a text file's lines without their ends and without trailing blank lines.

    Raises:
        InputError: if the file is absent or not text.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; the benchmark's layout has one there") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not a text file") from None
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    lines = [line.strip() for line in text.splitlines()]
    while lines and not lines[-1]:
        lines.pop()
    return lines


def read_names(path: Path) -> list[str]:
    """Return the first word of each line, at least one.

    Raises:
        InputError: if the file is absent, or has an empty line or none.
    """
    lines = read_lines(path)
    if not lines:
        raise InputError(f"{path}: empty, expected one name a line")
    for number, line in enumerate(lines, 1):
        if not line:
            raise InputError(f"{path}, line {number}: empty, expected a name")
    return [line.split()[0] for line in lines]


def parse_table(
    path: Path, lines: list[str], columns: int, first_line: int, separator: str | None = None
) -> tuple[list[str], np.ndarray]:
    """Parse lines of one name and ``columns`` finite numbers.

    Args:
        path: named in errors.
        lines: the lines to parse.
        columns: numbers that follow the name; further words are ignored.
        first_line: number in the file of the first of the lines.
        separator: between words; white space if None.

    Returns:
        Names, and numbers (lines, columns).

    Raises:
        InputError: naming the first line that doesn't fit, or a name that stands twice.
    """
    names, rows = [], np.empty((len(lines), columns))
    for place, line in enumerate(lines):
        words = line.split(separator)
        try:
            rows[place] = [float(word) for word in words[1 : columns + 1]]
            fits = len(words) > columns and bool(np.isfinite(rows[place]).all())
        except ValueError:
            fits = False
        if not fits:
            raise InputError(
                f"{path}, line {first_line + place}: expected a name and {columns} finite "
                f"numbers, found {line[:60]!r}"
            )
        names.append(words[0])
    check_unique(path, names)
    return names, rows


def check_unique(path: Path, names: list[str]) -> None:
    """Raise an `InputError` that names the first name which stands twice in a file."""
    if len(set(names)) < len(names):
        seen: set[str] = set()
        twice = next(name for name in names if name in seen or seen.add(name))
        raise InputError(f"{path}: {twice} stands there twice")


def check_images(folder: Path, filenames: list[str], source: Path) -> None:
    """Raise an `InputError` if a listed image isn't there; one listing of each folder."""
    present: dict[Path, set[str]] = {}
    for name in filenames:
        path = folder / name
        if path.parent not in present:
            if not path.parent.is_dir():
                raise InputError(f"{path.parent}: no such folder; {source} names images in it")
            present[path.parent] = {entry.name for entry in path.parent.iterdir()}
        if path.name not in present[path.parent]:
            raise InputError(f"{path}: no such image; {source} names it")
