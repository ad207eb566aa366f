"""Runs and their pre-trainings as jobs: command lines, each of which goes on where it stopped."""

import math
import shlex
import subprocess
import sys
from argparse import ArgumentParser
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from engine.reproduction.experiments import (
    BIRDS,
    FEW_FACES,
    FINETUNE,
    MATCHING,
    METHODS,
    PARTS,
    PER_EPOCH,
    PRETRAINING_EPOCHS,
    Options,
    Run,
)
from engine.reproduction.tables import read_folder, write_tables
from engine.run.resumption import AUTO
from engine.run.settings import as_json
from models.encoders import RESNETS
from utils.arguments import neutral_options
from utils.errors import InputError
from utils.files import read_json, writing
from utils.log import Stopwatch

ROOT = Path(__file__).resolve().parents[2]  # of the scripts
GRACE = 10  # seconds from SIGTERM to SIGKILL
# The roots of README.md below datasets/, then shorter names.
ROOTS = {
    "CelebA": ("celeba",),
    "MAFLAligned": ("celeba",),
    "AFLW_MTFL": ("face_datasets/aflw-mtfl", "aflw-mtfl"),
    "AFLW": ("face_datasets/aflw/aflw_release-2", "aflw/aflw_release-2", "aflw"),
    "ThreeHundredW": ("face_datasets/300w/300w", "300w/300w", "300w"),
    "CUB": ("CUB_200_2011", "CUB-200-2011", "cub"),
    "InatAve": ("inat",),
}
# [ref: README of the published code, "Train MoCo"]
PUBLISHED: Options = {"batch_size": 256, "num_workers": 12, "nce_k": 4096, "cosine": True}
CELEBA: Options = {"dataset": "CelebA", "image_size": 136, "image_crop": 20}
INAT: Options = {"dataset": "InatAve", "image_size": 96, "image_crop": 0}
INAT_LIST = "inat_aves_100K.txt"  # as datasets/download.py names it
CHECKPOINTS = 5  # [ours] a run: at most a fifth of it is lost when it is interrupted
FINISHED, INTERRUPTED, MISSING = "finished", "interrupted", "missing"
OTHER = "run with other options"
STATES = (FINISHED, INTERRUPTED, MISSING, OTHER)


class Settings(NamedTuple):
    """What the user decides for all runs: flags of `reproduce.py`, by name."""

    out: Path
    data: Path
    checkpoint: list[tuple[str, str]]  # model and file
    bird_checkpoint: list[tuple[str, str]]
    random_network: bool
    scale: float  # a factor on the published number of epochs
    num_per_epoch: int
    num_workers: int
    device: str

    @property
    def part_epochs(self) -> int:
        """Epochs of a part of a pre-training."""
        return max(1, round(PRETRAINING_EPOCHS * self.scale / PARTS))

    def root(self, dataset: str) -> Path:
        """Return a data set's folder; its usual place if it isn't there."""
        places = [self.data / place for place in ROOTS[dataset]]
        return next((place for place in places if place.is_dir()), places[0])


