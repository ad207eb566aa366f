"""What came out of the experiments' runs, read back from their folders."""

import json
import math
from dataclasses import dataclass
from pathlib import Path

from engine.reproduction.experiments import EXPERIMENTS
from engine.reproduction.runs import (
    BIRDS,
    ENCODERS,
    FEW_FACES,
    METHODS,
    PARTS,
    PER_EPOCH,
    PRETRAINING_EPOCHS,
    RIDGE,
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
        pretraining_epochs: of the encoder, if the experiments made it.
        pretraining_steps: the same in steps.
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
    pretraining_epochs: int
    pretraining_steps: int

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
        if (encoder := self.run.pretrained) is not None:
            parts.append(METHODS[encoder.method])
            whole, ours = self.whole_pretraining, PRETRAINING_EPOCHS
            parts += [f"SCALED: pre-trained for {whole} of {ours} epochs"] * (whole != ours)
        parts += [f"SCALED: {self.epochs} of {published} epochs"] * (self.epochs != published)
        parts += [f"{self.per_epoch} images an epoch"] * (self.per_epoch != PER_EPOCH)
        return ", ".join(parts)

    @property
    def whole_pretraining(self) -> int:
        """Epochs of all parts of the pre-training; ours for an encoder that had none."""
        encoder = self.run.pretrained
        if encoder is None:
            return PRETRAINING_EPOCHS
        return self.pretraining_epochs * PARTS // encoder.part

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


def read_row(folder: Path) -> Row | None:
    """Return what came out of a run, or None if the folder isn't that of a finished one."""
    record, result = (read_record(folder / name) for name in ("options.json", "result.json"))
    if record is None or result is None:
        return None
    try:
        options, run = record["options"], run_of_options(record["options"], folder.name)
        last = result["last"]["Test"][run.recipe.metric]
        # A ridge readout has no epochs, of which one could be the best.
        best = {"best_error": last, "best_epoch": 1} if run.recipe is RIDGE else result["best"]
        epochs, steps = find_pretraining(run, options, folder.parent)
        row = Row(
            run=run,
            options=options,
            last=last,
            best=best["best_test_pck" if run.recipe is BIRDS else "best_error"],
            best_epoch=best["best_epoch"],
            mean_shape=result["mean_shape"][run.recipe.metric],
            epochs=result["epochs"],
            annotations=run.annotations or result["images"]["training"],
            test_images=result["images"]["Test"],
            pretraining_epochs=epochs,
            pretraining_steps=steps,
        )
        whole = run.name == folder.name and row.epochs == options["epochs"] and row.variant
    except (KeyError, TypeError, ValueError):
        return None
    return row if whole else None


def find_pretraining(run: Run, options: dict, out: Path) -> tuple[int, int]:
    """Return epochs and steps of a run's encoder, 0 where the experiments didn't train it.

    Raises:
        TypeError: if the pre-training's record isn't there.
        ValueError: if the encoder isn't a checkpoint of some epoch.
    """
    if run.pretrained is None:
        return 0, 0
    checkpoint = Path(options["trained_model_path"])
    record = read_record(out / checkpoint.parent.name / "options.json")
    if record is None:
        raise TypeError(f"{checkpoint}: no record of its pre-training")
    epochs = int(checkpoint.stem.removeprefix("ckpt_epoch_"))
    steps = math.ceil(record["derived"]["images"] / record["options"]["batch_size"])
    return epochs, epochs * steps


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
    made = list(ENCODERS.values()).index(run.encoder) if run.encoder else -1
    return run.dataset, run.model, run.features, count, run.seed, run.recipe.options, made
