"""Images that can't be read: left out of annotated sets, replaced in pre-training, and listed.

Few enough are put up with where ``--on_bad_image skip`` asks for it; a data set whose ``skip_bad``
isn't set raises at the first one. A list has one image a line: its path, a tab and the reason,
both as `printable` makes them; the same in memory is a dict of path to reason.

Letters: B items of a batch.
"""

import argparse
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from data_loader.image_set import ImageSet
from data_loader.items import Items, SubstitutedItem
from data_loader.landmark_dataset import LandmarkDataset
from data_loader.loaders import available_cores
from utils.arguments import allow_change
from utils.collectives import broadcast_from_first
from utils.errors import ImageError, InputError
from utils.files import printable, write_text, writing
from utils.log import progress
from utils.process_group import is_first_rank

LIST = "bad_images.txt"
ONE_IN = 100  # images may be bad
PASSED = "could be read only later"
BATCH = 64  # images that a process checks at a time


def add_bad_image_argument(parser: argparse._ActionsContainer) -> None:
    """Declare what to do about images that can't be read, on a parser or one of its groups."""
    parser.add_argument(
        "--on_bad_image",
        choices=["stop", "skip"],
        default="stop",
        help=f"stop at an image that can't be read, or skip up to 1 in {ONE_IN}, which {LIST} "
        "beside the checkpoints or drawings then lists: pre-training takes the next image in "
        "their place, all else goes without",
    )
    allow_change("on_bad_image", keeps_results=False)


def allowed(total: int) -> int:
    """Return how many of so many images may be bad."""
    return total // ONE_IN


def too_many(count: int, total: int, first: str, kind: str = "") -> InputError:
    """Return the error that ends a run on more bad images than are allowed.

    Args:
        count: bad images known of.
        total: images.
        first: what is wrong with the first one, with its path.
        kind: of images, with a space after it.
    """
    return InputError(
        f"{count:,} of {total:,} {kind}images can't be read, where --on_bad_image skip allows "
        f"{allowed(total):,} (1 in {ONE_IN}); the first: {first}"
    )


def complaint(dataset: ImageSet, index: int) -> str:
    """Return why an image can't be read, without its path; nothing if it can."""
    try:
        _, points = dataset.base_item(index)
    except ImageError as error:
        return reason_of(error, dataset, index)
    # CUB's own points are fractions of a size that couldn't be read.
    return "" if np.isfinite(points).all() else PASSED


def reason_of(error: ImageError, dataset: ImageSet, index: int) -> str:
    """Return what an error says about an image but for its path."""
    return str(error).removeprefix(f"{dataset.path(index)}: ")


def write_list(path: Path, reasons: dict[str, str]) -> None:
    """Write a list of path to reason; without any, there is no file. The first rank does.

    Raises:
        InputError: if the folder can't be made or written.
    """
    if not is_first_rank():
        return
    with writing(path):
        if reasons:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text(path, "".join(f"{name}\t{reason}\n" for name, reason in reasons.items()))
        else:
            path.unlink(missing_ok=True)


# ---- annotated sets: the bad images are found beforehand ----


class LeftOut(NamedTuple):
    """The bad images of a split: its name, the images it had, the bad ones, and their list."""

    split: str
    total: int
    bad: int
    reasons: dict[str, str]


def complaints(dataset: ImageSet, num_workers: int) -> list[str]:
    """Return the `complaint` of each image."""
    loader = DataLoader(
        Items(dataset, partial(complaint, dataset)),
        batch_size=BATCH,
        num_workers=min(num_workers, available_cores()),
        # Its own: DataLoader would take its workers' seeds from the training's generator.
        generator=torch.Generator(),
    )
    return [reason for batch in progress(loader, "checking") for reason in batch]


def leave_out(splits: Mapping[str, LandmarkDataset], num_workers: int) -> list[LeftOut]:
    """Read all images of the data sets that skip bad ones, and remove those from them.

    The first rank reads.

    Args:
        splits: name to data set.
        num_workers: processes that read, capped at `available_cores`.

    Raises:
        InputError: if a split has more bad ones than are allowed.
    """
    left_out = []
    for split, dataset in splits.items():
        if not dataset.skip_bad:
            continue
        reasons = broadcast_from_first(partial(complaints, dataset, num_workers))
        bad = {dataset.path(i): reason for i, reason in enumerate(reasons) if reason}
        count = sum(map(bool, reasons))
        if count > allowed(len(dataset)):
            path, reason = next(iter(bad.items()))
            raise too_many(count, len(dataset), f"{path}: {reason}", f"{split.lower()} ")
        if bad:
            listed = {printable(path): printable(reason) for path, reason in bad.items()}
            left_out.append(LeftOut(split.lower(), len(dataset), count, listed))
            dataset.select([i for i, reason in enumerate(reasons) if not reason])
    return left_out