@dataclass
class Job:
    """A command line that writes to a folder of its own, and how far it got."""

    script: str
    options: Options
    folder: Path
    result: Path  # the file that is there when it is finished
    run: Run | None = None  # that it carries out; None for a pre-training
    needed: Path | None = None  # the checkpoint that it begins with, if it does
    first: "Job | None" = None  # the job that makes that one, if one does
    published: tuple[str, ...] = ()  # the published command line that makes it otherwise
    complaint: str = ""  # what to tell the user if nothing makes it and it isn't there
    state: str = MISSING  # one of `STATES`, as `look` found
    differences: str = ""  # of the options that its folder holds

    def __post_init__(self) -> None:
        self.log_path = self.folder / "log.txt"  # all that it prints

    def look(self, parser: ArgumentParser) -> None:
        """Find out how far it got, given its script's parser."""
        self.state, self.differences = MISSING, ""
        is_begun = any(self.folder.glob("*.pth"))
        if not is_begun and not read_json(self.result):
            return
        held = read_json(self.folder / "options.json").get("options")
        if held is None and is_begun:  # resuming compares with the checkpoint's, and writes it
            self.state = INTERRUPTED
            return
        wanted = as_json(parser.parse_args(as_words(self.options)))
        # What an older record doesn't know was at its default.
        held = {name: (held or {}).get(name, parser.get_default(name)) for name in wanted}
        self.differences = ", ".join(
            f"--{name} {held[name]}, wanted {value}"
            for name, value in wanted.items()
            if name not in neutral_options() and held[name] != value
        )
        if self.differences:
            self.state = OTHER
        elif self.outcome() is not None:
            self.state = FINISHED
        elif is_begun:
            self.state = INTERRUPTED

    def outcome(self) -> str | None:
        """Return what came of it in words: epochs, or the score; None if it isn't finished."""
        if self.run is None:
            # The runs read its record, which resuming writes again.
            is_whole = self.result.is_file() and read_json(self.folder / "options.json")
            return f"{self.options['epochs']} epochs" if is_whole else None
        rows, metric = read_folder(self.folder), self.run.recipe.metric
        scores = (f"{row.headline:.2f} {metric.unit}" for row in rows)
        return f"{metric.name} {', '.join(scores)}" if rows else None

    def command(self) -> list[str]:
        """Return the script and its options that start or resume it."""
        command = [self.script, *as_words(self.options)]
        if self.state == INTERRUPTED:
            return [*command, "--resume", AUTO]
        # What only matches images overwrites unasked.
        is_redone = self.state == OTHER and "out" not in self.options
        return [*command, "--overwrite"] if is_redone else command

    def chain(self) -> list["Job"]:
        """Return it after those that have to be finished before it."""
        return [*(self.first.chain() if self.first else []), self]

    def waits(self) -> bool:
        """Return whether the checkpoint that it begins with isn't there."""
        return self.needed is not None and not self.needed.is_file()

    def check_inputs(self) -> None:
        """Raise an `InputError` if its images or its encoder aren't there."""
        data_folder, dataset = Path(self.options["data_folder"]), self.options["dataset"]
        images, model = self.options.get("imagelist"), self.options["model"]
        if not data_folder.is_dir():
            raise InputError(
                f"{data_folder}: no such folder, {dataset} should be there: --data names the "
                "folder of all data sets, --datasets leaves some out"
            )
        if images is not None and not Path(images).is_file():
            raise InputError(f"{images}: no such list of birds; --annotations leaves numbers out")
        if self.first is not None and model not in RESNETS:
            known = ", ".join(RESNETS)
            raise InputError(f"--models {model}: can't be pre-trained, expected {known}")
        if self.complaint and self.waits():
            raise InputError(self.complaint)


def as_words(options: Options) -> list[str]:
    """Return options as words of a command line: True is a flag alone, None is left out."""
    words = [
        [f"--{name}"] if value is True else [f"--{name}", str(value)]
        for name, value in options.items()
        if value is not None
    ]
    return [word for pair in words for word in pair]


def with_pretrainings(jobs: list[Job]) -> list[Job]:
    """Return jobs after the pre-trainings that they need, each once."""
    needed = [first for job in jobs for first in job.chain()[:-1]]
    return list({job.folder: job for job in [*needed, *jobs]}.values())


def make_evaluation(run: Run, settings: Settings) -> Job:
    """Return the job that carries out a run."""
    recipe, folder = run.recipe, settings.out / run.name
    options = run.options(settings.root(run.dataset))
    job = Job(recipe.script, options, folder, folder / recipe.result, run)
    if run.method is not None:
        job.first = make_pretraining(run.encoder or "", run.model, settings)
        epochs = min(run.part, run.method.parts) * settings.part_epochs
        job.needed = job.first.folder / f"ckpt_epoch_{epochs}.pth"
    elif run.encoder is None and not settings.random_network:
        find_encoder(job, run, settings)
    options |= {"trained_model_path": job.needed} if job.needed else {"random_network": True}
    # A checkpoint of a projection holds the encoder that it belongs to, too.
    options |= {"projection": job.needed} if run.encoder == "projected" else {}
    if recipe is FEW_FACES and settings.num_per_epoch != PER_EPOCH:
        options["num_per_epoch"] = settings.num_per_epoch
    options[recipe.counted] = amount = max(1, round(recipe.epochs * settings.scale))
    if recipe is MATCHING:
        options["out"] = folder
    else:
        options |= {"save_freq": math.ceil(amount / CHECKPOINTS), "print_freq": 1000}
        options |= {"model_path": settings.out, "model_name": run.name}
    options |= {"num_workers": settings.num_workers, "device": settings.device}
    options["log_path"] = job.log_path
    return job


