"""What came out of the experiments' runs, read back from their folders."""

import json
import math
from dataclasses import dataclass
from pathlib import Path

from engine.reproduction.experiments import (
    BIRDS,
    EXPERIMENTS,
    FEW_FACES,
    PER_EPOCH,
    Run,
    run_of_options,
)


@dataclass(frozen=True)
class Row:
    """What came out of a run; scores are in % and of the test set.

    Args:
        run: the command line.
        options: as recorded in ``options.json``.
        last: score after the last epoch.
        best: score of the epoch that is best on the test set, or for birds on Val.
        best_epoch: its number.
        mean_shape: score of predicting the training images' mean shape.
        epochs: that it trained.
        annotations: annotated training images, also where all were used.
        test_images: how many there are.
    """

    run: Run
    options: dict
    last: float
    best: float
    best_epoch: int
    mean_shape: float
    epochs: int
    annotations: int
    test_images: int

    @property
    def headline(self) -> float:
        """The score to quote, in %: of the last epoch, or of the one picked on a validation set."""
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
        parts += [f"SCALED: {self.epochs} of {published} epochs"] * (self.epochs != published)
        parts += [f"{self.per_epoch} images an epoch"] * (self.per_epoch != PER_EPOCH)
        return ", ".join(parts)

    @property
    def scaled(self) -> bool:
        """Whether it trained for less (or more) than published."""
        return self.epochs != self.run.recipe.epochs or self.per_epoch != PER_EPOCH


def read_record(path: Path) -> dict | None:
    """Return a JSON file's content, or None if there is no whole one."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def read_row(folder: Path) -> Row | None:
    """Return what came out of a run, or None if the folder isn't that of a finished one."""
    record, result = (read_record(folder / name) for name in ("options.json", "result.json"))
    if record is None or result is None:
        return None
    try:
        options, run = record["options"], run_of_options(record["options"])
        row = Row(
            run=run,
            options=options,
            last=result["last"]["Test"][run.recipe.metric],
            best=result["best"]["best_test_pck" if run.recipe is BIRDS else "best_error"],
            best_epoch=result["best"]["best_epoch"],
            mean_shape=result["mean_shape"][run.recipe.metric],
            epochs=result["epochs"],
            annotations=run.annotations or result["images"]["training"],
            test_images=result["images"]["Test"],
        )
        whole = run.name == folder.name and row.epochs == options["epochs"] and row.variant
    except (KeyError, TypeError):
        return None
    return row if whole else None


def read_rows(out: Path) -> list[Row]:
    """Return all finished runs below a folder that belong to an experiment."""
    folders = (path for path in out.glob("*") if path.is_dir())
    rows = [row for folder in folders if (row := read_row(folder)) is not None]
    rows = [row for row in rows if any(e.includes(row.run) for e in EXPERIMENTS.values())]
    return sorted(rows, key=place_in_tables)


def place_in_tables(row: Row) -> tuple:
    """Return what the rows are sorted by: numbers by size, all annotations last."""
    run = row.run
    count = math.inf if run.annotations is None else run.annotations
    return run.dataset, run.model, run.features, count, run.seed
