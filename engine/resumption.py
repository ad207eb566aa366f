"""Resuming a run: from which checkpoint, and whether its options are the same."""

import argparse
import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

from engine.run import start_folder
from utils.arguments import changeable_options
from utils.checkpoint import load_checkpoint, save_checkpoint
from utils.collectives import broadcast_from_first
from utils.errors import InputError
from utils.files import UNFINISHED, write_text
from utils.locks import lock_folder
from utils.log import RunLog
from utils.process_group import is_first_rank

AUTO = "auto"
CURRENT = "current.pth"
UNPUBLISHED_KEYS = {"random_states", "encoder_digest"}  # which published checkpoints lack


def open_checkpoint(
    resume: str,
    folder: Path,
    keys: tuple[str, ...],
    options: argparse.Namespace,
    override: bool,
    notices: list[str],
) -> tuple[Path, dict] | None:
    """Return the path and content of the checkpoint to resume, checked against the options.

    None where the run starts afresh. The first rank reads it and sends it to the others.

    Args:
        resume: see `find_checkpoint`, as for the next two.
        folder: the run's.
        keys: entries that the checkpoint must have.
        options: of plain types, compared with the checkpoint's.
        override: of ``--override``: whether they may differ.
        notices: receives what the user should know.

    Raises:
        InputError: if it can't be loaded, or is of another run.
    """

    def read() -> tuple[Path, dict] | None:
        if resume == AUTO and folder.is_dir():
            lock_folder(folder)  # before looking: another run may still be writing
        found = find_checkpoint(resume, folder, keys, notices.append)
        if found is not None:
            path, content = found
            # A published checkpoint can't be resumed exactly: whoever takes one may change more.
            insisted = override or UNPUBLISHED_KEYS.isdisjoint(content)
            notices.extend(check_options(path, content["opt"], options, insisted))
            within = f", step {step}" if (step := steps_begun(content)) else ""
            notices.append(f"resumed from {path} after epoch {content['epoch']}{within}")
        return found

    return broadcast_from_first(read)


def steps_begun(content: dict) -> object:
    """Return how many steps of an epoch under way a checkpoint has taken; false if none."""
    progress = content.get("progress")
    return progress.get("steps") if isinstance(progress, dict) else None


def find_checkpoint(
    resume: str, folder: Path, keys: tuple[str, ...], log_line: Callable[[str], None]
) -> tuple[Path, dict] | None:
    """Return the checkpoint to resume and its path; None to start from the beginning.

    Args:
        resume: of ``--resume``: a file, ``auto`` for the newest whole one of the run, or nothing.
        folder: the run's.
        keys: entries that the checkpoint must have.
        log_line: logs a line, for each damaged one.

    Raises:
        InputError: if the file can't be loaded, or none of the run's can.
    """
    if not resume:
        return None
    if resume != AUTO:
        return Path(resume), load_checkpoint(resume, keys)
    # Of the same time, as a coarse clock gives: the one that is rewritten most often.
    patterns = (CURRENT, "previous_*.pth", "ckpt_epoch_*.pth")
    paths = [path for pattern in patterns for path in folder.glob(pattern)]
    paths.sort(key=lambda path: path.stat().st_mtime_ns, reverse=True)
    for path in paths:
        try:
            return path, load_checkpoint(path, keys)
        except InputError as error:
            log_line(f"{error}; trying the one before")
    if paths:
        raise InputError(f"{folder}: none of its {len(paths)} checkpoints can be read")
    log_line(f"--resume auto: no checkpoint in {folder} yet, starting from the beginning")
    return None


def check_options(
    path: Path, saved: argparse.Namespace, options: argparse.Namespace, override: bool
) -> list[str]:
    """Return a line for each option that differs from the checkpoint's and was insisted on.

    Options that only one of the two knows aren't compared: published checkpoints have fewer.

    Raises:
        InputError: naming the options that differ, unless they are insisted on.
    """
    changeable = changeable_options()
    if not getattr(options, "cosine", False):
        changeable.add("epochs")  # without a cosine, earlier epochs don't depend on their number
    differing = [
        f"--{name} {json.dumps(_plain(vars(options)[name]))} (was {json.dumps(_plain(value))})"
        for name, value in sorted(vars(saved).items())
        if name in vars(options)
        and name not in changeable
        and _plain(vars(options)[name]) != _plain(value)
    ]
    if differing and not override:
        raise InputError(
            f"{path}: was made with other options: {', '.join(differing)}; --override to insist"
        )
    return [f"going on with {option}" for option in differing]


def _plain(value: object) -> object:
    """Return a value as it compares: sequences as lists, paths and lists in words as such."""
    if isinstance(value, tuple | list):
        return [_plain(v) for v in value]
    return value if isinstance(value, bool | int | float | None) else str(value)


def save_current(folder: Path, content: dict, keep_last: int) -> None:
    """Write ``current.pth``; the ones before stay as ``previous_1.pth`` and so on.

    At every instant there is a whole one under one of these names. Until the new one is on the
    disk nothing is renamed, so that a disk too full for it leaves all of them as they were.
    """
    save_checkpoint(folder / CURRENT, content, before=partial(_rename_older, folder, keep_last))


def _rename_older(folder: Path, keep_last: int) -> None:
    current = folder / CURRENT
    kept = [current, *(folder / f"previous_{age}.pth" for age in range(1, keep_last))]
    for older, newer in zip(kept[:1:-1], kept[-2:0:-1], strict=True):
        if newer.exists():
            newer.replace(older)
    if current.exists() and keep_last > 1:
        link = folder / f".{kept[1].name}{UNFINISHED}"
        link.unlink(missing_ok=True)
        try:
            os.link(current, link)
            link.replace(kept[1])
        except OSError:  # a file system without links
            current.replace(kept[1])


def start_run(
    model_path: Path,
    model_name: str,
    options: argparse.Namespace,
    derived: dict,
    *,
    resume: str,
    overwrite: bool,
    done: int,
    log_path: Path | None = None,
) -> RunLog:
    """Make a run's folder, see `start_folder`, and return the run's log.

    Args:
        model_path: folder of all runs.
        model_name: of this one's folder there.
        options: see `start_folder`, as for the next three.
        derived: see `start_folder`.
        resume: see `start_folder`.
        overwrite: see `start_folder`.
        done: epochs after which the run resumes; the log forgets later ones.
        log_path: see `RunLog`.
    """
    folder = model_path / model_name
    start_folder(folder, options, derived, resume=resume, overwrite=overwrite)
    forget_later_epochs(folder / "log.jsonl", done)
    # Beside the folder of all runs [spec 7].
    scalars = Path(f"{model_path}_tensorboard") / model_name
    return RunLog(log_path, scalars, folder / "log.jsonl")


def forget_later_epochs(jsonl: Path, done: int) -> None:
    """Drop the records of epochs that a resumed run will make again."""
    if not is_first_rank() or not jsonl.is_file():
        return
    found = jsonl.read_text()
    kept = "".join(f"{line}\n" for line in found.splitlines() if _epoch_of(line) <= done)
    if kept != found:  # also if but the last line's end is missing
        write_text(jsonl, kept)


def _epoch_of(line: str) -> float:
    try:
        return json.loads(line)["epoch"]
    except (ValueError, KeyError, TypeError):  # cut short by a kill or a full disk
        return float("inf")
