"""The experiments as data: which runs make which table or figure, and the published figures.

A `Run` is one command line of an evaluation script, named after what it depends on, so that
experiments which need the same run share it.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from models.encoders import RESNETS
from models.matching import PAIRS

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
    "InterOcularError",
    "%",
    "test error, % of the inter-ocular distance",
    "Test error after the last epoch, in % of the inter-ocular distance: lower is better.",
)
PCK = Metric(
    "PCK",
    "%",
    "test PCK, % of the visible parts",
    "Test PCK (as published: distances cut to whole pixels) of the epoch with the best validation "
    "PCK, in %: higher is better.",
    "best_test_pck",
    "Val",
)
DISTANCE = Metric(
    "MatchingDistance",
    "px",
    "mean distance, pixels of the network input",
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
    counts: str = "epochs"  # what that is, in words
    name: str = ""  # ends the name of a run's folder; empty for the published readouts
    result: str = "result.json"  # the file in a run's folder that is written at its end


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
    "eval_face.py", FRAME | KEPT, 300, FACE_ERROR, "finetune_steps", "steps", "finetune"
)
MATCHING = Recipe(  # [spec 13]
    "eval_matching.py", FRAME, 1000, DISTANCE, "pairs", "pairs", "matching", "matching.json"
)
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
UNTRAINED = "untrained"


@dataclass(frozen=True)
class Run:
    """One command line."""

    recipe: Recipe
    dataset: str  # name of the benchmark, as the script's --dataset takes it
    model: str  # name of the encoder, such as resnet50
    features: tuple[int, bool] = HYPERCOLUMN
    annotations: int | None = None  # number of annotated training images; None for all
    seed: int = 0  # of everything random, the choice of few annotated images included
    encoder: str | None = None  # `UNTRAINED`, a key of `METHODS`, or None: the user's
    part: int = PARTS  # of the encoder's pre-training that is done, of `PARTS`

    @property
    def name(self) -> str:
        """Its folder's name."""
        layer, use_hypercol = self.features
        parts = [self.dataset, self.model, f"{'hypercolumn' if use_hypercol else 'layer'}{layer}"]
        if self.annotations is not None:
            parts.append(f"{self.annotations}annos")
            parts += [] if self.recipe is BIRDS else [f"seed{self.seed}"]
        parts += [self.recipe.name] if self.recipe.name else []
        if self.encoder is not None:
            parts.append(self.encoder + (f"_{self.part}of{PARTS}" if 0 < self.part < PARTS else ""))
        return "-".join(parts)

    @property
    def method(self) -> Method | None:
        """The method that the experiments pre-train its encoder by, if they do."""
        return METHODS.get(self.encoder or "")

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
        wanted = self.options(Path(held["data_folder"]))
        absent = {"restrict_annos": -1, "use_hypercol": False}  # what None stands for
        wanted = {name: absent.get(name) if v is None else v for name, v in wanted.items()}
        return all(held.get(name, v) == v for name, v in wanted.items())  # older ones lack some


# ---- tables ----

Chosen = Sequence[str] | None
"""What a user chose, or None for all."""


class Published(NamedTuple):
    """A row of published figures."""

    method: str  # the row's label
    figures: dict[Any, float]  # test score, by the column
    source: str = ""  # where the figures were published; empty if there are none
    model: str | None = None  # encoder of the runs that repeat the row; None of another method


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """A set of runs that fill a table: a row for each model, a column for each value of an axis.

    There is a run for each combination of ``models``, ``datasets`` and so on.
    """

    title: str  # of its table
    recipe: Recipe  # script and published options of its runs
    axis: str  # what says a figure's column: an attribute of its run, or the pair
    columns: dict[Any, str]  # labels by the column's value, in order
    models: tuple[str, ...] = ("resnet18", "resnet50")  # unless the user chooses others
    datasets: tuple[str, ...] = ("MAFLAligned",)
    features: tuple[tuple[int, bool], ...] = (HYPERCOLUMN,)
    encoders: tuple[tuple[str | None, int], ...] = ((None, PARTS),)  # and parts of pre-training
    annotations: tuple[int | None, ...] = (None,)
    repeated: bool = False  # whether runs with few annotations are repeated with several seeds
    axis_label: str = ""  # of the curve's axis; empty if there is no curve
    baseline: str = "mean shape of the training images"  # the least that has to be beaten
    published: tuple[Published, ...] = ()  # rows below the table's own
    note: str = ""  # what a reader must know of the numbers

    def runs(
        self, models: Chosen, datasets: Chosen = None, annotations: Chosen = None, seeds: int = 1
    ) -> list[Run]:
        """Return its runs; each argument but ``seeds`` narrows them down, unless it is None.

        ``annotations`` are labels of `FEW_OR_ALL`; they leave an experiment alone that has no
        choice of them.
        """
        found = []
        for model, dataset, features, (encoder, part), count in itertools.product(
            models or self.models, self.datasets, self.features, self.encoders, self.annotations
        ):
            if datasets and dataset not in datasets:
                continue
            if annotations and len(self.annotations) > 1 and FEW_OR_ALL[count] not in annotations:
                continue
            # The options for few faces aren't those for all.
            recipe = FACES if self.recipe is FEW_FACES and count is None else self.recipe
            for seed in range(seeds if self.repeated and count is not None else 1):
                found.append(Run(recipe, dataset, model, features, count, seed, encoder, part))
        return found


