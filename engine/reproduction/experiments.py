"""The experiments as data: which runs make which table or figure, and the published figures."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from engine.reproduction.runs import (
    BIRDS,
    FACES,
    FEW_FACES,
    FINETUNE,
    HYPERCOLUMN,
    MATCHING,
    PAIRS,
    PARTS,
    PRETRAINED,
    PRETRAINING_PARTS,
    PROJECTED,
    RIDGE,
    UNTRAINED,
    Encoder,
    Features,
    Recipe,
    Run,
)


@dataclass(frozen=True)
class Published:
    """A row of published figures.

    Args:
        method: the row's label.
        figures: test score, by the place on the experiment's axis.
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
        encoders: how the encoders are made; None for the user's, or the published ones.
        recipe_of_all: script and options of the runs with all annotations, if others.
        repeated: whether each run with few annotations is repeated with several seeds.
        pairs: kinds of pairs that are matched, each of which is a figure of a run.
        baseline: what the row of the least that has to be beaten is called.
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
    encoders: tuple[Encoder | None, ...] = (None,)
    recipe_of_all: Recipe | None = None
    repeated: bool = False
    pairs: tuple[str | None, ...] = (None,)
    baseline: str = "mean shape of the training images"
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
            Run(self.recipe_for(number), dataset, model, features, number, seed, encoder, pair)
            for model in models or self.models
            for dataset in self.datasets
            if datasets is None or dataset in datasets
            for features in self.features
            for encoder in self.encoders
            for number in numbers
            for seed in range(seeds if self.repeated and number is not None else 1)
            for pair in self.pairs
        ]

    def recipe_for(self, annotations: int | None) -> Recipe:
        """Return script and options of its runs with so many annotations."""
        return self.recipe_of_all or self.recipe if annotations is None else self.recipe

    def includes(self, run: Run) -> bool:
        """Whether a run of any model and seed belongs to it."""
        return (
            run.recipe is self.recipe_for(run.annotations)
            and run.encoder in self.encoders
            and run.dataset in self.datasets
            and run.features in self.features
            and run.annotations in self.annotations
            and run.pair in self.pairs
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
BIRD_LISTS = {10: "10", 50: "50", 100: "100", None: "all"}

BY_ANNOTATIONS = Experiment(
    title="Encoders by number of annotated faces, ridge readout, MAFL",
    recipe=RIDGE,
    axis=lambda run: run.annotations,
    columns=FEW_OR_ALL,
    axis_label="annotated faces",
    datasets=("MAFLAligned",),
    models=("resnet18",),
    annotations=tuple(FEW_OR_ALL),
    encoders=(UNTRAINED, *PRETRAINED, PROJECTED),
    repeated=True,
    note=f"{EQUAL_PAIRS} {PROJECTION_PAIRS}",
)

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
    "encoders": BY_ANNOTATIONS,
    "regressor": replace(
        BY_ANNOTATIONS,
        title="Encoders by number of annotated faces, published regressor, MAFL",
        recipe=FEW_FACES,
        recipe_of_all=FACES,
    ),
    "finetune": replace(
        BY_ANNOTATIONS,
        title="Encoders by number of annotated faces, fine-tuned, MAFL",
        recipe=FINETUNE,
        encoders=(UNTRAINED, *PRETRAINED),
        note="From 100 annotated faces on, some are held out to choose when to stop. "
        f"{EQUAL_PAIRS} Fine-tuning changes the encoder, so there is no projection of it.",
    ),
    "steps": Experiment(
        title="Encoders by steps of pre-training, 50 annotated faces, ridge readout, MAFL",
        recipe=RIDGE,
        axis=lambda run: run.encoder.part if run.encoder else PARTS,
        columns={part: f"{100 * part // PARTS} %" for part in range(PARTS + 1)},
        axis_label="image pairs seen in pre-training",
        datasets=("MAFLAligned",),
        models=("resnet18",),
        annotations=(50,),
        encoders=(UNTRAINED, *PRETRAINING_PARTS),
        repeated=True,
        note="Columns are parts of one pre-training, the learning rate of which comes down to its "
        "end; results.csv has the numbers of steps and of pairs. " + EQUAL_PAIRS,
    ),
    "matching": Experiment(
        title="Landmarks of one face found in another by the nearest feature, MAFL",
        recipe=MATCHING,
        axis=lambda run: run.pair,
        columns=PAIRS,
        datasets=("MAFLAligned",),
        models=("resnet18",),
        encoders=(UNTRAINED, *PRETRAINED, PROJECTED),
        pairs=tuple(PAIRS),
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


def published_figure(run: Run) -> tuple[float, str] | None:
    """Return the published figure that a run repeats, and its source."""
    for experiment in EXPERIMENTS.values():
        for row in experiment.published if experiment.includes(run) else ():
            if row.model == run.model and experiment.axis(run) in row.figures:
                return row.figures[experiment.axis(run)], row.source
    return None
