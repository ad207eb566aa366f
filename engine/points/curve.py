"""The error by the number of annotated images: runs, a table and a figure."""

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from engine.points.scores import write_csv
from engine.run.settings import RunSettings, Settings
from utils.arguments import allow_change, integer, positive_int
from utils.errors import InputError
from utils.files import write_file, write_text

SEEDS = 3  # random picks for each number, if --curve_seeds says nothing
COLUMNS = ("error_px", "median_px", "error_of_diagonal", "PCK_0.1")  # of curve.csv

S = TypeVar("S", bound=RunSettings)
# Settings of one run to what its ``result.json`` holds; None but in the first rank.
Evaluate = Callable[[S], Mapping[str, Any] | None]


def add_curve_arguments(group: argparse._ActionsContainer) -> None:
    """Declare the numbers of annotated images of a curve."""
    group.add_argument(
        "--curve",
        type=positive_int,
        nargs="+",
        metavar="N",
        help="fit to so many of the training images, for each number and for several random "
        "picks, all judged by the same test images: curve.csv and curve.png in the run's folder",
    )
    group.add_argument(
        "--curve_seeds",
        type=integer(1, 1000),
        metavar="K",
        help=f"random picks for each number of --curve: --seed, --seed + 1, ... [{SEEDS}]",
    )
    allow_change("curve", "curve_seeds")


@dataclass(frozen=True)
class CurveSettings(Settings):
    """Which numbers of annotated images are tried, and how often."""

    curve: Sequence[int] | None
    curve_seeds: int | None
    restrict_annos: int
    folds: int | None
    seed: int

    def check(self, available: int) -> None:
        """Raise an `InputError` unless the curve can be made of so many training images."""
        if self.restrict_annos >= 0 or self.folds is not None:
            flag = "--restrict_annos" if self.restrict_annos >= 0 else "--folds"
            raise InputError(f"--curve and {flag} exclude each other")
        most = max(self.curve or [0])
        if most > available:
            raise InputError(f"--curve {most}: there are {available} training images")


def run_curve(settings: S, curve: CurveSettings, evaluate: Evaluate[S]) -> None:
    """Run all fits of a curve, each in a folder of its own, then write its table and figure."""
    rows: list[list[Any]] = []  # number, seed, scores
    for count in sorted(set(curve.curve or [])):
        for seed in range(curve.seed, curve.seed + (curve.curve_seeds or SEEDS)):
            name = f"{settings.model_name}/annotated_{count}_seed_{seed}"
            own = settings.with_options(model_name=name, restrict_annos=count, seed=seed)
            result = evaluate(own)
            if result is not None:
                of_splits = result["scores"]
                scores = of_splits.get("Test", next(iter(of_splits.values())))
                rows.append([count, seed, *(scores[name] for name in COLUMNS)])
    if rows:
        write_curve(settings.folder, rows)


def write_curve(folder: Path, rows: Sequence[Sequence[Any]]) -> None:
    """Write ``curve.csv``, ``curve.png`` and ``result.json`` of rows as `COLUMNS` says."""
    write_csv(folder / "curve.csv", ("annotated", "seed", *COLUMNS), rows)
    runs = {n: [row[2:] for row in rows if row[0] == n] for n in sorted({row[0] for row in rows})}
    means = {
        n: {name: float(np.mean([run[at] for run in own])) for at, name in enumerate(COLUMNS)}
        for n, own in runs.items()
    }
    write_text(folder / "result.json", json.dumps({"curve": means}, indent=1) + "\n")
    figure = draw_curve(runs, means)
    write_file(folder / "curve.png", lambda file: figure.savefig(file, format="png", dpi=150))
    for n, mean in means.items():
        print(f"{n} annotated: error {mean['error_px']:.2f} px, PCK {mean['PCK_0.1']:.1f} %")


def draw_curve(
    runs: Mapping[int, Sequence[Sequence[float]]], means: Mapping[int, Mapping[str, float]]
) -> Figure:
    """Return the figure: each run's error, and a line through the means over seeds.

    Both are by the number of annotated images; runs are as `COLUMNS` says.
    """
    figure = Figure(figsize=(5.2, 3.6), layout="constrained")
    axes = figure.add_subplot()
    for place, (label, colour) in enumerate([("mean", "#1f5fd0"), ("median", "#d0661f")]):
        middle = [mean[COLUMNS[place]] for mean in means.values()]
        axes.plot(list(means), middle, "-", color=colour, label=f"{label} error")
        dots = [(n, run[place]) for n, own in runs.items() for run in own]
        axes.plot(*zip(*dots, strict=True), "o", color=colour, markersize=4, alpha=0.6)
    axes.set_xscale("log")
    axes.set_xticks(list(runs), map(str, runs))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_ylim(bottom=0)
    axes.set_xlabel("annotated images")
    axes.set_ylabel("error, in pixels of the image")
    axes.grid(alpha=0.3)
    axes.legend()
    return figure
