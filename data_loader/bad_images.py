"""Images that can't be read: left out of annotated sets, replaced in pre-training, and listed.

Few enough are put up with where ``--on_bad_image skip`` asks for it; a data set whose ``skip_bad``
isn't set raises at the first one. A list has one image a line: its path, a tab and the reason.

Letters: B items of a batch.
"""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from data_loader.items import SubstitutedItem
from data_loader.landmark_dataset import LandmarkDataset
from data_loader.loaders import available_cores
from utils.collectives import broadcast_from_first
from utils.errors import ImageError, InputError
from utils.files import write_text
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


def complaint(dataset: LandmarkDataset, index: int) -> str:
    """Return why an image can't be read, without its path; nothing if it can."""
    try:
        _, points = dataset.base_item(index)
    except ImageError as error:
        return reason_of(error, dataset, index)
    # CUB's own points are shares of a size that couldn't be read.
    return "" if np.isfinite(points).all() else PASSED


def reason_of(error: ImageError, dataset: LandmarkDataset, index: int) -> str:
    """Return what an error says about an image but for its path."""
    return str(error).removeprefix(f"{dataset.path(index)}: ")


def entry(dataset: LandmarkDataset, index: int, reason: str) -> str:
    """Return an image's line in a list."""
    return f"{_printable(str(dataset.path(index)))}\t{_printable(reason)}\n"


def _printable(text: str) -> str:
    """Return a text without tabs, line ends or what isn't Unicode; file names may have them."""
    return text if text.isprintable() else text.encode("unicode_escape").decode()


def write_list(path: Path, entries: list[str]) -> None:
    """Write a list, each line once; without any, there is no file. The first rank does.

    Raises:
        InputError: if the folder can't be made or written.
    """
    if not is_first_rank():
        return
    try:
        if entries:
            path.parent.mkdir(parents=True, exist_ok=True)
            text = "".join(dict.fromkeys(entries))
            write_text(path, text)
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"{path}: can't write there ({error.strerror})") from None


# ---- annotated sets: the bad images are found beforehand ----