SCE_MAE = "SCE-MAE (CVPR 2024), table 2, its re-evaluation of the published checkpoint"
DVE_README = "README of DVE's repository"
FACE_NAMES = {
    "MAFLAligned": "MAFL",
    "AFLW_MTFL": "AFLW_M",
    "AFLW": "AFLW_R",
    "ThreeHundredW": "300-W",
}


def face_figures(*figures: float) -> dict[str, float]:
    """Return figures in the order MAFL, AFLW_M, AFLW_R, 300-W by data set."""
    return dict(zip(FACE_NAMES, figures, strict=True))


CL = "CL, ResNet-50, hypercolumn"
LAYERS = {5: "conv5_x", 4: "conv4_x", 3: "conv3_x", 2: "conv2_x", 1: "max pool"}
HYPERCOLUMNS = {(count, True): f"hypercolumn of {count}" for count in range(1, 6)}
SINGLES = {(layer, False): f"{name} alone" for layer, name in LAYERS.items()}
FEW: dict[int | None, str] = {n: str(n) for n in (1, 5, 10, 20, 50, 100)}
FEW_OR_ALL = {**FEW, None: "all"}
PAPER_V2 = "Cheng et al., arXiv:2006.14787 v2"
EQUAL_PAIRS = (
    "The encoders of one model saw the same images in the same number of epochs: as many pairs of "
    "views. All else of a pre-training is at the published options, or at our defaults."
)
PROJECTION_PAIRS = (
    f"MoCo + projection is a MoCo of its own that ends after {PARTS - 1} of {PARTS} parts of the "
    "epochs; in the last part its linear projection to 256 channels is trained, the encoder "
    "frozen. So it saw as many pairs as the others, though its encoder fewer."
)
NOT_TRAINED = (UNTRAINED, 0)
COMPARED = (NOT_TRAINED, ("moco", PARTS), ("dense", PARTS), ("projected", PARTS))
STEPS = tuple((method, part) for method in ("moco", "dense") for part in range(1, PARTS + 1))
BIRD_LISTS = {n: FEW_OR_ALL[n] for n in (10, 50, 100, None)}

BY_ANNOTATIONS = Experiment(
    title="Encoders by number of annotated faces, ridge readout, MAFL",
    recipe=RIDGE,
    axis="annotations",
    columns=FEW_OR_ALL,
    axis_label="annotated faces",
    models=("resnet18",),
    encoders=COMPARED,
    annotations=tuple(FEW_OR_ALL),
    repeated=True,
    note=f"{EQUAL_PAIRS} {PROJECTION_PAIRS}",
)

