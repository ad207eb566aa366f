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
    """What came out of a run.

    Args:
        run: the command line.
        options: as recorded in ``options.json``.
        result: as recorded in ``result.json``.
    """

    run: Run
    options: dict
    result: dict

    @property
    def last(self) -> float:
        """Test score after the last epoch, in %."""
        return self.result["last"]["Test"][self.run.recipe.metric]

    @property
    def best(self) -> float:
        """Test score, in %, of the epoch that is best on the test set, or for birds on Val."""
        return self.result["best"]["best_test_pck" if self.run.recipe is BIRDS else "best_error"]

    @property
    def headline(self) -> float:
        """The score to quote, in %: of the last epoch, or of the one picked on a validation set."""
        return self.best if self.run.recipe is BIRDS else self.last

    @property
    def mean_shape(self) -> float:
        """Test score, in %, of predicting the training images' mean shape."""
        return self.result["mean_shape"][self.run.recipe.metric]

    @property
    def epochs(self) -> int:
        """Epochs trained."""
        return self.result["epochs"]

    @property
    def per_epoch(self) -> int:
        """Images an epoch at most, of a few-shot run; the published number for another."""
        return self.options["num_per_epoch"] if self.run.recipe is FEW_FACES else PER_EPOCH

    @property
    def annotations(self) -> int:
        """Annotated training images, also where all were used."""
        return self.run.annotations or self.result["images"]["training"]

    @property
    def test_images(self) -> int:
        """Number of images in the test set."""
        return self.result["images"]["Test"]

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
        row = Row(run_of_options(record["options"]), record["options"], result)
        whole = row.run.name == folder.name and row.epochs == row.options["epochs"]
        _ = row.headline, row.last, row.mean_shape, row.test_images, row.variant
    except (KeyError, TypeError):
        return None
    return row if whole else None


def read_rows(out: Path) -> list[Row]:
    """Return all finished runs below a folder that belong to an experiment."""
    rows = [row for folder in out.glob("*/") if (row := read_row(folder)) is not None]
    rows = [row for row in rows if any(e.includes(row.run) for e in EXPERIMENTS.values())]
    return sorted(rows, key=place_in_tables)


def place_in_tables(row: Row) -> tuple:
    """Return what the rows are sorted by: numbers by size, all annotations last."""
    run = row.run
    count = math.inf if run.annotations is None else run.annotations
    return run.dataset, run.model, run.features, count, run.seed
