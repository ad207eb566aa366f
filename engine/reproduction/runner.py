"""How far jobs got, and running them: one after the other, each from where it stopped."""

import signal
import subprocess
import sys
from argparse import ArgumentParser
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from engine.reproduction.jobs import Job
from engine.reproduction.results import read_record
from engine.reproduction.runs import FINETUNE
from engine.reproduction.tables import write_tables
from engine.run.resumption import AUTO, find_checkpoint
from engine.run.settings import as_json
from utils.arguments import neutral_options
from utils.errors import InputError
from utils.files import writing
from utils.log import RunLog, Stopwatch

ROOT = Path(__file__).resolve().parents[2]  # of the scripts
FINISHED, INTERRUPTED, MISSING = "finished", "interrupted", "missing"
OTHER = "run with other options"
STATES = (FINISHED, INTERRUPTED, MISSING, OTHER)
GRACE = 10  # seconds from SIGTERM to SIGKILL


# ---- how far a job got ----


class State(NamedTuple):
    """How far a job got: one of `STATES`, and the checkpoint to resume or what differs."""

    name: str
    checkpoint: Path | None = None
    differences: str = ""


def find_state(job: Job, parser: ArgumentParser) -> State:
    """Return how far a job got, given its script's parser."""
    if not any(job.folder.glob("*.pth")) and read_record(job.result) is None:
        return State(MISSING)
    is_finished = job.outcome() is not None
    held = (read_record(job.folder / "options.json") or {}).get("options")
    found = None
    if not (is_finished and held):
        with suppress(InputError):  # if none is whole
            found = find_checkpoint(AUTO, job.folder, ("opt",), RunLog())
    if held is None:  # a kill may have cut options.json off
        if found is None:
            return State(OTHER, differences="options.json is missing or damaged")
        held = as_json(found[1]["opt"])
    wanted = as_json(parser.parse_args(job.arguments))
    # What an older record doesn't know was at its default.
    held = {name: held.get(name, parser.get_default(name)) for name in wanted}
    differences = ", ".join(
        f"--{name} {held[name]}, wanted {value}"
        for name, value in wanted.items()
        if name not in neutral_options() and held[name] != value
    )
    if differences:
        return State(OTHER, differences=differences)
    if is_finished:
        return State(FINISHED)
    return State(MISSING) if found is None else State(INTERRUPTED, found[0])


def make_command(job: Job, state: State) -> list[str]:
    """Return the script and its options that start or resume a job from a state."""
    command = [job.script, *job.arguments]
    if state.checkpoint is not None:
        return [*command, "--resume", str(state.checkpoint)]
    # What only matches images overwrites unasked.
    if state.name != FINISHED and job.folder.exists() and "out" not in job.options:
        return [*command, "--overwrite"]
    return command


# ---- running jobs ----


def run_jobs(jobs: Sequence[Job], states: Sequence[State], out: Path, lock: int) -> list[Job]:
    """Run what isn't finished, a line each; return the jobs that failed."""
    failed = []
    for number, (job, state) in enumerate(zip(jobs, states, strict=True), 1):
        print(f"[{number}/{len(jobs)}] {job.folder.name}: ", end="", flush=True)
        if state.name == FINISHED:
            print("finished before")
            continue
        if job.waits():
            print(f"left out: there is no {job.needed}")
            continue
        begun = f"resumed from {state.checkpoint.name}, " if state.checkpoint else ""
        script, *options = make_command(job, state)
        # An earlier one would be taken for this job's if it is killed.
        job.result.unlink(missing_ok=True)
        watch = Stopwatch()
        try:
            status = run_logged([sys.executable, str(ROOT / script), *options], job.log_path, lock)
        except BaseException:
            print("stopped; the same command resumes from here")
            raise
        outcome = job.outcome()
        if outcome is None:
            print(f"{begun}failed with status {status}, see {job.log_path}", flush=True)
            failed.append(job)
            continue
        print(f"{begun}{outcome} in {watch.seconds():.0f} s", flush=True)
        if job.run is not None and job.run.recipe is FINETUNE:
            remove_checkpoints(job.folder)
        write_tables(out)
    return failed


def run_logged(command: list[str], log_path: Path, lock: int) -> int:
    """Run a command and return its exit status; it ends when this program ends.

    Args:
        command: its output is dropped (the scripts log it themselves), its errors are kept.
        log_path: file that the errors are appended to.
        lock: file descriptor of a lock, which the command inherits.
    """
    with writing(log_path):
        log_path.parent.mkdir(parents=True, exist_ok=True)
        log = log_path.open("a")
    silent = subprocess.DEVNULL
    with (
        log,
        subprocess.Popen(command, stdin=silent, stdout=silent, stderr=log, pass_fds=(lock,)) as run,
    ):
        try:
            return run.wait()
        except BaseException:
            run.terminate()
            try:
                with suppress(subprocess.TimeoutExpired):
                    run.wait(GRACE)
            finally:  # too slow, or a second Ctrl-C
                run.kill()
            raise


@contextmanager
def ending_on_sigterm() -> Iterator[None]:
    """Let SIGTERM end the program as Ctrl-C does, with status 143."""
    previous = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def remove_checkpoints(folder: Path) -> None:
    """Remove what fine-tuning would resume from, nine tenths of its files, once it is finished."""
    for pattern in ("current.pth", "previous_*.pth", "ckpt_epoch_*.pth"):
        for path in folder.glob(pattern):
            path.unlink(missing_ok=True)


def read_last_line(path: Path) -> str:
    """Return the last line of a log, which names a mistake."""
    try:
        lines = path.read_text(errors="replace").split("\n")
    except OSError:
        lines = []
    return next((line for line in reversed(lines) if line.strip()), "(empty)")
