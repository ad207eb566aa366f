"""Pre-trainings: those that experiments run as jobs, and the published one of a run's encoder."""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from engine.reproduction.jobs import Job, Settings, find_root
from engine.reproduction.runs import BIRDS, PARTS, PRETRAINING_EPOCHS, PROJECTED, Encoder, Run
from models.encoders import RESNETS

# [ref: README of the published code, "Train MoCo"]
PUBLISHED = "--batch_size 256 --num_workers 12 --nce_k 4096 --cosine --epochs 800"
INAT_LIST = "inat_aves_100K.txt"  # as datasets/download.py names it
CELEBA = "--dataset CelebA --image_size 136 --image_crop 20"  # README of the published code


class Recipe(NamedTuple):
    """A method of pre-training: its script, and its options beside images, encoder and epochs."""

    script: str
    options: str


MOCO = Recipe("train_moco.py", "--batch_size 256 --nce_k 4096 --cosine")  # as published
# In float32 on every machine, as those before it.
DENSE = Recipe("train_dense.py", "--batch_size 32 --amp off")  # [spec 11]
# The second stage of arXiv:2006.14787 v2: the encoder stays, 256 channels as in its tables.
PROJECTION = Recipe("train_dense.py", "--batch_size 32 --freeze --dimensions 256 --amp off")


@dataclass(frozen=True)
class Pretraining(Job):
    """A pre-training, which leaves a checkpoint after each of its parts.

    Args:
        epochs: of all its parts together.
        part_epochs: of each part.
        first: the pre-training whose encoder it goes on with, if it does.
    """

    epochs: int
    part_epochs: int
    first: "Pretraining | None" = None

    def checkpoint(self, part: int) -> Path:
        """Return the checkpoint after a part, counted from 1."""
        return self.folder / f"ckpt_epoch_{part * self.part_epochs}.pth"

    @property
    def last(self) -> Path:
        """The checkpoint after all parts."""
        return self.checkpoint(self.epochs // self.part_epochs)

    def outcome(self) -> str | None:
        """Return how long it took, in epochs; None if it isn't finished."""
        return f"{self.epochs} epochs" if self.last.is_file() else None

    def needed_file(self) -> Path | None:
        """Return the checkpoint of the pre-training before it, if there is one."""
        return self.first.last if self.first else None

    def chain(self) -> list["Pretraining"]:
        """Return it after those before it."""
        return [*(self.first.chain() if self.first else []), self]


def make_pretraining(encoder: Encoder, model: str, settings: Settings) -> Pretraining:
    """Return the job that makes an encoder, or a projection, which takes the last part of all.

    So an encoder with a projection has seen as many pairs as one without.
    """
    if encoder == PROJECTED:
        first = make_job("projected_moco", MOCO, PARTS - 1, model, settings)
        return make_job("projected", PROJECTION, 1, model, settings, first)
    recipe = {"moco": MOCO, "dense": DENSE}[encoder.method]
    return make_job(encoder.method, recipe, PARTS, model, settings)


def make_job(
    name: str,
    recipe: Recipe,
    parts: int,
    model: str,
    settings: Settings,
    first: Pretraining | None = None,
) -> Pretraining:
    """Return a pre-training of so many parts, maybe of the encoder of another one."""
    images, folder = find_root(settings.data, "MAFLAligned"), f"pretraining-{name}-{model}"
    part_epochs = max(1, round(PRETRAINING_EPOCHS * settings.scale / PARTS))
    epochs = parts * part_epochs
    options = [*CELEBA.split(), "--data_folder", str(images), "--model", model]
    options += recipe.options.split()
    options += ["--init", str(first.last)] if first else []
    options += ["--epochs", str(epochs), "--save_freq", str(part_epochs)]
    options += ["--print_freq", "1000", "--seed", "0"]
    options += ["--num_workers", str(settings.num_workers), "--device", settings.device]
    options += ["--model_path", str(settings.out), "--model_name", folder]
    return Pretraining(
        script=recipe.script,
        options=options,
        folder=settings.out / folder,
        dataset="CelebA",
        data_folder=images,
        epochs=epochs,
        part_epochs=part_epochs,
        first=first,
    )


def published_pretraining(run: Run, data: Path, out: Path) -> tuple[list[str] | None, Path]:
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
        command = ["train_moco.py", *PUBLISHED.split(), "--model", run.model, *options]
        command += ["--model_name", name, "--model_path", str(out)]
    return command, out / name / "ckpt_epoch_800.pth"
