"""The runs that experiments consist of: which command line tests which encoder on what.

A `Run` is one command line of an evaluation script, named after what it depends on, so that
experiments which need the same run share it.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple


@dataclass(frozen=True)
class Recipe:
    """What the runs on one kind of data have in common: the published options.

    Args:
        script: that trains and tests, such as ``eval_face.py``.
        options: of the script, without data, encoder and epochs.
        epochs: as published; or how many of what ``counted`` counts.
        metric: what the script measures, a key of `UNITS`.
        counted: the flag that says how much a run does, which a user may scale down.
        name: ends the name of a run's folder; empty for the published readouts.
        result: the file in a run's folder that is written at its end.
    """

    script: str
    options: str
    epochs: int
    metric: str
    counted: str = "epochs"
    name: str = ""
    result: str = "result.json"

    @property
    def counted_words(self) -> str:
        """What the flag counts, such as steps."""
        return self.counted.rsplit("_", 1)[-1]


FACE_METRIC, BIRD_METRIC, MATCHING_METRIC = "InterOcularError", "PCK", "MatchingDistance"
UNITS = {FACE_METRIC: "%", BIRD_METRIC: "%", MATCHING_METRIC: "px"}
# [ref: README of the published code, "Landmark Regression"] all three.
FIT = "--batch_size 32 --adam --cosine"
FACES = Recipe(
    "eval_face.py",
    f"--image_size 136 --image_crop 20 {FIT} --learning_rate 0.001 --weight_decay 0.0005",
    epochs=200,
    metric=FACE_METRIC,
)
FEW_FACES = Recipe(
    "eval_face.py",
    f"--image_size 136 --image_crop 20 {FIT} --learning_rate 0.01 --weight_decay 0.05 "
    "--repeat --TPS_aug",
    epochs=1000,
    metric=FACE_METRIC,
)
BIRDS = Recipe(
    "eval_animal.py",
    f"--image_size 96 --image_crop 0 {FIT} --learning_rate 0.001 --weight_decay 0.0005",
    epochs=2000,
    metric=BIRD_METRIC,
)
FRAME = "--image_size 136 --image_crop 20 --batch_size 32"
# [ours: spec 12; no epochs, since its solution is in closed form]
RIDGE = Recipe(
    "eval_face.py", f"{FRAME} --regressor ridge", epochs=1, metric=FACE_METRIC, name="ridge"
)
FINETUNE = Recipe(  # [ours: spec 14]
    "eval_face.py",
    f"{FRAME} --regressor finetune --keep_last 1",
    epochs=300,
    metric=FACE_METRIC,
    counted="finetune_steps",
    name="finetune",
)
MATCHING = Recipe(  # [spec 13]
    "eval_matching.py",
    FRAME,
    epochs=1000,
    metric=MATCHING_METRIC,
    counted="pairs",
    name="matching",
    result="matching.json",
)
PAIRS = {"warped": "an image and its warp", "others": "two images"}
"""Kinds of pairs that are matched, and what a table calls them."""
PER_EPOCH = 1000  # [spec 8] images an epoch of a few-shot run

Features = tuple[int, bool]
"""``--layer`` and ``--use_hypercol``."""

HYPERCOLUMN: Features = (4, True)  # conv2_x to conv5_x, the paper's choice


PRETRAINING_EPOCHS = 10  # [ours: README.md, "Minutes in place of days"]
PARTS = 5  # of a pre-training, after each of which a checkpoint stays


class Encoder(NamedTuple):
    """An encoder that the experiments make themselves.

    Attributes:
        method: of pre-training, a key of `METHODS`; or ``untrained``.
        part: parts of the pre-training that are done, of `PARTS`.
    """

    method: str
    part: int

    @property
    def name(self) -> str:
        """What ends the name of a run's folder."""
        return self.method + ("" if self.part in (0, PARTS) else f"_{self.part}of{PARTS}")


