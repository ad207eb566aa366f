"""Runs and the pre-trainings they need as jobs: their command lines, and what they wait for."""

import math
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from engine.reproduction.results import read_folder
from engine.reproduction.runs import (
    BIRDS,
    FEW_FACES,
    METHODS,
    PARTS,
    PER_EPOCH,
    PRETRAINING_EPOCHS,
    PROJECTED,
    Options,
    Run,
)
from models.encoders import RESNETS
from utils.errors import InputError

# The roots of README.md below datasets/, then shorter names.
ROOTS = {
    "MAFLAligned": ("celeba",),
    "AFLW_MTFL": ("face_datasets/aflw-mtfl", "aflw-mtfl"),
    "AFLW": ("face_datasets/aflw/aflw_release-2", "aflw/aflw_release-2", "aflw"),
    "ThreeHundredW": ("face_datasets/300w/300w", "300w/300w", "300w"),
    "CUB": ("CUB_200_2011", "CUB-200-2011", "cub"),
}
# [ref: README of the published code, "Train MoCo"]
PUBLISHED: Options = {"batch_size": 256, "num_workers": 12, "nce_k": 4096, "cosine": True}
INAT_LIST = "inat_aves_100K.txt"  # as datasets/download.py names it
CHECKPOINTS = 5  # [ours] a run: at most a fifth of it is lost when it is interrupted


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


@dataclass(frozen=True)
class Job:
    """A command line that writes to a folder of its own."""

    script: str
    options: Options
    folder: Path
    result: Path  # the file that is there when it is finished
    needed: Path | None = None  # the checkpoint that it begins with, if it does
    first: "Job | None" = None  # the job that makes that one, if one does
    published: tuple[str, ...] = ()  # the published command line that makes it otherwise
    complaint: str = ""  # what to tell the user if nothing makes it and it isn't there
    run: Run | None = None  # that it carries out; None for a pre-training

    @property
    def arguments(self) -> list[str]:
        """The options as words of a command line."""
        return as_words(self.options)

    @property
    def log_path(self) -> Path:
        """The file with all that it prints."""
        return self.folder / "log.txt"

    def outcome(self) -> str | None:
        """Return what came of it in words: epochs, or the score; None if it isn't finished."""
        if self.run is None:
            return f"{self.options['epochs']} epochs" if self.result.is_file() else None
        rows, metric = read_folder(self.folder), self.run.recipe.metric
        scores = (f"{row.headline:.2f} {metric.unit}" for row in rows)
        return f"{metric.name} {', '.join(scores)}" if rows else None

    def waits(self) -> bool:
        """Return whether the checkpoint that it begins with isn't there."""
        return self.needed is not None and not self.needed.is_file()

    def chain(self) -> list["Job"]:
        """Return it after those that have to be finished before it."""
        return [*(self.first.chain() if self.first else []), self]

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
    words = []
    for name, value in options.items():
        if value is not None:
            words += [f"--{name}"] if value is True else [f"--{name}", str(value)]
    return words


def with_pretrainings(jobs: Iterable[Job]) -> list[Job]:
    """Return jobs after the pre-trainings that they need, each once."""
    jobs = list(jobs)
    needed = [first for job in jobs for first in job.chain()[:-1]]
    return list({job.folder: job for job in [*needed, *jobs]}.values())


def find_root(data: Path, dataset: str) -> Path:
    """Return a data set's folder below another one; its usual place if it isn't there."""
    places = [data / place for place in ROOTS[dataset]]
    return next((place for place in places if place.is_dir()), places[0])


def make_evaluation(run: Run, settings: Settings) -> Job:
    """Return the job that carries out a run."""
    recipe, folder = run.recipe, settings.out / run.name
    needed, first, complaint = None, None, ""
    published: tuple[str, ...] = ()
    if run.method is not None:
        first = make_pretraining(run.method, run.model, settings)
        part = first.folder / f"ckpt_epoch_{run.part * settings.part_epochs}.pth"
        needed = first.result if run.part == PARTS else part
    elif run.encoder is None and not settings.random_network:
        needed, published, complaint = find_encoder(run, settings)
    options = run.options(find_root(settings.data, run.dataset))
    options |= {"trained_model_path": needed} if needed else {"random_network": True}
    # A checkpoint of a projection holds the encoder that it belongs to, too.
    options |= {"projection": needed} if run.encoder == PROJECTED else {}
    if recipe is FEW_FACES and settings.num_per_epoch != PER_EPOCH:
        options["num_per_epoch"] = settings.num_per_epoch
    amount = max(1, round(recipe.epochs * settings.scale))
    options[recipe.counted] = amount
    if run.pair is not None:
        options["out"] = folder
    else:
        options |= {"save_freq": math.ceil(amount / CHECKPOINTS), "print_freq": 1000}
        options |= {"model_path": settings.out, "model_name": run.name}
    options |= {"num_workers": settings.num_workers, "device": settings.device}
    options["log_path"] = folder / "log.txt"
    result = folder / recipe.result
    return Job(recipe.script, options, folder, result, needed, first, published, complaint, run)


def find_encoder(run: Run, settings: Settings) -> tuple[Path, tuple[str, ...], str]:
    """Return the user's encoder, or the place of the published one.

    With it come the published command line that makes it, if there is one, and what to say if the
    encoder isn't there. `train_moco.py` doesn't train all encoders.
    """
    is_birds, model = run.recipe is BIRDS, run.model
    given = dict(settings.bird_checkpoint if is_birds else settings.checkpoint)
    flag = f"--{'bird_' if is_birds else ''}checkpoint {model}="
    if model in given:
        return Path(given[model]), (), f"{flag}{given[model]}: no such file"
    options = {**PUBLISHED, "epochs": 800, "model": model}
    if is_birds:
        images = settings.data / "inat"
        options |= {"image_crop": 0, "image_size": 96, "dataset": "InatAve"}
        options |= {"data_folder": images, "imagelist": images / INAT_LIST}
    else:
        options |= {"image_crop": 20, "image_size": 136, "dataset": "CelebA"}
        options["data_folder"] = find_root(settings.data, "MAFLAligned")
    name = f"moco_{options['dataset']}_{model}"
    options |= {"model_name": name, "model_path": settings.out}
    command = ("train_moco.py", *as_words(options)) if model in RESNETS else ()
    complaint = (
        f"no encoder for {run.name}: give {flag}FILE (published ones: see datasets/download.py), "
        "or --random_network for a smoke run"
    )
    complaint += f"; or pre-train it: python {shlex.join(command)}" if command else ""
    return settings.out / name / "ckpt_epoch_800.pth", command, complaint


def make_pretraining(name: str, model: str, settings: Settings) -> Job:
    """Return the job that pre-trains an encoder by a method, a key of `METHODS`."""
    method, folder = METHODS[name], settings.out / f"pretraining-{name}-{model}"
    first = make_pretraining(method.first, model, settings) if method.first else None
    needed = first.result if first else None
    epochs = method.parts * settings.part_epochs
    options: Options = {"dataset": "CelebA", "image_size": 136, "image_crop": 20}
    options |= {"data_folder": find_root(settings.data, "MAFLAligned"), "model": model}
    options |= {**method.options, "init": needed, "epochs": epochs}
    options |= {"save_freq": settings.part_epochs, "print_freq": 1000, "seed": 0}
    options |= {"num_workers": settings.num_workers, "device": settings.device}
    options |= {"model_path": settings.out, "model_name": folder.name}
    result = folder / f"ckpt_epoch_{epochs}.pth"
    return Job(method.script, options, folder, result, needed, first)
