"""The experiments as data: which runs make which table or figure, and the published figures."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, NamedTuple

from engine.reproduction.runs import (
    BIRDS,
    FACES,
    FEW_FACES,
    FINETUNE,
    HYPERCOLUMN,
    MATCHING,
    MODELS,
    PAIRS,
    PARTS,
    PRETRAINED,
    PROJECTED,
    RIDGE,
    STEPS,
    UNTRAINED,
    Recipe,
    Run,
)


class Published(NamedTuple):
    """A row of published figures."""

    method: str  # the row's label
    figures: dict[Any, float]  # test score, by the column
    source: str = ""  # where the figures were published; empty if there are none
    model: str | None = None  # encoder of the runs that repeat the row; None of another method


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """A set of runs that fill a table: a row for each model, a column for each value of an axis."""

    title: str  # of its table
    recipe: Recipe  # script and published options of its runs
    models: tuple[str, ...] = ("resnet18", "resnet50")  # unless the user chooses others
    axis: str  # the attribute of a run that says its column
    columns: dict[Any, str]  # labels by the attribute's value, in order
    fixed: dict[str, tuple]  # other attributes of its runs, and the values they take
    repeated: bool = False  # whether runs with few annotations are repeated with several seeds
    axis_label: str | None = None  # of the curve's axis; None if there is no curve
    baseline: str = "mean shape of the training images"  # the least that has to be beaten
    published: tuple[Published, ...] = ()  # rows below the table's own
    note: str = ""  # what a reader must know of the numbers

    @property
    def choices(self) -> dict[str, tuple]:
        """The values that a run's attributes take; there is a run for each combination."""
        usual = {"features": (HYPERCOLUMN,), "encoder": (None,), "annotations": (None,)}
        along = {} if self.axis == "part" else {self.axis: tuple(self.columns)}
        return {"dataset": (), **usual, "pair": (None,), **self.fixed, **along}

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
        choices = {"model": tuple(models or self.models), **self.choices}
        if len(choices["annotations"]) == 1:
            annotations = None
        for name, kept in {"dataset": datasets, "annotations": annotations}.items():
            choices[name] = tuple(v for v in choices[name] if kept is None or v in kept)
        found = []
        for values in itertools.product(*choices.values()):
            run = Run(self.recipe, **dict(zip(choices, values, strict=True)))
            run = replace(run, recipe=self.recipe_for(run))
            count = seeds if self.repeated and run.annotations is not None else 1
            found += [replace(run, seed=seed) for seed in range(count)]
        return found

    def recipe_for(self, run: Run) -> Recipe:
        """Return script and options of a run; the regressor's of few faces aren't those of all."""
        is_all = self.recipe is FEW_FACES and run.annotations is None
        return FACES if is_all else self.recipe

    def includes(self, run: Run) -> bool:
        """Whether a run of any model and seed belongs to it."""
        own = self.choices.items()
        return run.recipe is self.recipe_for(run) and all(getattr(run, n) in v for n, v in own)

    def find_column(self, run: Run) -> Any:
        """Return a run's column, a key of `columns`."""
        return getattr(run, self.axis)


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
MAFL = ("MAFLAligned",)
COMPARED = (UNTRAINED, *PRETRAINED, PROJECTED)
BIRD_LISTS = {10: "10", 50: "50", 100: "100", None: "all"}

BY_ANNOTATIONS = Experiment(
    title="Encoders by number of annotated faces, ridge readout, MAFL",
    recipe=RIDGE,
    axis="annotations",
    columns=FEW_OR_ALL,
    axis_label="annotated faces",
    fixed={"dataset": MAFL, "encoder": COMPARED},
    models=("resnet18",),
    repeated=True,
    note=f"{EQUAL_PAIRS} {PROJECTION_PAIRS}",
)

EXPERIMENTS = {
    "faces": Experiment(
        title="Face benchmarks, all annotations",
        recipe=FACES,
        axis="dataset",
        columns=FACE_NAMES,
        fixed={},
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
        fixed={"dataset": ("AFLW_MTFL",)},
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
        fixed={"dataset": ("AFLW_MTFL",)},
        models=("resnet50",),
        published=(Published(CL, {HYPERCOLUMN: 6.17}, SCE_MAE, "resnet50"),),
        note="A hypercolumn takes its maps from the deepest, conv5_x, up to the max pool.",
    ),
    "cub": Experiment(
        title="Parts of birds by number of annotations, CUB",
        recipe=BIRDS,
        axis="annotations",
        columns=BIRD_LISTS,
        axis_label="annotated birds",
        fixed={"dataset": ("CUB",)},
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
        fixed={"dataset": MAFL, "encoder": COMPARED[:-1]},
        note="From 100 annotated faces on, some are held out to choose when to stop. "
        f"{EQUAL_PAIRS} Fine-tuning changes the encoder, so there is no projection of it.",
    ),
    "steps": Experiment(
        title="Encoders by steps of pre-training, 50 annotated faces, ridge readout, MAFL",
        recipe=RIDGE,
        axis="part",
        columns={part: f"{100 * part // PARTS} %" for part in range(PARTS + 1)},
        axis_label="image pairs seen in pre-training",
        fixed={"dataset": MAFL, "encoder": (UNTRAINED, *STEPS), "annotations": (50,)},
        models=("resnet18",),
        repeated=True,
        note="Columns are parts of one pre-training, the learning rate of which comes down to its "
        "end; results.csv has the numbers of steps and of pairs. " + EQUAL_PAIRS,
    ),
    "matching": Experiment(
        title="Landmarks of one face found in another by the nearest feature, MAFL",
        recipe=MATCHING,
        axis="pair",
        columns=PAIRS,
        fixed={"dataset": MAFL, "encoder": COMPARED},
        models=("resnet18",),
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
            if row.model == run.model and experiment.find_column(run) in row.figures:
                return row.figures[experiment.find_column(run)], row.source
    return None


@cache
def index_runs() -> dict[str, list[Run]]:
    """Return all runs of seed 0 by the name of their folder, which may have several figures."""
    runs: dict[str, list[Run]] = {}
    every = (e.runs(MODELS, None, None, seeds=1) for e in EXPERIMENTS.values())
    for run in dict.fromkeys(itertools.chain.from_iterable(every)):
        runs.setdefault(run.name, []).append(run)
    return runs