UNTRAINED = Encoder("untrained", 0)
METHODS = {"moco": "MoCo", "dense": "dense", "projected": "MoCo + projection"}
"""Methods of pre-training, and what a table calls them."""
PRETRAINED = tuple(Encoder(method, PARTS) for method in ("moco", "dense"))
PROJECTED = Encoder("projected", PARTS)
PRETRAINING_PARTS = tuple(
    Encoder(encoder.method, part) for encoder in PRETRAINED for part in range(1, PARTS + 1)
)
ENCODERS = {encoder.name: encoder for encoder in (UNTRAINED, *PRETRAINING_PARTS, PROJECTED)}


@dataclass(frozen=True)
class Run:
    """One command line; one of its figures, where it has several.

    Args:
        recipe: its script and the published options.
        dataset: name of the benchmark, as the script's ``--dataset`` takes it.
        model: name of the encoder, such as ``resnet50``.
        features: layer, 1 to 5, and whether to take the hypercolumn from there on.
        annotations: number of annotated training images; None for all.
        seed: of everything random, the choice of few annotated images included.
        encoder: one of `ENCODERS`; None for the user's, or the published one.
        pair: kind of pairs that the figure is of, a key of `PAIRS`, if images are matched.
    """

    recipe: Recipe
    dataset: str
    model: str
    features: Features = HYPERCOLUMN
    annotations: int | None = None
    seed: int = 0
    encoder: Encoder | None = None
    pair: str | None = None

    @property
    def name(self) -> str:
        """Its folder's name."""
        layer, use_hypercol = self.features
        parts = [self.dataset, self.model, f"{'hypercolumn' if use_hypercol else 'layer'}{layer}"]
        if self.annotations is not None:
            parts.append(f"{self.annotations}annos")
        if self.annotations is not None and self.recipe is not BIRDS:
            parts.append(f"seed{self.seed}")
        parts += [self.recipe.name] if self.recipe.name else []
        parts += [self.encoder.name] if self.encoder is not None else []
        return "-".join(parts)

    @property
    def pretrained(self) -> Encoder | None:
        """The encoder, if the experiments pre-train it."""
        return None if self.encoder == UNTRAINED else self.encoder

    def options(self, data_folder: Path) -> list[str]:
        """Return the script's options that say what is computed, except for encoder and epochs."""
        layer, use_hypercol = self.features
        options = ["--dataset", self.dataset, "--data_folder", str(data_folder)]
        options += ["--model", self.model, "--layer", str(layer)]
        options += ["--use_hypercol"] if use_hypercol else []
        options += self.recipe.options.split()
        if (images := self.imagelist(data_folder)) is not None:
            options += ["--imagelist", str(images)]
        elif self.annotations is not None:
            options += ["--restrict_annos", str(self.annotations)]
        return [*options, "--seed", str(self.seed)]

    def imagelist(self, data_folder: Path) -> Path | None:
        """Return the list of annotated birds; None for faces."""
        if self.recipe is not BIRDS:
            return None
        suffix = "" if self.annotations is None else f"_{self.annotations}"
        return data_folder / "split" / f"train{suffix}.txt"


def runs_of_options(options: dict, name: str) -> list[Run]:
    """Return the run that recorded options belong to, once for each of its figures.

    The name of its folder says how its encoder was made, of which the options know but the file.

    Raises:
        KeyError: if they are another script's.
    """
    annotations, recipe = None, FACES
    if "pairs" in options:
        recipe = MATCHING
    elif options["dataset"] == "CUB":
        recipe = BIRDS
        number = Path(options["imagelist"] or "train.txt").stem.removeprefix("train_")
        annotations = int(number) if number.isdecimal() else None
    elif options["restrict_annos"] > 0:
        recipe, annotations = FEW_FACES, options["restrict_annos"]
    for readout in (RIDGE, FINETUNE):
        if options.get("regressor") == readout.name:  # a flag that older records lack
            recipe = readout
    return [
        Run(
            recipe,
            options["dataset"],
            options["model"],
            (options["layer"], options["use_hypercol"]),
            annotations,
            options["seed"],
            ENCODERS.get(name.rsplit("-", 1)[-1]),
            pair,
        )
        for pair in (PAIRS if recipe is MATCHING else (None,))
    ]
