"""What came out of the experiments' runs, read back from their folders: tables and curves."""

import csv
import io
import math
import re
import statistics
import textwrap
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from data_loader.data_loaders_animal import CUB
from data_loader.data_loaders_face import FACE_BENCHMARKS
from engine.reproduction.experiments import (
    EXPERIMENTS,
    FACE_NAMES,
    FEW_FACES,
    FINETUNE,
    LAYERS,
    MATCHING,
    METHODS,
    PARTS,
    PER_EPOCH,
    PRETRAINING_EPOCHS,
    UNTRAINED,
    Run,
    find_published,
    index_runs,
)
from models.matching import PAIRS
from utils.files import read_json, write_file, write_text

LABEL_WIDTH = 90  # letters of a legend that fit into the figure


class Row(NamedTuple):
    """A figure of a finished run."""

    run: Run
    places: dict[str, Any]  # its column in each experiment that it belongs to, by name
    variant: str  # what sets it apart beside its column and its seed, in words
    scaled: bool  # whether it, or its encoder, trained for less or more than published, or ours
    headline: float  # the score to quote, of the test set in the metric's unit
    columns: dict[str, Any]  # its line of results.csv


def read_folder(folder: Path) -> list[Row]:
    """Return what came out of a run, once for each figure; nothing if it isn't a finished one."""
    found = re.search(r"-seed(\d+)", folder.name)
    try:
        known, names = index_runs()[re.sub(r"-seed\d+", "-seed0", folder.name)]
        run = replace(known, seed=int(found[1]) if found else 0)
        options = read_json(folder / "options.json")["options"]
        result = read_json(folder / run.recipe.result)
        seen = count_seen(run.method and options["trained_model_path"], folder.parent)
        pairs = tuple(PAIRS) if run.recipe is MATCHING else ("",)
        rows = [make_row(run, pair, names, options, result, seen) for pair in pairs]
        # Else it is of a run that was begun anew, or of another one.
        is_own = rows[0].columns["epochs"] == options[run.recipe.counted]
        return rows if is_own and run.is_recorded(options) else []
    except (KeyError, TypeError, ValueError):
        return []


def make_row(
    run: Run, pair: str, names: list[str], options: dict, result: dict, seen: Counter
) -> Row:
    """Return the figure of a run that belongs to experiments, or that of one kind of its pairs.

    Raises:
        KeyError: if what the run recorded lacks an entry.
    """
    recipe, metric, images = run.recipe, run.recipe.metric, result["images"]
    best = result.get("best", {})  # of readouts with epochs, of which one is the best
    training: object = ""
    if pair:
        last, baseline = result["px"][pair], result["px"][f"{pair}_copied"]
        amount = result["pairs"]
    else:
        last, baseline = result["last"]["Test"][metric.name], result["mean_shape"][metric.name]
        amount, training = result["epochs"], run.annotations or images["training"]
    if recipe is FINETUNE:
        amount, best = result["finetune"]["steps"], {"best_epoch": result["finetune"]["best_round"]}
    best_score = best.get(metric.best, last)
    headline = best_score if metric.picked_on == "Val" else last
    per_epoch = options["num_per_epoch"] if recipe is FEW_FACES else PER_EPOCH
    untrained = ["untrained encoder"] if options["random_network"] else []
    scalings = list_scalings(run, amount, per_epoch, seen["epochs"])
    places = {name: getattr(run, EXPERIMENTS[name].axis, pair) for name in names}
    figure, source = find_published(run, places)
    parts = [run.model, *untrained, *([run.method.label] if run.method else []), *scalings]
    columns = {
        "experiments": "+".join(places),
        "run": run.name,
        "dataset": run.dataset,
        "model": run.model,
        "encoder": "untrained" if untrained else options["trained_model_path"],
        "layer": run.features[0],
        "use_hypercol": run.features[1],
        "annotations": training,  # of which 0 are needed, where images are matched
        "seed": run.seed,
        "epochs": amount,
        "published_epochs": recipe.epochs,
        "scale": f"{amount / recipe.epochs:.4g}",
        "num_per_epoch": per_epoch if recipe is FEW_FACES else "",
        "metric": f"{metric.name} ({metric.unit})",
        "headline": headline,
        "last": last,
        "best": best_score,
        "best_epoch": best.get("best_epoch", 1),
        "best_picked_on": metric.picked_on,
        "mean_shape": baseline,
        "test_images": images["Test"],
        "published": figure,
        "published_source": source,
        "readout": recipe.name or "published",
        "pretraining_epochs": seen["epochs"] or "",
        "pretraining_steps": seen["steps"] or "",
        "pretraining_pairs": seen["pairs"] or "",
        "counted": recipe.counts,
        "pair": pair,
    }
    return Row(run, places, ", ".join(parts), bool(scalings), headline, columns)


