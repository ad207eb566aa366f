"""Pre-trainings: those that experiments run as jobs, and the published one of a run's encoder."""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from engine.reproduction.jobs import Job, Settings, find_root
from engine.reproduction.runs import BIRDS, PARTS, PRETRAINING_EPOCHS, Encoder, Run
from models.encoders import RESNETS

# [ref: README of the published code, "Train MoCo"]
PUBLISHED = "--batch_size 256 --num_workers 12 --nce_k 4096 --cosine --epochs 800"
INAT_LIST = "inat_aves_100K.txt"  # as datasets/download.py names it
CELEBA = "--dataset CelebA --image_size 136 --image_crop 20"  # README of the published code


class Recipe(NamedTuple):
    """A method of pre-training: its script, and its options beside images, encoder and epochs."""

    script: str
    options: str


RECIPES = {
    "moco": Recipe("train_moco.py", "--batch_size 256 --nce_k 4096 --cosine"),  # as published
    "dense": Recipe("train_dense.py", "--batch_size 32"),  # [spec 11]
}


@dataclass(frozen=True)
class Pretraining(Job):
    """A pre-training, which leaves a checkpoint after each of its `PARTS`.

    Args:
        epochs: of all parts together.
    """

    epochs: int

    def checkpoint(self, part: int) -> Path:
        """Return the checkpoint after a part, counted from 1."""
        return self.folder / f"ckpt_epoch_{self.epochs * part // PARTS}.pth"

    def outcome(self) -> str | None:
        """Return how long it took, in epochs; None if it isn't finished."""
        return f"{self.epochs} epochs" if self.checkpoint(PARTS).is_file() else None


def make_pretraining(encoder: Encoder, model: str, settings: Settings) -> Pretraining:
    """Return the job that makes an encoder."""
    recipe, images = RECIPES[encoder.method], find_root(settings.data, "MAFLAligned")
    folder = settings.out / f"pretraining-{encoder.method}-{model}"
    epochs = PARTS * max(1, round(PRETRAINING_EPOCHS * settings.scale / PARTS))
    options = [*CELEBA.split(), "--data_folder", str(images), "--model", model]
    options += [*recipe.options.split(), "--epochs", str(epochs)]
    options += ["--save_freq", str(epochs // PARTS), "--print_freq", "1000", "--seed", "0"]
    options += ["--num_workers", str(settings.num_workers), "--device", settings.device]
    options += ["--model_path", str(settings.out), "--model_name", folder.name]
    return Pretraining(recipe.script, options, folder, "CelebA", images, epochs)


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
