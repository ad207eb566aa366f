"""What came out of the experiments' runs, read back from their folders."""

import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from engine.reproduction.experiments import EXPERIMENTS, index_runs, published_figure
from engine.reproduction.runs import (
    ENCODERS,
    FEW_FACES,
    FINETUNE,
    METHODS,
    PAIRS,
    PARTS,
    PER_EPOCH,
    PRETRAINING_EPOCHS,
    Run,
)


class Seen(NamedTuple):
    """How much a pre-training saw, of all its stages."""

    epochs: int = 0
    steps: int = 0
    pairs: int = 0  # of views; as many as images


class Row(NamedTuple):
    """A figure of a finished run."""

    run: Run
    variant: str  # what sets it apart beside its column and its seed, in words
    scaled: bool  # whether it, or its encoder, trained for less or more than published, or ours
    headline: float  # the score to quote, of the test set in the metric's unit
    columns: dict[str, Any]  # its line of results.csv


def read_record(path: Path) -> dict | None:
    """Return a JSON file's content, or None if there is no whole one."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def read_folder(folder: Path) -> list[Row]:
    """Return what came out of a run, once for each figure; nothing if it isn't a finished one."""
    seed = re.search(r"-seed(\d+)", folder.name)
    named = folder.name.replace(seed[0], "-seed0") if seed else folder.name
    rows = []
    for known in index_runs().get(named, []):
        run = replace(known, seed=int(seed[1]) if seed else 0)
        record, result = (read_record(folder / n) for n in ("options.json", run.recipe.result))
        try:
            options = (record or {})["options"]
            row = make_row(run, options, result or {}, find_pretraining(run, options, folder))
            # Else it is of a run that was begun anew, or of another one.
            is_own = row.columns["epochs"] == options[run.recipe.counted]
            rows += [row] if is_own and run.is_recorded(options) else []
        except (KeyError, TypeError, ValueError):
            return []
    return rows


def make_row(run: Run, options: dict, result: dict, seen: Seen) -> Row:
    """Return a run's row, given what it recorded; an entry that isn't there is a KeyError."""
    recipe, metric, images = run.recipe, run.recipe.metric, result["images"]
    best = result.get("best", {})  # of readouts with epochs, of which one is the best
    training: object = ""
    if run.pair is not None:
        last, baseline = result["px"][run.pair], result["px"][f"{run.pair}_copied"]
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
    scalings = list_scalings(run, amount, per_epoch, seen)
    parts = [run.model, *untrained, *([METHODS[run.method].label] if run.method else []), *scalings]
    figure, source = published_figure(run) or ("", "")
    columns = {
        "experiments": "+".join(n for n, e in EXPERIMENTS.items() if e.includes(run)),
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
        "pretraining_epochs": seen.epochs or "",
        "pretraining_steps": seen.steps or "",
        "pretraining_pairs": seen.pairs or "",
        "counted": recipe.counted_words,
        "pair": run.pair or "",
    }
    return Row(run, ", ".join(parts), bool(scalings), headline, columns)


def list_scalings(run: Run, amount: int, per_epoch: int, seen: Seen) -> list[str]:
    """Return in what a run, or its encoder, differs from one at full scale, in words."""
    words = []
    whole = seen.epochs * PARTS // run.part if run.method else PRETRAINING_EPOCHS
    if whole != PRETRAINING_EPOCHS:
        words.append(f"SCALED: pre-trained for {whole} of {PRETRAINING_EPOCHS} epochs")
    if amount != run.recipe.epochs:
        # A part of them, which is the same with few and with all annotations.
        part = f"{100 * amount / run.recipe.epochs:.3g} %"
        words.append(f"SCALED: {part} of the {run.recipe.counted_words}")
    if per_epoch != PER_EPOCH:
        words.append(f"{per_epoch} images an epoch")
    return words


def find_pretraining(run: Run, options: dict, folder: Path) -> Seen:
    """Return how much a run's encoder saw: nothing, where the experiments didn't train it."""
    return seen_until(Path(options["trained_model_path"]), folder.parent) if run.method else Seen()


def seen_until(checkpoint: Path, out: Path) -> Seen:
    """Return how much a checkpoint's pre-training saw, with the one that it began from.

    Raises:
        TypeError: if the pre-training's record isn't there.
        ValueError: if it isn't a checkpoint of some epoch.
    """
    record = read_record(out / checkpoint.parent.name / "options.json")
    if record is None:
        raise TypeError(f"{checkpoint}: no record of its pre-training")
    options, images = record["options"], record["derived"]["images"]
    epochs = int(checkpoint.stem.removeprefix("ckpt_epoch_"))
    own = Seen(epochs, epochs * math.ceil(images / options["batch_size"]), epochs * images)
    before = seen_until(Path(options["init"]), out) if options.get("init") else Seen()
    return Seen(*(a + b for a, b in zip(own, before, strict=True)))


def read_rows(out: Path) -> list[Row]:
    """Return all finished runs of the experiments below a folder."""
    rows = [row for folder in out.glob("*") for row in read_folder(folder)]
    return sorted(rows, key=place_in_tables)


def place_in_tables(row: Row) -> tuple:
    """Return what the rows are sorted by: numbers by size, all annotations last."""
    run = row.run
    count = math.inf if run.annotations is None else run.annotations
    made, pair = ENCODERS.index(run.encoder), [None, *PAIRS].index(run.pair)
    recipe = tuple(run.recipe.options.items())
    return run.dataset, run.model, run.features, count, run.seed, recipe, made, pair