def list_left_out(left_out: list[LeftOut], folder: Path) -> list[str]:
    """List the images that were left out, in place of an earlier list; return lines for the log.

    Raises:
        InputError: if the folder can't be written.
    """
    write_list(folder / LIST, {k: v for part in left_out for k, v in part.reasons.items()})
    return [
        f"{part.bad:,} of {part.total:,} {part.split} images can't be read, left out: "
        f"listed in {folder / LIST}"
        for part in left_out
    ]


# ---- pre-training: bad images are replaced where they are met ----


class Replacing(Dataset):
    """The items of a data set; for an image that can't be read, those after it are tried.

    The one that takes its place gets the random numbers that the bad one would have had. The
    images count from the one asked for on, the first following the last.

    Args:
        items: indexed by places in the data set.
    """

    def __init__(self, items: Items) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> SubstitutedItem:
        state, total, first = torch.get_rng_state(), len(self.items), ""
        for bad in range(allowed(total) + 1):
            try:
                item = self.items[(index + bad) % total]
            except ImageError as error:
                first = first or str(error)
                torch.set_rng_state(state)
            else:
                return SubstitutedItem(item, torch.tensor([index, bad]))
        raise too_many(allowed(total) + 1, total, first)


class BadImages:
    """The bad images that a run has met: counted, and listed in the run's folder.

    Args:
        folder: the run's.
        dataset: of the images.
        resumed: start from the list in the folder, but for images that can be read by now (in
            shards they aren't looked for); else from none.
        log_line: logs a line, such as about the first one.

    Raises:
        InputError: if the list can't be written, or has more bad images than are allowed.
    """

    def __init__(
        self, folder: Path, dataset: ImageSet, resumed: bool, log_line: Callable[[str], None]
    ) -> None:
        self.list, self.dataset, self.log_line = folder / LIST, dataset, log_line
        self.met: set[int] = set()  # places
        self.reasons = self._still_bad() if resumed else {}  # by path
        write_list(self.list, self.reasons)
        self._check()
        self.report()

    def note(self, substituted: Tensor) -> None:
        """Record what was replaced in a batch.

        Args:
            substituted: (B, 2) int64 on the CPU, of the items of `Replacing`.

        Raises:
            InputError: if these are more than are allowed, or the list can't be written.
        """
        total = len(self.dataset)
        for first, count in substituted[substituted[:, 1] > 0].tolist():
            for index in (place % total for place in range(first, first + count)):
                if index not in self.met:
                    self.met.add(index)
                    self._add(index)

    def report(self) -> None:
        """Log how many there are, if any."""
        if self.reasons:
            self.log_line(
                f"{len(self.reasons):,} of {len(self.dataset):,} images can't be read so far, "
                f"replaced: listed in {self.list}"
            )

    def _add(self, index: int) -> None:
        path = printable(self.dataset.path(index))
        if path in self.reasons:  # a list may name an image twice
            return
        # The reason stays in the process that met it; reading the image again finds it.
        reason = printable(complaint(self.dataset, index) or PASSED)
        if not self.reasons:
            self.log_line(
                f"{path}: {reason}; the next image takes its place, as for all that {self.list} "
                "will list"
            )
        self.reasons[path] = reason
        write_list(self.list, self.reasons)
        self._check()

    def _still_bad(self) -> dict[str, str]:
        """Return what the list names, as far as it still can't be read."""
        try:
            lines = self.list.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return {}
        listed = {path: reason for path, _, reason in (line.partition("\t") for line in lines)}
        paths = self.dataset.known_paths() if listed else None
        if paths is None:
            return listed
        found = {path: i for i, path in enumerate(map(printable, paths)) if path in listed}
        reasons = {path: printable(complaint(self.dataset, i)) for path, i in found.items()}
        return {path: reason for path, reason in reasons.items() if reason}

    def _check(self) -> None:
        total = len(self.dataset)
        if len(self.reasons) > allowed(total):
            first = ": ".join(next(iter(self.reasons.items())))
            raise too_many(len(self.reasons), total, first)


def count_bad_images(
    dataset: ImageSet, folder: Path, resumed: bool, log_line: Callable[[str], None]
) -> BadImages | None:
    """Return what counts a run's bad images, if they are skipped.

    Without that, a run that isn't resumed removes an earlier one's list.
    """
    if dataset.skip_bad:
        return BadImages(folder, dataset, resumed, log_line)
    if not resumed:
        write_list(folder / LIST, {})
    return None
