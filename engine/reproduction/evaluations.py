"""Evaluations of encoders as jobs: their command lines, and what they wait for."""

import math
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from engine.reproduction.jobs import Job, JobState, Settings, find_root
from engine.reproduction.pretraining import (
    Pretraining,
    make_pretraining,
    published_pretraining,
)
from engine.reproduction.results import read_folder
from engine.reproduction.runs import (
    BIRDS,
    FEW_FACES,
    FINETUNE,
    MATCHING,
    PER_EPOCH,
    PROJECTED,
    UNITS,
    Run,
)
from models.encoders import RESNETS
from utils.errors import InputError

CHECKPOINTS = 5  # [ours] a run: at most a fifth of it is lost when it is interrupted


@dataclass(frozen=True)
class Evaluation(Job):
    """A run with its command line and its folder.

    Args:
        run: the run, by what its results depend on.
        encoder: the checkpoint it needs; None for an untrained one.
        encoder_given: whether the user named that file.
        pretraining: the job that makes the file, if one does.
        published: the published command line that makes it otherwise; None if there isn't any.
    """

    run: Run
    encoder: Path | None
    encoder_given: bool
    pretraining: Pretraining | None
    published: list[str] | None

    def outcome(self) -> str | None:
        """Return its score in words; None if it isn't finished."""
        rows = read_folder(self.folder)
        metric = self.run.recipe.metric
        scores = (f"{row.headline:.2f} {UNITS[metric]}" for row in rows)
        return f"{metric} {', '.join(scores)}" if rows else None

    def needed_file(self) -> Path | None:
        """Return its encoder."""
        return self.encoder

    @property
    def result_path(self) -> Path:
        """See `Job`."""
        return self.folder / self.run.recipe.result

    def options_from(self, state: JobState) -> list[str]:
        """See `Job`; what only matches images has nothing to resume."""
        return self.options if self.run.recipe is MATCHING else super().options_from(state)

    def useless_files(self) -> list[Path]:
        """Return what fine-tuning would resume from: nine tenths of its files."""
        if self.run.recipe is not FINETUNE:
            return []
        patterns = ("current.pth", "previous_*.pth", "ckpt_epoch_*.pth")
        return [path for pattern in patterns for path in self.folder.glob(pattern)]


def make_evaluation(run: Run, settings: Settings) -> Evaluation:
    """Return the command line and the folder of a run."""
    data_folder, folder = find_root(settings.data, run.dataset), settings.out / run.name
    options = run.options(data_folder)
    given = settings.bird_encoders if run.recipe is BIRDS else settings.face_encoders
    encoder: Path | None = None
    is_given = False
    pretraining: Pretraining | None = None
    published: list[str] | None = None
    if run.encoder is None and not settings.random_network:
        published, made = published_pretraining(run, settings.data, settings.out)
        encoder, is_given = Path(given.get(run.model, made)), run.model in given
    elif run.pretrained is not None:
        pretraining = make_pretraining(run.pretrained, run.model, settings)
        part = run.pretrained.part
        encoder = pretraining.last if pretraining.first else pretraining.checkpoint(part)
    options += ["--trained_model_path", str(encoder)] if encoder else ["--random_network"]
    # A checkpoint of a projection holds the encoder that it belongs to, too.
    options += ["--projection", str(encoder)] if run.encoder == PROJECTED else []
    if run.recipe is FEW_FACES and settings.num_per_epoch != PER_EPOCH:
        options += ["--num_per_epoch", str(settings.num_per_epoch)]
    amount = max(1, round(run.recipe.epochs * settings.scale))
    options += [f"--{run.recipe.counted}", str(amount)]
    if run.recipe is MATCHING:
        options += ["--out", str(folder)]
    else:
        options += ["--save_freq", str(math.ceil(amount / CHECKPOINTS)), "--print_freq", "1000"]
        options += ["--model_path", str(settings.out), "--model_name", run.name]
    options += ["--num_workers", str(settings.num_workers), "--device", settings.device]
    options += ["--log_path", str(folder / "log.txt")]
    return Evaluation(
        script=run.recipe.script,
        options=options,
        folder=folder,
        dataset=run.dataset,
        data_folder=data_folder,
        run=run,
        encoder=encoder,
        encoder_given=is_given,
        pretraining=pretraining,
        published=published,
    )


def with_pretrainings(evaluations: Iterable[Evaluation]) -> list[Job]:
    """Return evaluations after the pre-trainings that they need, each job once."""
    evaluations = list(evaluations)
    needed: list[Job] = [p for e in evaluations if e.pretraining for p in e.pretraining.chain()]
    return list({job.folder: job for job in [*needed, *evaluations]}.values())


def missing_pretraining(jobs: Iterable[Job]) -> list[list[str]]:
    """Return the published pre-trainings that jobs wait for, each a script with its options."""
    commands: list[list[str]] = []
    for job in jobs:
        if not isinstance(job, Evaluation) or job.published is None or job.encoder_given:
            continue
        if job.waits() and job.published not in commands:
            commands.append(job.published)
    return commands


def check_inputs(jobs: Iterable[Job]) -> None:
    """Raise an `InputError` if the data set or the encoder of a job isn't there."""
    for job in jobs:
        folder = job.data_folder
        if not folder.is_dir():
            raise InputError(
                f"{folder}: no such folder, {job.dataset} should be there: --data names the "
                "folder of all data sets, --datasets leaves some out"
            )
        if isinstance(job, Evaluation):
            check_evaluation(job)


def check_evaluation(job: Evaluation) -> None:
    """Raise an `InputError` if the images or the encoder of an evaluation aren't there."""
    run = job.run
    images = run.imagelist(job.data_folder)
    if images is not None and not images.is_file():
        raise InputError(f"{images}: no such list of birds; --annotations leaves numbers out")
    if job.pretraining is not None:
        if run.model not in RESNETS:
            known = ", ".join(RESNETS)
            raise InputError(f"--models {run.model}: can't be pre-trained, expected {known}")
        return
    if not job.waits():
        return
    flag = f"--{'bird_' if run.recipe is BIRDS else ''}checkpoint {run.model}="
    if job.encoder_given:
        raise InputError(f"{flag}{job.encoder}: no such file")
    command = shlex.join(job.published or [])
    first = f"; or pre-train it: python {command}" if command else ""
    raise InputError(
        f"no encoder for {run.name}: give {flag}FILE (published ones: see "
        f"datasets/download.py), or --random_network for a smoke run{first}"
    )
