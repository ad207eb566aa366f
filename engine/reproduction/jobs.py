"""An experiment's run as a job: its command line, its folder, and how far it got."""

import math
import shlex
from argparse import ArgumentParser
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from engine.reproduction.experiments import BIRDS, FEW_FACES, PER_EPOCH, Run
from engine.reproduction.results import read_record, read_row
from engine.resumption import AUTO, find_checkpoint
from engine.run import as_json
from models.encoders import RESNETS
from utils.arguments import neutral_options
from utils.errors import InputError

CHECKPOINTS = 5  # [ours] a run: at most a fifth of it is lost when it is interrupted

# The roots of README.md below datasets/, then shorter names.
ROOTS = {
    "MAFLAligned": ("celeba",),
    "AFLW_MTFL": ("face_datasets/aflw-mtfl", "aflw-mtfl"),
    "AFLW": ("face_datasets/aflw/aflw_release-2", "aflw/aflw_release-2", "aflw"),
    "ThreeHundredW": ("face_datasets/300w/300w", "300w/300w", "300w"),
    "CUB": ("CUB_200_2011", "CUB-200-2011", "cub"),
}
# [ref: README of the published code, "Train MoCo"]
PRETRAIN = "--batch_size 256 --num_workers 12 --nce_k 4096 --cosine --epochs 800"
INAT_LIST = "inat_aves_100K.txt"  # as datasets/download.py names it

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
class Job:
    """A run with its command line and its folder.

    Args:
        run: the run, by what its results depend on.
        options: command line of its script.
        folder: that it writes to.
        data_folder: of its data set.
        encoder: the checkpoint it needs; None for an untrained one.
        encoder_given: whether the user named that file.
        pretraining: command line that makes the file otherwise; None if there isn't any.
    """

    run: Run
    options: list[str]
    folder: Path
    data_folder: Path
    encoder: Path | None
    encoder_given: bool
    pretraining: list[str] | None

    @property
    def log_path(self) -> Path:
        """The file with all that it prints."""
        return self.folder / "log.txt"

    def find_state(self, parser: ArgumentParser) -> JobState:
        """Return how far it got, given its script's parser."""
        begun = any(self.folder.glob("*.pth"))
        if not begun and read_record(self.folder / "result.json") is None:
            return JobState(MISSING)
        is_finished = read_row(self.folder) is not None
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
        """Remove an earlier result, which would be taken for this run's if it is killed."""
        (self.folder / "result.json").unlink(missing_ok=True)

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


def pretraining(run: Run, data: Path, out: Path) -> tuple[list[str] | None, Path]:
    """Return the published pre-training of a run's encoder and the checkpoint it leaves.

    There is no command for an encoder that `train_moco.py` doesn't train.
    """
    if run.recipe is BIRDS:
        name, images = f"moco_InatAve_{run.model}", data / "inat"
        options = ["--image_crop", "0", "--image_size", "96", "--dataset", "InatAve"]
        options += ["--data_folder", str(images), "--imagelist", str(images / INAT_LIST)]
    else:
        name, images = f"moco_CelebA_{run.model}", find_root(data, "MAFLAligned")
        options = ["--image_crop", "20", "--image_size", "136", "--dataset", "CelebA"]
        options += ["--data_folder", str(images)]
    command = None
    if run.model in RESNETS:
        command = ["train_moco.py", *PRETRAIN.split(), "--model", run.model, *options]
        command += ["--model_name", name, "--model_path", str(out)]
    return command, out / name / "ckpt_epoch_800.pth"


def newest_checkpoint(folder: Path) -> tuple[Path, dict] | None:
    """Return the checkpoint that ``--resume auto`` takes, after its path; None without any."""
    try:
        return find_checkpoint(AUTO, folder, ("opt",), lambda line: None)
    except InputError:
        return None


def make_job(run: Run, settings: Settings) -> Job:
    """Return the command line and the folder of a run."""
    data_folder, folder = find_root(settings.data, run.dataset), settings.out / run.name
    options = run.options(data_folder)
    given = settings.bird_encoders if run.recipe is BIRDS else settings.face_encoders
    encoder, (command, made) = None, pretraining(run, settings.data, settings.out)
    if settings.random_network:
        options += ["--random_network"]
    else:
        encoder = Path(given.get(run.model, made))
        options += ["--trained_model_path", str(encoder)]
    if run.recipe is FEW_FACES and settings.num_per_epoch != PER_EPOCH:
        options += ["--num_per_epoch", str(settings.num_per_epoch)]
    epochs = max(1, round(run.recipe.epochs * settings.scale))
    options += ["--epochs", str(epochs), "--save_freq", str(math.ceil(epochs / CHECKPOINTS))]
    options += ["--print_freq", "1000", "--num_workers", str(settings.num_workers)]
    options += ["--device", settings.device, "--model_path", str(settings.out)]
    options += ["--model_name", run.name, "--log_path", str(folder / "log.txt")]
    return Job(run, options, folder, data_folder, encoder, run.model in given, command)


def missing_pretraining(jobs: list[Job]) -> list[list[str]]:
    """Return the pre-trainings that jobs wait for, each a script with its options."""
    commands = []
    for job in jobs:
        waits = job.encoder is not None and not job.encoder_given and not job.encoder.is_file()
        if waits and job.pretraining is not None and job.pretraining not in commands:
            commands.append(job.pretraining)
    return commands


def check_inputs(jobs: list[Job]) -> None:
    """Raise an `InputError` if the data set or the encoder of a job isn't there."""
    for job in jobs:
        run, folder = job.run, job.data_folder
        if not folder.is_dir():
            raise InputError(
                f"{folder}: no such folder, {run.dataset} should be there: --data names the "
                "folder of all data sets, --datasets leaves some out"
            )
        images = run.imagelist(folder)
        if images is not None and not images.is_file():
            raise InputError(f"{images}: no such list of birds; --annotations leaves numbers out")
        if job.encoder is None or job.encoder.is_file():
            continue
        flag = f"--{'bird_' if run.recipe is BIRDS else ''}checkpoint {run.model}="
        if job.encoder_given:
            raise InputError(f"{flag}{job.encoder}: no such file")
        command = shlex.join(job.pretraining or [])
        first = f"; or pre-train it: python {command}" if command else ""
        raise InputError(
            f"no encoder for {run.name}: give {flag}FILE (published ones: see "
            f"datasets/download.py), or --random_network for a smoke run{first}"
        )
