"""What came out of the experiments' runs, read back from their folders."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from engine.reproduction.experiments import EXPERIMENTS
from engine.reproduction.runs import (
    BIRDS,
    ENCODERS,
    FEW_FACES,
    FINETUNE,
    MATCHING,
    METHODS,
    PAIRS,
    PARTS,
    PER_EPOCH,
    PRETRAINING_EPOCHS,
    RIDGE,
    Run,
    runs_of_options,
)


class Seen(NamedTuple):
    """How much a pre-training saw, of all its stages."""

    epochs: int = 0
    steps: int = 0
    pairs: int = 0  # of views; as many as images


@dataclass(frozen=True)
class Row:
    """What came out of a run; scores are of the test set, in the unit of the run's metric.

    Args:
        run: the command line.
        options: as recorded in ``options.json``.
        last: score after the last epoch.
        best: score of the epoch that is best on the test set, or for birds on Val.
        best_epoch: its number.
        baseline: score of predicting the training images' mean shape; where images are matched,
            of leaving points where they were.
        epochs: that it trained; or as many as its recipe counts of something else.
        annotations: annotated training images, also where all were used; 0 if it needs none.
        test_images: how many there are.
        pretraining: of the encoder, if the experiments made it.
    """

    run: Run
    options: dict
    last: float
    best: float
    best_epoch: int
    baseline: float
    epochs: int
    annotations: int
    test_images: int
    pretraining: Seen

    @property
    def headline(self) -> float:
        """The score to quote: of the last epoch, or of the one picked on a validation set."""
        return self.best if self.run.recipe is BIRDS else self.last

    @property
    def per_epoch(self) -> int:
        """Images an epoch at most, of a few-shot run; the published number for another."""
        return self.options["num_per_epoch"] if self.run.recipe is FEW_FACES else PER_EPOCH

    @property
    def variant(self) -> str:
        """What sets it apart beside its column and its seed, in words."""
        published = self.run.recipe.epochs
        parts = [self.run.model]
        parts += ["untrained encoder"] if self.options["random_network"] else []
        if (encoder := self.run.pretrained) is not None:
            parts.append(METHODS[encoder.method])
            whole, ours = self.whole_pretraining, PRETRAINING_EPOCHS
            parts += [f"SCALED: pre-trained for {whole} of {ours} epochs"] * (whole != ours)
        # A part of them, which is the same with few and with all annotations.
        words = f"{100 * self.epochs / published:.3g} % of the {self.run.recipe.counted_words}"
        parts += [f"SCALED: {words}"] * (self.epochs != published)
        parts += [f"{self.per_epoch} images an epoch"] * (self.per_epoch != PER_EPOCH)
        return ", ".join(parts)

    @property
    def whole_pretraining(self) -> int:
        """Epochs of all parts of the pre-training; ours for an encoder that had none."""
        encoder = self.run.pretrained
        if encoder is None:
            return PRETRAINING_EPOCHS
        return self.pretraining.epochs * PARTS // encoder.part

    @property
    def scaled(self) -> bool:
        """Whether it, or its encoder, trained for less (or more) than published, or than ours."""
        return (
            self.epochs != self.run.recipe.epochs
            or self.per_epoch != PER_EPOCH
            or self.whole_pretraining != PRETRAINING_EPOCHS
        )


def read_record(path: Path) -> dict | None:
    """Return a JSON file's content, or None if there is no whole one."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def read_folder(folder: Path) -> list[Row]:
    """Return what came out of a run, once for each figure; nothing if it isn't a finished one."""
    record = read_record(folder / "options.json")
    if record is None:
        return []
    try:
        options = record["options"]
        runs = runs_of_options(options, folder.name)
        result = read_record(folder / runs[0].recipe.result)
        if result is None:
            return []
        seen = find_pretraining(runs[0], options, folder.parent)
        rows = [make_row(run, options, result, seen) for run in runs]
        whole = all(
            row.run.name == folder.name
            and row.epochs == options[row.run.recipe.counted]
            and row.variant
            for row in rows
        )
    except (KeyError, TypeError, ValueError):
        return []
    return rows if whole else []


def make_row(run: Run, options: dict, result: dict, seen: Seen) -> Row:
    """Return a run's row, given what it recorded; an entry that isn't there is a KeyError."""
    images = result["images"]
    if run.recipe is MATCHING:
        last, baseline = result["px"][run.pair], result["px"][f"{run.pair}_copied"]
        amount, training = result["pairs"], 0
    else:
        metric = run.recipe.metric
        last, baseline = result["last"]["Test"][metric], result["mean_shape"][metric]
        amount, training = result["epochs"], run.annotations or images["training"]
    best, best_epoch = last, 1  # of what has no epochs, of which one could be the best
    if run.recipe is FINETUNE:
        amount, best_epoch = result["finetune"]["steps"], result["finetune"]["best_round"]
    elif run.recipe not in (RIDGE, MATCHING):
        best = result["best"]["best_test_pck" if run.recipe is BIRDS else "best_error"]
        best_epoch = result["best"]["best_epoch"]
    return Row(
        run=run,
        options=options,
        last=last,
        best=best,
        best_epoch=best_epoch,
        baseline=baseline,
        epochs=amount,
        annotations=training,
        test_images=images["Test"],
        pretraining=seen,
    )


def find_pretraining(run: Run, options: dict, out: Path) -> Seen:
    """Return how much a run's encoder saw: nothing, where the experiments didn't train it."""
    if run.pretrained is None:
        return Seen()
    return seen_until(Path(options["trained_model_path"]), out)


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
    """Return all finished runs below a folder that belong to an experiment."""
    folders = (path for path in out.glob("*") if path.is_dir())
    rows = [row for folder in folders for row in read_folder(folder)]
    rows = [row for row in rows if any(e.includes(row.run) for e in EXPERIMENTS.values())]
    return sorted(rows, key=place_in_tables)


def place_in_tables(row: Row) -> tuple:
    """Return what the rows are sorted by: numbers by size, all annotations last."""
    run = row.run
    count = math.inf if run.annotations is None else run.annotations
    made = list(ENCODERS.values()).index(run.encoder) if run.encoder else -1
    pair = list(PAIRS).index(run.pair) if run.pair else -1
    return run.dataset, run.model, run.features, count, run.seed, run.recipe.options, made, pair