def list_scalings(run: Run, amount: int, per_epoch: int, pretrained: int) -> list[str]:
    """Return in what a run, or its encoder, differs from one at full scale, in words."""
    words = []
    whole = pretrained * PARTS // run.part if run.method else PRETRAINING_EPOCHS
    if whole != PRETRAINING_EPOCHS:
        words.append(f"SCALED: pre-trained for {whole} of {PRETRAINING_EPOCHS} epochs")
    if amount != run.recipe.epochs:
        # A part of them, which is the same with few and with all annotations.
        part = f"{100 * amount / run.recipe.epochs:.3g} %"
        words.append(f"SCALED: {part} of the {run.recipe.counts}")
    if per_epoch != PER_EPOCH:
        words.append(f"{per_epoch} images an epoch")
    return words


def count_seen(checkpoint: Any, out: Path) -> Counter:
    """Return the epochs, steps and pairs of views that the pre-training of a checkpoint saw.

    Those of the checkpoint that it began from count, too; without a checkpoint there are none.

    Raises:
        KeyError: if the pre-training's record isn't there.
        ValueError: if it isn't a checkpoint of some epoch.
    """
    if not checkpoint:
        return Counter()
    record = read_json(out / Path(checkpoint).parent.name / "options.json")
    options, images = record["options"], record["derived"]["images"]
    epochs = int(Path(checkpoint).stem.removeprefix("ckpt_epoch_"))
    steps = epochs * math.ceil(images / options["batch_size"])
    own = Counter(epochs=epochs, steps=steps, pairs=epochs * images)
    return own + count_seen(options.get("init"), out)


def read_rows(out: Path) -> list[Row]:
    """Return all finished runs below a folder, sorted: numbers by size, all annotations last."""

    def key(row: Row) -> tuple:
        run, count = row.run, row.run.annotations or math.inf
        made = [None, UNTRAINED, *METHODS].index(run.encoder)
        recipe = tuple(run.recipe.options.items())
        return run.dataset, run.model, run.features, count, run.seed, recipe, made, run.part

    return sorted((row for folder in out.glob("*") for row in read_folder(folder)), key=key)


# ---- tables ----


def format_cell(values: list[float], repeated: bool) -> str:
    """Return values as ``mean ± sample standard deviation (n)``, or a single one as it is."""
    if not values:
        return ""
    text = f"{statistics.fmean(values):.2f}"
    text += f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{text} ({len(values)})" if repeated else text


def group_rows(rows: Iterable[Row], key: Callable[[Row], object]) -> dict:
    """Return the rows by key, in the order in which the keys appear."""
    groups: dict = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return groups


