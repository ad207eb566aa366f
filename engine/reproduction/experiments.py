"""The paper's experiments as data: which command lines make which table or figure.

A `Run` is one command line of `eval_face.py` or `eval_animal.py`, named after what it depends on,
so that experiments which need the same run share it.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Recipe:
    """What the runs on one kind of data have in common: the published options.

    Args:
        script: that trains and tests, such as ``eval_face.py``.
        options: of the script, without data, encoder and epochs.
        epochs: as published.
        metric: what the script measures, as ``result.json`` names it, in %.
    """

    script: str
    options: str
    epochs: int
    metric: str


FACE_METRIC, BIRD_METRIC = "InterOcularError", "PCK"
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
PER_EPOCH = 1000  # [spec 8] images an epoch of a few-shot run

Features = tuple[int, bool]
"""``--layer`` and ``--use_hypercol``."""

HYPERCOLUMN: Features = (4, True)  # conv2_x to conv5_x, the paper's choice


@dataclass(frozen=True)
class Run:
    """One command line.

    Args:
        recipe: its script and the published options.
        dataset: name of the benchmark, as the script's ``--dataset`` takes it.
        model: name of the encoder, such as ``resnet50``.
        features: layer, 1 to 5, and whether to take the hypercolumn from there on.
        annotations: number of annotated training images; None for all.
        seed: of everything random, the choice of few annotated images included.
    """

    recipe: Recipe
    dataset: str
    model: str
    features: Features = HYPERCOLUMN
    annotations: int | None = None
    seed: int = 0

    @property
    def name(self) -> str:
        """Its folder's name."""
        layer, use_hypercol = self.features
        parts = [self.dataset, self.model, f"{'hypercolumn' if use_hypercol else 'layer'}{layer}"]
        if self.annotations is not None:
            parts.append(f"{self.annotations}annos")
        if self.recipe is FEW_FACES:
            parts.append(f"seed{self.seed}")
        return "-".join(parts)

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


def run_of_options(options: dict) -> Run:
    """Return the run that recorded options belong to; raises KeyError for another script's."""
    annotations, recipe = None, FACES
    if options["dataset"] == "CUB":
        recipe = BIRDS
        number = Path(options["imagelist"] or "train.txt").stem.removeprefix("train_")
        annotations = int(number) if number.isdecimal() else None
    elif options["restrict_annos"] > 0:
        recipe, annotations = FEW_FACES, options["restrict_annos"]
    features = (options["layer"], options["use_hypercol"])
    return Run(recipe, options["dataset"], options["model"], features, annotations, options["seed"])


@dataclass(frozen=True)
class Published:
    """A row of published figures.

    Args:
        method: the row's label.
        figures: test score in %, by the place on the experiment's axis.
        source: where the figures were published; empty if there are none.
        model: encoder of the runs that repeat the row; None if it is another method's.
    """

    method: str
    figures: dict[Any, float]
    source: str = ""
    model: str | None = None


@dataclass(frozen=True)
class Experiment:
    """A set of runs that fill a table: a row for each model, a column for each value of an axis.

    Args:
        title: heading of its table.
        recipe: script and published options of its runs.
        axis: returns a run's place on the axis, its column.
        columns: the columns' labels by place on the axis, in order.
        datasets: benchmarks; there is a run for each combination of these and the next three.
        axis_label: label of the curve's axis; None if there is no curve.
        models: encoders, unless the user chooses others.
        features: layers and hypercolumns.
        annotations: numbers of annotated images, None for all.
        repeated: whether each run is repeated with several seeds.
        published: rows of published figures below the table's own.
        note: what a reader must know of the numbers.
    """

    title: str
    recipe: Recipe
    axis: Callable[[Run], Hashable]
    columns: dict[Any, str]
    datasets: tuple[str, ...]
    axis_label: str | None = None
    models: tuple[str, ...] = ("resnet18", "resnet50")
    features: tuple[Features, ...] = (HYPERCOLUMN,)
    annotations: tuple[int | None, ...] = (None,)
    repeated: bool = False
    published: tuple[Published, ...] = ()
    note: str = ""

    def runs(
        self,
        models: Sequence[str] | None,
        datasets: Sequence[str] | None,
        annotations: Sequence[int | None] | None,
        seeds: int,
    ) -> list[Run]:
        """Return its runs; each argument but ``seeds`` narrows them down, or is None.

        ``annotations`` leaves an experiment alone that has no choice of them.
        """
        numbers: Sequence[int | None] = self.annotations
        if annotations is not None and len(numbers) > 1:
            numbers = [n for n in numbers if n in annotations]
        return [
            Run(self.recipe, dataset, model, features, number, seed)
            for model in models or self.models
            for dataset in self.datasets
            if datasets is None or dataset in datasets
            for features in self.features
            for number in numbers
            for seed in range(seeds if self.repeated else 1)
        ]

    def includes(self, run: Run) -> bool:
        """Whether a run of any model and seed belongs to it."""
        return (
            run.recipe is self.recipe
            and run.dataset in self.datasets
            and run.features in self.features
            and run.annotations in self.annotations
        )


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
FEW = {n: str(n) for n in (1, 5, 10, 20, 50, 100)}
BIRD_LISTS = {10: "10", 50: "50", 100: "100", None: "all"}

EXPERIMENTS = {
    "faces": Experiment(
        title="Face benchmarks, all annotations",
        recipe=FACES,
        axis=lambda run: run.dataset,
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
        axis=lambda run: run.annotations,
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
        axis=lambda run: run.features,
        columns=HYPERCOLUMNS | SINGLES,
        axis_label="shallowest map used",
        datasets=("AFLW_MTFL",),
        models=("resnet50",),
        features=tuple(HYPERCOLUMNS | SINGLES),
        published=(Published(CL, {HYPERCOLUMN: 6.17}, SCE_MAE, "resnet50"),),
        note="A hypercolumn takes its maps from the deepest, conv5_x, up to the max pool.",
    ),
    "cub": Experiment(
        title="Parts of birds by number of annotations, CUB",
        recipe=BIRDS,
        axis=lambda run: run.annotations,
        columns=BIRD_LISTS,
        axis_label="annotated birds",
        datasets=("CUB",),
        annotations=tuple(BIRD_LISTS),
        published=(Published(CL, {}, model="resnet50"),),
    ),
}


def published_figure(run: Run) -> tuple[float, str] | None:
    """Return the published figure that a run repeats, and its source."""
    for experiment in EXPERIMENTS.values():
        for row in experiment.published if experiment.includes(run) else ():
            if row.model == run.model and experiment.axis(run) in row.figures:
                return row.figures[experiment.axis(run)], row.source
    return None
