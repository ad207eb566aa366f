"""Resuming a run: from which checkpoint, and whether its options are the same."""

import argparse
import json
import os
from functools import partial
from pathlib import Path

from engine.run.settings import RunSettings, as_json, find_held, record_options
from utils.arguments import changeable_options
from utils.checkpoint import load_checkpoint, save_checkpoint
from utils.collectives import broadcast_from_first
from utils.errors import InputError
from utils.files import UNFINISHED, remove_unfinished, write_text, writing
from utils.locks import lock_folder
from utils.log import RunLog
from utils.process_group import is_first_rank

AUTO = "auto"
CURRENT = "current.pth"
UNPUBLISHED_KEYS = {"random_states", "encoder_digest"}  # which published checkpoints lack


def open_checkpoint(
    run: RunSettings, keys: tuple[str, ...], log: RunLog
) -> tuple[Path, dict] | None:
    """Return the path and content of the checkpoint to resume, checked against the options.

    None where the run starts afresh. The first rank reads it and sends it to the others.

    Raises:
        InputError: if it can't be loaded, lacks one of the keys, or is of another run.
    """

    def find() -> tuple[Path, dict] | None:
        if run.resume == AUTO and run.folder.is_dir():
            lock_folder(run.folder)  # before looking: another run may still be writing
        found = find_checkpoint(run, keys, log)
        if found is not None:
            path, content = found
            # A published checkpoint can't be resumed exactly: whoever takes one may change more.
            insisted = run.override or UNPUBLISHED_KEYS.isdisjoint(content)
            log.line(*check_options(path, content["opt"], run.options, insisted))
            within = f", step {step}" if (step := steps_begun(content)) else ""
            log.line(f"resumed from {path} after epoch {content['epoch']}{within}")
        return found

    return broadcast_from_first(find)


def steps_begun(content: dict) -> int:
    """Return how many steps of an epoch under way a checkpoint has taken."""
    progress = content.get("progress")
    steps = progress.get("steps") if isinstance(progress, dict) else None
    return steps if isinstance(steps, int) else 0


def find_checkpoint(
    run: RunSettings, keys: tuple[str, ...], log: RunLog
) -> tuple[Path, dict] | None:
    """Return the checkpoint to resume and its path; None to start from the beginning.

    Args:
        run: whose ``--resume`` is a file, ``auto`` for its newest whole one, or nothing.
        keys: entries that the checkpoint must have.
        log: receives a line for each damaged one.

    Raises:
        InputError: if the file can't be loaded, or none of the run's can.
    """
    if not run.resume:
        return None
    if run.resume != AUTO:
        return Path(run.resume), load_checkpoint(run.resume, keys)
    # Of the same time, as a coarse clock gives: the one that is rewritten most often.
    patterns = (CURRENT, "previous_*.pth", "ckpt_epoch_*.pth")
    paths = [path for pattern in patterns for path in run.folder.glob(pattern)]
    paths.sort(key=lambda path: path.stat().st_mtime_ns, reverse=True)
    for path in paths:
        try:
            return path, load_checkpoint(path, keys)
        except InputError as error:
            log.line(f"{error}; trying the one before")
    if paths:
        raise InputError(f"{run.folder}: none of its {len(paths)} checkpoints can be read")
    log.line(f"--resume auto: no checkpoint in {run.folder} yet, starting from the beginning")
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
    # The warm-up of train_dense.py is followed by a cosine, whose name no flag has.
    if not (getattr(options, "cosine", False) or hasattr(options, "warmup_steps")):
        changeable.add("epochs")  # without a cosine, earlier epochs don't depend on their number
    if getattr(options, "amp", None) == AUTO:
        changeable.add("amp")  # the run goes on in the precision that it began in
    own, old = as_json(options), as_json(saved)
    differing = [
        f"--{name} {json.dumps(own[name])} (was {json.dumps(value)})"
        for name, value in sorted(old.items())
        if name in own and name not in changeable and own[name] != value
    ]
    if differing and not override:
        raise InputError(
            f"{path}: was made with other options: {', '.join(differing)}; --override to insist"
        )
    return [f"resumed with {option}" for option in differing]


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
    run: RunSettings,
    derived: dict,
    done: int,
    log: RunLog,
    log_path: Path | None = None,
    heading: str | None = None,
) -> None:
    """Make the run's folder, with ``options.json``, and open its log; the first rank does.

    ``derived`` are further values to record. The log forgets what follows the ``done`` epochs after
    which the run resumes.

    Raises:
        InputError: if the folder holds checkpoints and neither resuming nor overwriting was
            asked, or it can't be made.
    """
    if is_first_rank():
        held = find_held(run)
        lock_folder(run.folder)
        with writing(run.folder):
            remove_unfinished(run.folder)
            if run.overwrite and not run.resume:
                for path in [*held, run.folder / "log.jsonl"]:
                    path.unlink(missing_ok=True)
        record_options(run.folder, run.options, derived)
        forget_later_epochs(run.folder / "log.jsonl", done)
    # Beside the folder of all runs [spec 7].
    scalars = Path(f"{run.model_path}_tensorboard") / run.model_name
    log.open(log_path, scalars, run.folder / "log.jsonl", heading)


def forget_later_epochs(jsonl: Path, done: int) -> None:
    """Drop the records of epochs that a resumed run will make again."""
    if not jsonl.is_file():
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
