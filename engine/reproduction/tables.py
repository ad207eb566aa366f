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
from engine.reproduction.experiments import EXPERIMENTS, FACE_NAMES, LAYERS, Experiment
from engine.reproduction.results import Row, read_rows
from utils.files import write_file, write_text

LABEL_WIDTH = 90  # letters of a legend that fit into the figure


def csv_text(rows: list[Row]) -> str:
    """Return the runs as CSV, one a line."""
    if not rows:
        return ""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0].columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows(row.columns for row in rows)
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
    places, repeated = list(experiment.columns), experiment.repeated
    table = [["", *experiment.columns.values()], ["---", *["---:"] * len(places)]]
    for variant, group in group_rows(rows, lambda row: row.variant).items():
        at = group_rows(group, lambda row: experiment.find_column(row.run))
        scores = [[row.headline for row in at.get(place, [])] for place in places]
        cells = [format_cell(values, repeated) for values in scores]
        table.append([f"ours: {variant}", *cells])
    if rows:
        at = group_rows(rows, lambda row: experiment.find_column(row.run))
        # By seed: all models see the same images.
        shapes = [{r.run.seed: r.columns["mean_shape"] for r in at.get(p, [])} for p in places]
        cells = [format_cell(list(by_seed.values()), repeated) for by_seed in shapes]
        table.append([f"ours: {experiment.baseline}", *cells])
    for row in experiment.published:
        if row.source and row.source not in sources:
            sources.append(row.source)
        mark = f" [{sources.index(row.source) + 1}]" if row.source else ""
        cells = [f"{row.figures[p]:.2f}" if p in row.figures else "" for p in places]
        table.append([f"published: {row.method}{mark}", *cells])
    return [f"| {' | '.join(line)} |" for line in table]


def list_warnings(rows: list[Row]) -> list[str]:
    """Return what sets rows apart from a reproduction, a sentence each."""
    sentences = []
    if any(row.scaled for row in rows):
        sentences.append("**Scaled down: NOT a reproduction of the paper's numbers.**")
    if any(row.columns["encoder"] == "untrained" and row.run.encoder is None for row in rows):
        sentences.append("**Encoders with random weights, which were not trained.**")
    foreign = []
    for dataset, group in group_rows(rows, lambda row: row.run.dataset).items():
        benchmark = CUB if dataset == "CUB" else FACE_BENCHMARKS[dataset][0]
        published = (benchmark.published_counts or {}).get("test")
        count = group[0].columns["test_images"]
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
        lines += ["", f"## {name}: {experiment.title}", "", experiment.recipe.metric.note]
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
    variants = group_rows(rows, lambda row: row.variant)
    figure = Figure(figsize=(7, 5 + 0.3 * max(0, len(variants) - 4)), layout="constrained")
    axes = figure.add_subplot()
    begin = [row for row in rows if row.run.method is None]  # of every pre-training
    for number, (variant, group) in enumerate(variants.items()):
        if name == "layers":
            draw_layers(axes, group, variant, f"C{number}")
        elif name != "steps":
            draw_line(axes, group, lambda row: row.columns["annotations"], f"ours: {variant}")
        else:
            own, order = (begin, 3) if group[0] in begin else (begin + group, 2)  # its mark on top
            label = f"ours: {variant}"
            draw_line(
                axes, own, lambda row: row.columns["pretraining_pairs"] or 0, label, zorder=order
            )
    if experiment.axis == "annotations":
        ticks = sorted({row.columns["annotations"] for row in rows})
        axes.set_xscale("log")
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.minorticks_off()
    axes.set_xlabel(experiment.axis_label or "")
    spread = "\nmean ± standard deviation over seeds" if experiment.repeated else ""
    axes.set_ylabel(experiment.recipe.metric.label + spread)
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


def draw_layers(axes: Axes, rows: list[Row], variant: str, colour: str) -> None:
    """Draw hypercolumns and single layers over their shallowest map, the deepest on the left."""
    columns, single = ([r for r in rows if r.run.features[1] is kind] for kind in (True, False))
    if columns:
        label = f"hypercolumn from conv5_x to here: {variant}"
        draw_line(axes, columns, lambda row: row.run.features[0] - 1, label, color=colour)
    if single:
        style = {"linestyle": "--", "marker": "s", "color": colour}
        label, depths = f"this map alone: {variant}", list(LAYERS)
        draw_line(axes, single, lambda row: depths.index(row.run.features[0]), label, **style)
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
        places = {experiment.find_column(row.run) for row in own}
        if len(places) > 1 and experiment.axis_label is not None:
            paths.append(out / f"{name}.png")
            write_file(paths[-1], partial(draw_curves(name, own).savefig, format="png", dpi=150))
    return paths
