"""Tables and curves of the experiments' results."""

import csv
import io
import statistics
import textwrap
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from data_loader.data_loaders_animal import CUB
from data_loader.data_loaders_face import FACE_BENCHMARKS
from engine.reproduction.experiments import (
    EXPERIMENTS,
    FACE_NAMES,
    LAYERS,
    Experiment,
    published_figure,
)
from engine.reproduction.results import Row, read_rows
from engine.reproduction.runs import BIRD_METRIC, FACE_METRIC, FEW_FACES, MATCHING_METRIC, UNITS
from utils.files import write_file, write_text

LABEL_WIDTH = 90  # letters of a legend that fit into the figure
METRIC_LABELS = {
    FACE_METRIC: "test error, % of the inter-ocular distance",
    BIRD_METRIC: "test PCK, % of the visible parts",
    MATCHING_METRIC: "mean distance, pixels of the network input",
}
METRIC_NOTES = {
    FACE_METRIC: "Test error after the last epoch, in % of the inter-ocular distance: lower is "
    "better.",
    BIRD_METRIC: "Test PCK (as published: distances cut to whole pixels) of the epoch with the "
    "best validation PCK, in %: higher is better.",
    MATCHING_METRIC: "Mean distance from the truth, in pixels of the network input, whose side has "
    "96: lower is better.",
}


# ---- CSV ----


def csv_columns(row: Row) -> dict[str, object]:
    """Return a run's line of the CSV by column."""
    run, (figure, source) = row.run, published_figure(row.run) or ("", "")
    untrained = row.options["random_network"]
    return {
        "experiments": "+".join(n for n, e in EXPERIMENTS.items() if e.includes(run)),
        "run": run.name,
        "dataset": run.dataset,
        "model": run.model,
        "encoder": "untrained" if untrained else row.options["trained_model_path"],
        "layer": run.features[0],
        "use_hypercol": run.features[1],
        "annotations": row.annotations or "",
        "seed": run.seed,
        "epochs": row.epochs,
        "published_epochs": run.recipe.epochs,
        "scale": f"{row.epochs / run.recipe.epochs:.4g}",
        "num_per_epoch": row.per_epoch if run.recipe is FEW_FACES else "",
        "metric": f"{run.recipe.metric} ({UNITS[run.recipe.metric]})",
        "headline": row.headline,
        "last": row.last,
        "best": row.best,
        "best_epoch": row.best_epoch,
        "best_picked_on": "Val" if run.recipe.metric == BIRD_METRIC else "Test",
        "mean_shape": row.baseline,
        "test_images": row.test_images,
        "published": figure,
        "published_source": source,
        "readout": run.recipe.name or "published",
        "pretraining_epochs": row.pretraining.epochs or "",
        "pretraining_steps": row.pretraining.steps or "",
        "pretraining_pairs": row.pretraining.pairs or "",
        "counted": run.recipe.counted_words,
        "pair": run.pair or "",
    }


def csv_text(rows: list[Row]) -> str:
    """Return the runs as CSV, one a line."""
    if not rows:
        return ""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(csv_columns(rows[0])), lineterminator="\n")
    writer.writeheader()
    writer.writerows(csv_columns(row) for row in rows)
    return text.getvalue()


# ---- Markdown ----


def mean_std(values: list[float]) -> tuple[float, float | None]:
    """Return mean and sample standard deviation (n - 1), None for a single value."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def format_cell(values: list[float], repeated: bool) -> str:
    """Return values as ``mean ± std (n)``, or a single one as it is."""
    if not values:
        return ""
    mean, std = mean_std(values)
    text = f"{mean:.2f}" if std is None else f"{mean:.2f} ± {std:.2f}"
    return f"{text} ({len(values)})" if repeated else text


def group_rows(rows: Iterable[Row], key: Callable[[Row], object]) -> dict:
    """Return the rows by key, in the order in which the keys appear."""
    groups: dict = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return groups


def table_lines(experiment: Experiment, rows: list[Row], sources: list[str]) -> list[str]:
    """Return an experiment's table; appends the sources of its published rows to the list."""
    places = list(experiment.columns)
    lines = [["", *experiment.columns.values()]]
    for variant, group in group_rows(rows, lambda row: row.variant).items():
        at = group_rows(group, lambda row: experiment.axis(row.run))
        values = [[row.headline for row in at.get(place, [])] for place in places]
        lines.append([f"ours: {variant}", *(format_cell(v, experiment.repeated) for v in values)])
    if rows:
        at = group_rows(rows, lambda row: experiment.axis(row.run))
        # By seed: all models see the same images.
        shapes = [{row.run.seed: row.baseline for row in at.get(place, [])} for place in places]
        cells = [format_cell(list(s.values()), experiment.repeated) for s in shapes]
        lines.append([f"ours: {experiment.baseline}", *cells])
    for row in experiment.published:
        if row.source and row.source not in sources:
            sources.append(row.source)
        mark = f" [{sources.index(row.source) + 1}]" if row.source else ""
        figures = [f"{row.figures[p]:.2f}" if p in row.figures else "" for p in places]
        lines.append([f"published: {row.method}{mark}", *figures])
    rule = ["---", *["---:"] * len(places)]
    return [f"| {' | '.join(line)} |" for line in (lines[0], rule, *lines[1:])]