def table_lines(name: str, rows: list[Row], sources: list[str]) -> list[str]:
    """Return an experiment's table; appends the sources of its published rows to the list."""
    experiment = EXPERIMENTS[name]
    places = list(experiment.columns)
    table = [["", *experiment.columns.values()], ["---", *["---:"] * len(places)]]
    groups = group_rows(rows, lambda row: row.variant)
    if rows:
        # Once for a seed: all models see the same images.
        seeds = {(row.places[name], row.run.seed): row for row in rows}.values()
        shapes = [row._replace(headline=row.columns["mean_shape"]) for row in seeds]
        groups[experiment.baseline] = shapes
    for label, group in groups.items():
        at = group_rows(group, lambda row: row.places[name])
        scores = [[row.headline for row in at.get(place, [])] for place in places]
        cells = [format_cell(values, experiment.repeated) for values in scores]
        table.append([f"ours: {label}", *cells])
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
        own = [row for row in rows if name in row.places]
        if not own and not any(row.figures for row in experiment.published):
            continue
        lines += ["", f"## {name}: {experiment.title}", "", experiment.recipe.metric.note]
        if experiment.repeated:
            lines.append("Mean ± sample standard deviation over (number of) seeds.")
        if experiment.note:
            lines.append(experiment.note)
        for warning in list_warnings(own):
            lines += ["", f"> {warning}"]
        lines += ["", *table_lines(name, own, sources)]
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
        line = partial(draw_line, axes, color=f"C{number}")
        if experiment.axis == "features":
            columns, maps = ([r for r in group if r.run.features[1] is k] for k in (True, False))
            here = [row.columns["layer"] - 1 for row in columns]
            line(columns, here, f"hypercolumn from conv5_x to here: {variant}")
            here = [list(LAYERS).index(row.columns["layer"]) for row in maps]
            line(maps, here, f"this map alone: {variant}", linestyle="--", marker="s")
        elif experiment.axis == "part":
            own, order = (group, 3) if group[0] in begin else (begin + group, 2)  # its mark on top
            pairs = [row.columns["pretraining_pairs"] or 0 for row in own]
            line(own, pairs, f"ours: {variant}", zorder=order)
        else:
            line(group, [row.columns["annotations"] for row in group], f"ours: {variant}")
    if experiment.axis == "features":
        axes.set_xticks(range(len(LAYERS)), list(LAYERS.values()))
    if experiment.axis == "annotations":
        ticks = sorted({row.columns["annotations"] for row in rows})
        axes.set_xscale("log")
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.minorticks_off()
    axes.set_xlabel(experiment.axis_label)
    spread = "\nmean ± standard deviation over seeds" if experiment.repeated else ""
    axes.set_ylabel(experiment.recipe.metric.label + spread)
    scaled = any(row.scaled for row in rows)
    axes.set_title(experiment.title + ("\nSCALED DOWN: not a reproduction" if scaled else ""))
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", fontsize=9)
    return figure


def draw_line(
    axes: Axes, rows: list[Row], at: list[int], label: str, marker: str = "o", **style: Any
) -> None:
    """Draw the mean of rows at each place, with the standard deviation as a bar, if any."""
    scores: dict[int, list[float]] = {}
    for row, place in sorted(zip(rows, at, strict=True), key=lambda pair: pair[1]):
        scores.setdefault(place, []).append(row.headline)
    means = [statistics.fmean(found) for found in scores.values()]
    bars = [statistics.stdev(found) if len(found) > 1 else 0.0 for found in scores.values()]
    style |= {"label": textwrap.fill(label, LABEL_WIDTH) if rows else "", "capsize": 3}
    axes.errorbar(list(scores), means, bars if any(bars) else None, marker=marker, **style)


# ---- files ----


def write_tables(out: Path) -> list[Path]:
    """Write ``results.csv`` and ``results.md`` of the finished runs; return their paths."""
    rows, text = read_rows(out), io.StringIO()
    if rows:
        writer = csv.DictWriter(text, list(rows[0].columns), lineterminator="\n")
        writer.writeheader()
        writer.writerows(row.columns for row in rows)
    write_text(out / "results.csv", text.getvalue())
    write_text(out / "results.md", markdown_text(rows))
    return [out / "results.csv", out / "results.md"]


def write_curves(out: Path) -> list[Path]:
    """Draw the experiments with a curve of two points or more; return the paths."""
    rows, paths = read_rows(out), []
    for name, experiment in EXPERIMENTS.items():
        own = [row for row in rows if name in row.places]
        places = {row.places[name] for row in own}
        if len(places) > 1 and experiment.axis_label:
            paths.append(out / f"{name}.png")
            write_file(paths[-1], partial(draw_curves(name, own).savefig, format="png", dpi=150))
    return paths