EXPERIMENTS = {
    "faces": Experiment(
        title="Face benchmarks, all annotations",
        recipe=FACES,
        axis="dataset",
        columns=FACE_NAMES,
        datasets=tuple(FACE_NAMES),
        published=(
            Published(CL, face_figures(2.76, 6.17, 5.69, 4.84), SCE_MAE, "resnet50"),
            Published("DVE, hourglass", face_figures(2.76, 6.96, 6.33, 4.58), SCE_MAE),
            Published("LEAD", face_figures(2.44, 6.05, 5.71, 4.87), SCE_MAE),
            Published("DVE, hourglass", face_figures(2.86, 7.53, 6.54, 4.65), DVE_README),
        ),
        note="The paper stopped early, at epoch 120 on MAFL, 45 on AFLW and 80 on 300-W, for want "
        "of a validation set. Ours is the last epoch; log.jsonl in a run's folder has them all.",
    ),
    "few_shot": Experiment(
        title="Few annotated faces, AFLW_M",
        recipe=FEW_FACES,
        axis="annotations",
        columns=FEW,
        axis_label="annotated faces",
        datasets=("AFLW_MTFL",),
        annotations=tuple(FEW),
        repeated=True,
        published=(Published(CL, {}, model="resnet50"),),
        note="Each seed picks other faces to annotate.",
    ),
    "layers": Experiment(
        title="Layers of the hypercolumn, AFLW_M",
        recipe=FACES,
        axis="features",
        columns=HYPERCOLUMNS | SINGLES,
        axis_label="shallowest map used",
        models=("resnet50",),
        datasets=("AFLW_MTFL",),
        features=(*HYPERCOLUMNS, *SINGLES),
        published=(Published(CL, {HYPERCOLUMN: 6.17}, SCE_MAE, "resnet50"),),
        note="A hypercolumn takes its maps from the deepest, conv5_x, up to the max pool.",
    ),
    "cub": Experiment(
        title="Parts of birds by number of annotations, CUB",
        recipe=BIRDS,
        axis="annotations",
        columns=BIRD_LISTS,
        axis_label="annotated birds",
        datasets=("CUB",),
        annotations=tuple(BIRD_LISTS),
        published=(Published(CL, {}, model="resnet50"),),
    ),
    "encoders": BY_ANNOTATIONS,
    "regressor": replace(
        BY_ANNOTATIONS,
        title="Encoders by number of annotated faces, published regressor, MAFL",
        recipe=FEW_FACES,
    ),
    "finetune": replace(
        BY_ANNOTATIONS,
        title="Encoders by number of annotated faces, fine-tuned, MAFL",
        recipe=FINETUNE,
        encoders=COMPARED[:-1],
        note="From 100 annotated faces on, some are held out to choose when to stop. "
        f"{EQUAL_PAIRS} Fine-tuning changes the encoder, so there is no projection of it.",
    ),
    "steps": Experiment(
        title="Encoders by steps of pre-training, 50 annotated faces, ridge readout, MAFL",
        recipe=RIDGE,
        axis="part",
        columns={part: f"{100 * part // PARTS} %" for part in range(PARTS + 1)},
        axis_label="image pairs seen in pre-training",
        models=("resnet18",),
        encoders=(NOT_TRAINED, *STEPS),
        annotations=(50,),
        repeated=True,
        note="Columns are parts of one pre-training, the learning rate of which comes down to its "
        "end; results.csv has the numbers of steps and of pairs. " + EQUAL_PAIRS,
    ),
    "matching": Experiment(
        title="Landmarks of one face found in another by the nearest feature, MAFL",
        recipe=MATCHING,
        axis="pair",
        columns=PAIRS,
        models=("resnet18",),
        encoders=COMPARED,
        baseline="points left where they were",
        published=(
            Published("CL, ResNet-50, 256 channels", {"warped": 0.71, "others": 2.06}, PAPER_V2),
            Published("SCE-MAE", {"warped": 0.27, "others": 1.61}, "SCE-MAE (CVPR 2024)"),
        ),
        note="Published figures are of those papers' own pairs, warps and pixels: a yardstick "
        f"rather than a comparison. {EQUAL_PAIRS} {PROJECTION_PAIRS}",
    ),
}


PAPER = ("faces", "few_shot", "layers", "cub")
"""The experiments of the paper; the others pre-train their encoders themselves."""


@cache
def index_runs() -> dict[str, tuple[Run, list[str]]]:
    """Return all runs of seed 0 and the experiments they belong to, by the folder's name."""
    found: dict[str, tuple[Run, list[str]]] = {}
    for name, experiment in EXPERIMENTS.items():
        for run in experiment.runs(MODELS):
            found.setdefault(run.name, (run, []))[1].append(name)
    return found


def find_published(run: Run, places: Mapping[str, Any]) -> tuple[float | str, str]:
    """Return the published figure that a run repeats, and its source; blanks if there is none.

    ``places`` are the column in each experiment that the run belongs to, by name.
    """
    for name, column in places.items():
        for row in EXPERIMENTS[name].published:
            if row.model == run.model and column in row.figures:
                return row.figures[column], row.source
    return "", ""