def list_warnings(rows: list[Row]) -> list[str]:
    """Return what sets rows apart from a reproduction, a sentence each."""
    sentences = []
    if any(row.scaled for row in rows):
        sentences.append("**Scaled down: NOT a reproduction of the paper's numbers.**")
    if any(row.options["random_network"] and row.run.encoder is None for row in rows):
        sentences.append("**Encoders with random weights, which were not trained.**")
    foreign = []
    for dataset, group in group_rows(rows, lambda row: row.run.dataset).items():
        benchmark = CUB if dataset == "CUB" else FACE_BENCHMARKS[dataset][0]
        count, published = group[0].test_images, (benchmark.published_counts or {}).get("test")
        if count != published:
            foreign.append(f"{FACE_NAMES.get(dataset, dataset)} {count}, not {published}")
    if foreign:
        sentences.append(f"**Other data than the benchmark: test images of {'; '.join(foreign)}.**")
    return sentences


def markdown_text(rows: list[Row]) -> str:
    """Return all experiments' tables, with the sources of the published figures below."""
    lines: list[str] = ["# Results beside the published figures"]
    sources: list[str] = []
    for name, experiment in EXPERIMENTS.items():
        own = [row for row in rows if experiment.includes(row.run)]
        if not own and not any(row.figures for row in experiment.published):
            continue
        lines += ["", f"## {name}: {experiment.title}", "", METRIC_NOTES[experiment.recipe.metric]]
        if experiment.repeated:
            lines.append("Mean ± sample standard deviation over (number of) seeds.")
        if experiment.note:
            lines.append(experiment.note)
        for warning in list_warnings(own):
            lines += ["", f"> {warning}"]
        lines += ["", *table_lines(experiment, own, sources)]
    lines += ["", "An empty cell: not run, or no published figure with a source at hand.", ""]
    lines += [f"[{number}] {source}." for number, source in enumerate(sources, 1)]
    return "\n".join(lines) + "\n"


# ---- curves ----


def draw_curves(name: str, rows: list[Row]) -> Figure:
    """Return the figure of an experiment that has a curve: a line for each kind of run."""
    experiment = EXPERIMENTS[name]
    lines = len({row.variant for row in rows})
    figure = Figure(figsize=(7, 5 + 0.3 * max(0, lines - 4)), layout="constrained")
    axes = figure.add_subplot()
    if name == "layers":
        draw_layers(axes, rows)
    elif name == "steps":
        begin = [row for row in rows if row.run.pretrained is None]  # of every pre-training
        for variant, group in group_rows(rows, lambda row: row.variant).items():
            is_begin = group[0] in begin
            own, order = (group, 3) if is_begin else (begin + group, 2)  # its mark above the lines
            draw_line(
                axes, own, lambda row: row.pretraining.pairs, f"ours: {variant}", zorder=order
            )
    else:
        for variant, group in group_rows(rows, lambda row: row.variant).items():
            draw_line(axes, group, lambda row: row.annotations, f"ours: {variant}")
        ticks = sorted({row.annotations for row in rows})
        axes.set_xscale("log")
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.minorticks_off()
    axes.set_xlabel(experiment.axis_label or "")
    spread = "\nmean ± standard deviation over seeds" if experiment.repeated else ""
    axes.set_ylabel(METRIC_LABELS[experiment.recipe.metric] + spread)
    scaled = any(row.scaled for row in rows)
    axes.set_title(experiment.title + ("\nSCALED DOWN: not a reproduction" if scaled else ""))
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", fontsize=9)
    return figure


def draw_line(
    axes: Axes, rows: list[Row], place: Callable[[Row], float], label: str, **style: Any
) -> None:
    """Draw the mean at each place, with the standard deviation as a bar."""
    groups = sorted(group_rows(rows, place).items())
    moments = [mean_std([row.headline for row in group]) for _, group in groups]
    means = [mean for mean, _ in moments]
    bars = [std or 0.0 for _, std in moments] if any(std for _, std in moments) else None
    style = {"marker": "o", "capsize": 3, **style}
    label = textwrap.fill(label, LABEL_WIDTH)
    axes.errorbar([x for x, _ in groups], means, yerr=bars, label=label, **style)


def shallowest_place(row: Row) -> int:
    """Return the place among `LAYERS` of the shallowest map that a run uses, from 0."""
    layer, use_hypercol = row.run.features
    return layer - 1 if use_hypercol else list(LAYERS).index(layer)


def draw_layers(axes: Axes, rows: list[Row]) -> None:
    """Draw hypercolumns and single layers over their shallowest map, the deepest on the left."""
    for number, (variant, group) in enumerate(group_rows(rows, lambda row: row.variant).items()):
        colour = f"C{number}"
        kinds = group_rows(group, lambda row: row.run.features[1])
        if True in kinds:
            label = f"hypercolumn from conv5_x to here: {variant}"
            draw_line(axes, kinds[True], shallowest_place, label, color=colour)
        if False in kinds:
            style = {"linestyle": "--", "marker": "s", "color": colour}
            draw_line(axes, kinds[False], shallowest_place, f"this map alone: {variant}", **style)
    axes.set_xticks(range(len(LAYERS)), list(LAYERS.values()))


# ---- files ----


def write_tables(out: Path) -> list[Path]:
    """Write ``results.csv`` and ``results.md`` of the finished runs; return their paths."""
    rows = read_rows(out)
    write_text(out / "results.csv", csv_text(rows))
    write_text(out / "results.md", markdown_text(rows))
    return [out / "results.csv", out / "results.md"]


def write_curves(out: Path) -> list[Path]:
    """Draw the experiments with a curve of two points or more; return the paths."""
    rows, paths = read_rows(out), []
    for name, experiment in EXPERIMENTS.items():
        own = [row for row in rows if experiment.includes(row.run)]
        places = {experiment.axis(row.run) for row in own}
        if len(places) > 1 and experiment.axis_label is not None:
            paths.append(out / f"{name}.png")
            write_file(paths[-1], partial(draw_curves(name, own).savefig, format="png", dpi=150))
    return paths
