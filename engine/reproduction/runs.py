"""What experiments are made of: which encoder is tested by which script, on what.

A `Run` is one command line of an evaluation script, named after what it depends on, so that
experiments which need the same run share it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from models.encoders import RESNETS

MODELS = (*RESNETS, "hourglass")
Options = dict[str, Any]
"""Options of a script by name; True is a flag alone, None one that isn't given."""


# ---- how an encoder is tested ----


class Metric(NamedTuple):
    """What a script measures on the test images."""

    name: str  # in result.json
    unit: str
    label: str  # of a curve's axis
    note: str  # how to read a table of it
    best: str = "best_error"  # entry of result.json with the best epoch's score
    picked_on: str = "Test"  # where that epoch is the best; its score is quoted if it is Val


FACE_ERROR = Metric(
    *("InterOcularError", "%", "test error, % of the inter-ocular distance"),
    "Test error after the last epoch, in % of the inter-ocular distance: lower is better.",
)
PCK = Metric(
    *("PCK", "%", "test PCK, % of the visible parts"),
    "Test PCK (as published: distances cut to whole pixels) of the epoch with the best validation "
    "PCK, in %: higher is better.",
    *("best_test_pck", "Val"),
)
DISTANCE = Metric(
    *("MatchingDistance", "px", "mean distance, pixels of the network input"),
    "Mean distance from the truth, in pixels of the network input, whose side has 96: lower is "
    "better.",
)


@dataclass(frozen=True, eq=False)
class Recipe:
    """What the runs on one kind of data have in common: the published options."""

    script: str  # that trains and tests, such as eval_face.py
    options: Options  # of the script, without data, encoder and epochs
    epochs: int  # as published; or how many of what `counted` counts
    metric: Metric = FACE_ERROR
    counted: str = "epochs"  # the flag that says how much a run does, which a user may scale down
    name: str = ""  # ends the name of a run's folder; empty for the published readouts
    result: str = "result.json"  # the file in a run's folder that is written at its end

    @property
    def counted_words(self) -> str:
        """What the flag counts, such as steps."""
        return self.counted.rsplit("_", 1)[-1]


FRAME: Options = {"image_size": 136, "image_crop": 20, "batch_size": 32}
# [ref: README of the published code, "Landmark Regression"] the first three.
FIT: Options = {**FRAME, "adam": True, "cosine": True}
SMALL: Options = {"learning_rate": 0.001, "weight_decay": 0.0005}
FACES = Recipe("eval_face.py", FIT | SMALL, epochs=200)
LARGE: Options = {"learning_rate": 0.01, "weight_decay": 0.05, "repeat": True, "TPS_aug": True}
FEW_FACES = Recipe("eval_face.py", FIT | LARGE, epochs=1000)
BIRD_FRAME: Options = {"image_size": 96, "image_crop": 0}
BIRDS = Recipe("eval_animal.py", FIT | SMALL | BIRD_FRAME, epochs=2000, metric=PCK)
# [ours: spec 12; no epochs, since its solution is in closed form]
RIDGE = Recipe("eval_face.py", FRAME | {"regressor": "ridge"}, epochs=1, name="ridge")
KEPT: Options = {"regressor": "finetune", "keep_last": 1}
FINETUNE = Recipe(  # [ours: spec 14]
    "eval_face.py", FRAME | KEPT, epochs=300, counted="finetune_steps", name="finetune"
)
MATCHING = Recipe(  # [spec 13]
    "eval_matching.py", FRAME, 1000, DISTANCE, "pairs", name="matching", result="matching.json"
)
PAIRS = {"warped": "an image and its warp", "others": "two images"}
"""Kinds of pairs that are matched, and what a table calls them."""
PER_EPOCH = 1000  # [spec 8] images an epoch of a few-shot run
HYPERCOLUMN = (4, True)  # --layer, --use_hypercol: conv2_x to conv5_x, the paper's choice


# ---- how an encoder is made ----

PRETRAINING_EPOCHS = 10  # [ours: README.md, "Minutes in place of days"]
PARTS = 5  # of a pre-training, after each of which a checkpoint stays