class Complaints(Dataset):
    """For each image of a data set, its `complaint`."""

    def __init__(self, dataset: LandmarkDataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> str:
        return complaint(self.dataset, index)


class LeftOut(NamedTuple):
    """The bad images of a split: its name, the images it had, and the lines of the list."""

    split: str
    total: int
    entries: list[str]


def complaints(dataset: LandmarkDataset, num_workers: int) -> list[str]:
    """Return the `complaint` of each image."""
    loader = DataLoader(
        Complaints(dataset),
        batch_size=BATCH,
        num_workers=min(num_workers, available_cores()),
        # Its own: DataLoader would draw its workers' seeds from the training's generator.
        generator=torch.Generator(),
    )
    return [reason for batch in progress(loader, "checking") for reason in batch]


def leave_out(splits: dict[str, LandmarkDataset], num_workers: int) -> list[LeftOut]:
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
        bad = [index for index, reason in enumerate(reasons) if reason]
        if len(bad) > allowed(len(dataset)):
            first = f"{dataset.path(bad[0])}: {reasons[bad[0]]}"
            raise too_many(len(bad), len(dataset), first, f"{split.lower()} ")
        if bad:
            entries = [entry(dataset, index, reasons[index]) for index in bad]
            left_out.append(LeftOut(split.lower(), len(dataset), entries))
            dataset.select([index for index, reason in enumerate(reasons) if not reason])
    return left_out


def list_left_out(left_out: list[LeftOut], folder: Path) -> list[str]:
    """List the images that were left out, in place of an earlier list; return lines for the log.

    Raises:
        InputError: if the folder can't be written.
    """
    path = folder / LIST
    write_list(path, [line for part in left_out for line in part.entries])
    return [
        f"{len(part.entries):,} of {part.total:,} {part.split} images can't be read, left out: "
        f"listed in {path}"
        for part in left_out
    ]


# ---- pre-training: bad images are replaced where they are met ----


class Replacing(Dataset):
    """The items of a data set; for an image that can't be read, those after it are tried.

    The one that takes its place is drawn with the random numbers that the bad one would have had.
    The images count from the one asked for on, the first following the last.

    Args:
        items: indexed by places in the data set.
        dataset: of the images.
    """

    def __init__(self, items: Dataset, dataset: LandmarkDataset) -> None:
        self.items, self.dataset = items, dataset

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> SubstitutedItem:
        state, total, first = torch.get_rng_state(), len(self.items), None
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
    """The bad images that a run has met: counted, and each listed once in the run's folder.

    Args:
        folder: the run's.
        dataset: of the images.
        resumed: go on with the list in the folder, but for images that can be read by now (in
            shards they aren't looked for); else it is begun anew.
        log_line: is told of the first one.

    Raises:
        InputError: if the list can't be written, or has more bad images than are allowed.
    """

    def __init__(
        self,
        folder: Path,
        dataset: LandmarkDataset,
        resumed: bool,
        log_line: Callable[[str], None],
    ) -> None:
        self.list, self.dataset, self.log_line = folder / LIST, dataset, log_line
        self.entries: dict[int | str, str] = {}  # by place, or by path where that isn't known
        self.met: set[int] = set()  # places
        if resumed:
            self._go_on()
        write_list(self.list, list(self.entries.values()))
        self._check()
        self.report()

    def note(self, substituted: Tensor) -> None:
        """Take down what was replaced in a batch.

        Args:
            substituted: (B, 2) int64 on the CPU, of the items of `Replacing`.

        Raises:
            InputError: if these are more than are allowed, or the list can't be written.
        """
        for first, count in substituted[substituted[:, 1] > 0].tolist():
            for place in range(first, first + count):
                index = place % len(self.dataset)
                if index not in self.met:
                    self.met.add(index)
                    self._add(index)

    def report(self) -> None:
        """Tell the log how many there are, if any."""
        if self.entries:
            self.log_line(
                f"{len(self.entries):,} of {len(self.dataset):,} images can't be read so far, "
                f"replaced: listed in {self.list}"
            )

    def _add(self, index: int) -> None:
        # The reason stays in the process that met it; reading the image again finds it.
        reason = complaint(self.dataset, index) or PASSED
        line = entry(self.dataset, index, reason)
        if not self.entries:
            self.log_line(
                f"{line.rstrip().replace(chr(9), ': ')}; the next image takes its place, as for "
                f"all that {self.list} will list"
            )
        path = line.partition("\t")[0]
        if path in self.entries:
            return
        known = set(self.entries.values())
        self.entries[index] = line
        if line not in known and is_first_rank():  # a list may name an image twice
            try:
                with self.list.open("a", encoding="utf-8") as file:
                    file.write(line)
            except OSError as error:
                raise InputError(f"{self.list}: can't write there ({error.strerror})") from None
        self._check()

    def _go_on(self) -> None:
        """Take over what the list names, as far as it can be read."""
        try:
            lines = self.list.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return
        listed = {line.partition("\t")[0]: f"{line}\n" for line in lines}
        if not self.dataset.has_files:
            self.entries.update(listed)
            return
        for index in range(len(self.dataset)) if listed else ():
            if _printable(str(self.dataset.path(index))) in listed:
                if reason := complaint(self.dataset, index):
                    self.met.add(index)
                    self.entries[index] = entry(self.dataset, index, reason)

    def _check(self) -> None:
        total = len(self.dataset)
        if len(self.entries) > allowed(total):
            first = next(iter(self.entries.values())).rstrip().replace("\t", ": ")
            raise too_many(len(self.entries), total, first)


def count_bad_images(
    dataset: LandmarkDataset, folder: Path, resumed: bool, log_line: Callable[[str], None]
) -> BadImages | None:
    """Return what counts a run's bad images, if they are skipped.

    Without that, a run that isn't resumed takes away an earlier one's list.
    """
    if dataset.skip_bad:
        return BadImages(folder, dataset, resumed, log_line)
    if not resumed:
        write_list(folder / LIST, [])
    return None