def find_encoder(job: Job, run: Run, settings: Settings) -> None:
    """Let a run's job begin with the user's encoder, or the place of the published one."""
    is_birds, model = run.recipe is BIRDS, run.model
    given = dict(settings.bird_checkpoint if is_birds else settings.checkpoint)
    flag = f"--{'bird_' if is_birds else ''}checkpoint {model}="
    if model in given:
        job.needed, job.complaint = Path(given[model]), f"{flag}{given[model]}: no such file"
        return
    images = INAT if is_birds else CELEBA
    name, root = f"moco_{images['dataset']}_{model}", settings.root(images["dataset"])
    options = {**PUBLISHED, "epochs": 800, "model": model, **images, "data_folder": root}
    options |= {"imagelist": root / INAT_LIST if is_birds else None, "model_name": name}
    options["model_path"] = settings.out
    job.needed = settings.out / name / "ckpt_epoch_800.pth"
    job.complaint = (
        f"no encoder for {run.name}: give {flag}FILE (published ones: see datasets/download.py), "
        "or --random_network for a smoke run"
    )
    if model in RESNETS:  # others aren't trained by train_moco.py
        job.published = ("train_moco.py", *as_words(options))
        job.complaint += f"; or pre-train it: python {shlex.join(job.published)}"


def make_pretraining(name: str, model: str, settings: Settings) -> Job:
    """Return the job that pre-trains an encoder by a method, a key of `METHODS`."""
    method, folder = METHODS[name], settings.out / f"pretraining-{name}-{model}"
    first = make_pretraining(method.first, model, settings) if method.first else None
    needed = first.result if first else None
    epochs = method.parts * settings.part_epochs
    options = {**CELEBA, "data_folder": settings.root("CelebA"), "model": model}
    options |= {**method.options, "init": needed, "epochs": epochs}
    options |= {"save_freq": settings.part_epochs, "print_freq": 1000, "seed": 0}
    options |= {"num_workers": settings.num_workers, "device": settings.device}
    options |= {"model_path": settings.out, "model_name": folder.name}
    result = folder / f"ckpt_epoch_{epochs}.pth"
    return Job(method.script, options, folder, result, None, needed, first)


# ---- running ----


def run_jobs(jobs: list[Job], out: Path, lock: int) -> list[Job]:
    """Run what isn't finished, a line each; return the jobs that failed.

    Args:
        jobs: those after which others wait come first.
        out: the folder that receives the tables after each run.
        lock: file descriptor of a lock, which each command inherits.
    """
    failed = []
    for number, job in enumerate(jobs, 1):
        print(f"[{number}/{len(jobs)}] {job.folder.name}: ", end="", flush=True)
        # Asked again: it may have lacked but the record of its pre-training.
        if job.state != OTHER and job.outcome() is not None:
            print("finished before")
            continue
        if job.waits():
            print(f"left out: there is no {job.needed}")
            continue
        begun = "resumed, " if job.state == INTERRUPTED else ""
        script, *options = job.command()
        if not begun:  # an earlier one would be taken for this job's if it is killed
            job.result.unlink(missing_ok=True)
        watch = Stopwatch()
        try:
            status = run_logged([sys.executable, str(ROOT / script), *options], job.log_path, lock)
        except BaseException:
            print("stopped; the same command resumes from here")
            raise
        if (outcome := job.outcome()) is None:
            print(f"{begun}failed with status {status}, see {job.log_path}", flush=True)
            failed.append(job)
            continue
        print(f"{begun}{outcome} in {watch.seconds():.0f} s", flush=True)
        if job.run is not None and job.run.recipe is FINETUNE:
            # What only resuming needs is nine tenths of its files.
            for pattern in ("current.pth", "previous_*.pth", "ckpt_epoch_*.pth"):
                for path in job.folder.glob(pattern):
                    path.unlink(missing_ok=True)
        write_tables(out)
    return failed


def run_logged(command: list[str], log_path: Path, lock: int) -> int:
    """Run a command and return its exit status; it ends when this program ends.

    Its output is dropped (the scripts log it themselves), its errors are appended to a file.
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


def read_last_line(path: Path) -> str:
    """Return the last line of a log, which names a mistake."""
    lines = path.read_text(errors="replace").split("\n")
    return next(filter(str.strip, reversed(lines)), "(empty)")