class Method(NamedTuple):
    """A method of pre-training."""

    label: str  # what a table calls it
    script: str
    options: Options  # of the script, beside images, encoder and epochs
    parts: int = PARTS  # that it takes, of `PARTS`
    first: str = ""  # the method that makes the encoder which it goes on with


MOCO: Options = {"batch_size": 256, "nce_k": 4096, "cosine": True}  # as published
# In float32 on every machine, as those before it. [spec 11]
DENSE: Options = {"batch_size": 32, "amp": "off"}
# The second stage of arXiv:2006.14787 v2: the encoder stays, 256 channels as in its tables.
PROJECTION: Options = {"batch_size": 32, "freeze": True, "dimensions": 256, "amp": "off"}
METHODS = {
    "moco": Method("MoCo", "train_moco.py", MOCO),
    "dense": Method("dense", "train_dense.py", DENSE),
    # So an encoder with a projection has seen as many pairs as one without.
    "projected_moco": Method("MoCo before a projection", "train_moco.py", MOCO, PARTS - 1),
    "projected": Method("MoCo + projection", "train_dense.py", PROJECTION, 1, "projected_moco"),
}
PROJECTED, UNTRAINED, PRETRAINED = "projected", "untrained", ("moco", "dense")
STEPS = tuple(
    f"{method}_{part}of{PARTS}" if part < PARTS else method
    for method in PRETRAINED
    for part in range(1, PARTS + 1)
)
ENCODERS = (None, UNTRAINED, *STEPS, PROJECTED)
"""How an encoder is made: by the user or the paper, not at all, by (a part of) a method."""


@dataclass(frozen=True)
class Run:
    """One command line; one of its figures, where it has several."""

    recipe: Recipe
    dataset: str  # name of the benchmark, as the script's --dataset takes it
    model: str  # name of the encoder, such as resnet50
    features: tuple[int, bool] = HYPERCOLUMN
    annotations: int | None = None  # number of annotated training images; None for all
    seed: int = 0  # of everything random, the choice of few annotated images included
    encoder: str | None = None  # how it is made, one of `ENCODERS`
    pair: str | None = None  # kind of pairs that the figure is of, if images are matched

    @property
    def name(self) -> str:
        """Its folder's name."""
        layer, use_hypercol = self.features
        parts = [self.dataset, self.model, f"{'hypercolumn' if use_hypercol else 'layer'}{layer}"]
        if self.annotations is not None:
            parts.append(f"{self.annotations}annos")
            parts += [] if self.recipe is BIRDS else [f"seed{self.seed}"]
        return "-".join([*parts, *filter(None, (self.recipe.name, self.encoder))])

    @property
    def method(self) -> str | None:
        """The method that the experiments pre-train its encoder by, a key of `METHODS`."""
        if self.encoder is None or self.encoder == UNTRAINED:
            return None
        return self.encoder.partition("_")[0]

    @property
    def part(self) -> int:
        """Parts of the encoder's pre-training that are done, of `PARTS`."""
        if self.encoder == UNTRAINED:
            return 0
        return int((self.encoder or "").partition("_")[2][:1] or PARTS)

    def options(self, data_folder: Path) -> Options:
        """Return the script's options that say what is computed, except for encoder and epochs."""
        layer, use_hypercol = self.features
        images, count = None, self.annotations
        if self.recipe is BIRDS:  # they have lists of the annotated ones
            suffix = "" if count is None else f"_{count}"
            images, count = str(data_folder / "split" / f"train{suffix}.txt"), None
        data = {"dataset": self.dataset, "data_folder": str(data_folder), "model": self.model}
        features = {"layer": layer, "use_hypercol": use_hypercol or None}
        which = {"imagelist": images, "restrict_annos": count, "seed": self.seed}
        return {**data, **features, **self.recipe.options, **which}

    def is_recorded(self, held: Mapping) -> bool:
        """Whether options that were recorded are its own, but for encoder and epochs."""
        absent = {"restrict_annos": -1, "use_hypercol": False}
        wanted = self.options(Path(held["data_folder"])).items()
        given = {name: value for name, value in wanted if value is not None}
        # Older records lack some.
        return all(held.get(name, value) == value for name, value in {**absent, **given}.items())
