"""A command line of an experiment as a job: its folder, and how far it got."""

from abc import ABC, abstractmethod
from argparse import ArgumentParser
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from engine.reproduction.results import read_record
from engine.resumption import AUTO, find_checkpoint
from engine.run import as_json
from utils.arguments import neutral_options
from utils.errors import InputError
from utils.log import RunLog

# The roots of README.md below datasets/, then shorter names.
ROOTS = {
    "MAFLAligned": ("celeba",),
    "AFLW_MTFL": ("face_datasets/aflw-mtfl", "aflw-mtfl"),
    "AFLW": ("face_datasets/aflw/aflw_release-2", "aflw/aflw_release-2", "aflw"),
    "ThreeHundredW": ("face_datasets/300w/300w", "300w/300w", "300w"),
    "CUB": ("CUB_200_2011", "CUB-200-2011", "cub"),
}

FINISHED, INTERRUPTED, MISSING = "finished", "interrupted", "missing"
OTHER = "run with other options"
STATES = (FINISHED, INTERRUPTED, MISSING, OTHER)


@dataclass(frozen=True)
class Settings:
    """What the user decides for all runs.

    They are the flags of `reproduce.py`; encoders are checkpoints by model, ``scale`` is a factor
    on the published number of epochs.
    """

    out: Path
    data: Path
    face_encoders: dict[str, str]
    bird_encoders: dict[str, str]
    random_network: bool
    scale: float
    num_per_epoch: int
    num_workers: int
    device: str


class JobState(NamedTuple):
    """How far a job got: one of `STATES`, and the checkpoint to resume or what differs."""

    name: str
    checkpoint: Path | None = None
    differences: str = ""


@dataclass(frozen=True)
class Job(ABC):
    """A command line that writes to a folder of its own.

    Args:
        script: to be run.
        options: command line of the script.
        folder: that it writes to.
        dataset: name of its data set.
        data_folder: of that.
    """

    script: str
    options: list[str]
    folder: Path
    dataset: str
    data_folder: Path

    @abstractmethod
    def outcome(self) -> str | None:
        """Return what came of it in words; None if it isn't finished."""

    def needed_file(self) -> Path | None:
        """Return a file that another program, or job, has to make first; None if there is none."""
        return None

    def waits(self) -> bool:
        """Return whether that file isn't there."""
        return (path := self.needed_file()) is not None and not path.is_file()

    @property
    def result_path(self) -> Path:
        """The file that is there when it is finished, of a job that leaves one."""
        return self.folder / "result.json"

    @property
    def log_path(self) -> Path:
        """The file with all that it prints."""
        return self.folder / "log.txt"

    def find_state(self, parser: ArgumentParser) -> JobState:
        """Return how far it got, given its script's parser."""
        begun = any(self.folder.glob("*.pth"))
        if not begun and read_record(self.result_path) is None:
            return JobState(MISSING)
        is_finished = self.outcome() is not None
        held = (read_record(self.folder / "options.json") or {}).get("options")
        found = None
        if not is_finished or held is None:
            found = newest_checkpoint(self.folder)
        if held is None:  # a kill may have cut options.json off
            if found is None:
                return JobState(OTHER, differences="options.json is missing or damaged")
            held = as_json(found[1]["opt"])
        if differences := self.differences(parser, held):
            return JobState(OTHER, differences=differences)
        if is_finished:
            return JobState(FINISHED)
        return JobState(MISSING) if found is None else JobState(INTERRUPTED, found[0])

    def differences(self, parser: ArgumentParser, held: Mapping) -> str:
        """Return in which options, held as in JSON, the folder's run differs from this one."""
        wanted = as_json(parser.parse_args(self.options))
        # What an older record doesn't know was at its default.
        held = {name: held.get(name, parser.get_default(name)) for name in wanted}
        neutral = neutral_options()
        return ", ".join(
            f"--{name} {held[name]}, wanted {value}"
            for name, value in wanted.items()
            if name not in neutral and held[name] != value
        )

    def options_from(self, state: JobState) -> list[str]:
        """Return the options that start or resume it from a state."""
        if state.checkpoint is not None:
            return [*self.options, "--resume", str(state.checkpoint)]
        if state.name != FINISHED and self.folder.exists():
            return [*self.options, "--overwrite"]
        return self.options

    def clear(self) -> None:
        """Remove an earlier result, which would be taken for this job's if it is killed."""
        self.result_path.unlink(missing_ok=True)

    def useless_files(self) -> list[Path]:
        """Return what is of no use once it is finished: nothing, in general."""
        return []

    def tidy(self) -> None:
        """Remove that."""
        for path in self.useless_files():
            path.unlink(missing_ok=True)

    def last_line(self) -> str:
        """Return the last line of its log, which names a mistake."""
        try:
            lines = self.log_path.read_text(errors="replace").split("\n")
        except OSError:
            lines = []
        return next((line for line in reversed(lines) if line.strip()), "(empty)")


def find_root(data: Path, dataset: str) -> Path:
    """Return a data set's folder below another one; its usual place if it isn't there."""
    places = [data / place for place in ROOTS[dataset]]
    return next((place for place in places if place.is_dir()), places[0])


def newest_checkpoint(folder: Path) -> tuple[Path, dict] | None:
    """Return the checkpoint that ``--resume auto`` takes, after its path; None without any."""
    try:
        return find_checkpoint(AUTO, folder, ("opt",), RunLog())
    except InputError:
        return None
