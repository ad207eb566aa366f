"""Images that can't be read: left out of annotated sets, replaced in pre-training, and listed.

Few enough are put up with where ``--on_bad_image skip`` asks for it; a data set whose ``skip_bad``
isn't set raises at the first one. A list has one image a line: its path, a tab and the reason,
both as `printable` makes them; the same in memory is a dict of path to reason.

Letters: B items of a batch.
"""

import argparse
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from data_loader.image_set import ImageSet
from data_loader.items import PairItem, SquareItem
from data_loader.landmark_dataset import LandmarkDataset
from data_loader.loaders import read_all
from utils.arguments import allow_change, integer, natural
from utils.collectives import broadcast_from_first
from utils.errors import ImageError, InputError
from utils.files import printable, write_text, writing
from utils.process_group import is_first_rank

T = TypeVar("T")

LIST = "bad_images.txt"
IMAGES_PER_BAD = 100  # one of so many may be bad
PASSED = "could be read only later"
image_side = integer(1, 10_000)  # parses --image_size


def add_image_arguments(
    parser: argparse._ActionsContainer,
    *,
    image_size: int,
    image_crop: int | None,
    default_crop: str = "",
) -> None:
    """Declare `image_options`'s flags on a group that has ``--data_folder``.

    ``default_crop`` says in words what the crop is by default, where that depends on other options.
    """
    parser.add_argument(
        "--image_size",
        type=image_side,
        default=image_size,
        metavar="PX",
        help="side of the square that an image is resized to",
    )
    parser.add_argument(
        "--image_crop",
        type=natural,
        default=image_crop,
        metavar="PX",
        help=f"pixels cut off each side of that square; the network sees the rest{default_crop}",
    )
    parser.add_argument(
        "--on_bad_image",
        choices=["stop", "skip"],
        default="stop",
        help=f"stop at an image that can't be read, or skip up to 1 in {IMAGES_PER_BAD}, which "
        f"{LIST} beside the checkpoints or drawings then lists: pre-training takes the next image "
        "in their place, all else goes without",
    )
    allow_change("on_bad_image", "data_folder", keeps_results=False)


def image_options(image_size: int, image_crop: int, on_bad_image: str) -> dict[str, Any]:
    """Return arguments of `ImageSet`, given the flags of those names."""
    return {"imwidth": image_size, "crop": image_crop, "skip_bad": on_bad_image == "skip"}


def check_few(complaints: Collection[str], total: int, kind: str = "") -> None:
    """Raise an `InputError` if more of so many images than are allowed are bad: path and reason."""
    allowed = total // IMAGES_PER_BAD
    if len(complaints) > allowed:
        raise InputError(
            f"{len(complaints):,} of {total:,} {kind}images can't be read, where --on_bad_image "
            f"skip allows {allowed:,} (1 in {IMAGES_PER_BAD}); the first: {next(iter(complaints))}"
        )


def complaint(dataset: ImageSet, index: int) -> str:
    """Return why an image can't be read, without its path; nothing if it can."""
    try:
        # A landmark's place may depend on a size that couldn't be read.
        read = dataset.base_item if isinstance(dataset, LandmarkDataset) else dataset.read_square
        read(index)
    except ImageError as error:
        return reason_of(error, dataset, index)
    return ""


def reason_of(error: ImageError, dataset: ImageSet, index: int) -> str:
    """Return what an error says about an image but for its path."""
    return str(error).removeprefix(f"{dataset.path(index)}: ")


def write_list(path: Path, reasons: Collection[tuple[str, str]]) -> None:
    """Write a list of paths and reasons; without any, there is no file. The first rank does."""
    if not is_first_rank():
        return
    with writing(path):
        if reasons:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text(path, "".join(f"{name}\t{reason}\n" for name, reason in reasons))
        else:
            path.unlink(missing_ok=True)


def read_list(path: Path) -> dict[str, str]:
    """Return a list that `write_list` wrote; nothing if there is none."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    return {name: reason for name, _, reason in (line.partition("\t") for line in lines)}


# ---- annotated sets: the bad images are found beforehand ----


def complaints(dataset: ImageSet, num_workers: int) -> list[str]:
    """Return the `complaint` of each image."""
    batches = read_all(dataset, partial(complaint, dataset), num_workers, "checking")
    return [reason for batch in batches for reason in batch]


def leave_out(splits: Mapping[str, LandmarkDataset], num_workers: int) -> dict[str, dict[str, str]]:
    """Read all images of the data sets that skip bad ones, and remove those from them.

    The first rank reads, see `read_all`.

    Returns:
        For each split with bad ones a line that counts them, and their list.

    Raises:
        InputError: if a split has more bad ones than are allowed.
    """
    left_out = {}
    for split, dataset in splits.items():
        if not dataset.skip_bad:
            continue
        reasons = broadcast_from_first(partial(complaints, dataset, num_workers))
        bad = {i: reason for i, reason in enumerate(reasons) if reason}
        messages = [f"{dataset.path(i)}: {bad[i]}" for i in bad]
        check_few(messages, len(dataset), f"{split.lower()} ")
        if bad:
            count = f"{len(bad):,} of {len(dataset):,} {split.lower()} images"
            listed = {printable(dataset.path(i)): printable(bad[i]) for i in bad}
            left_out[f"{count} can't be read, left out"] = listed
            dataset.select([i for i, reason in enumerate(reasons) if not reason])
    return left_out


def list_left_out(left_out: Mapping[str, dict[str, str]], folder: Path) -> list[str]:
    """List the images that were left out, in place of an earlier list; return lines for the log."""
    reasons = {k: v for listed in left_out.values() for k, v in listed.items()}
    write_list(folder / LIST, reasons.items())
    return [f"{line}: listed in {folder / LIST}" for line in left_out]


# ---- pre-training: bad images are replaced where they are met ----


def first_good(dataset: ImageSet, tries: Iterable[Callable[[], T]]) -> tuple[T, int]:
    """Return the item of the first image that can be read, and how many before it can't be.

    All get the same random numbers.

    Raises:
        ImageError: at the first bad image, unless the data set skips them; or if all are bad.
        InputError: if more than are allowed are bad.
    """
    state, messages = torch.get_rng_state(), list[str]()
    for make in tries:
        try:
            return make(), len(messages)
        except ImageError as error:
            dataset.forgive(error)
            messages.append(str(error))
            check_few(messages, len(dataset))
            torch.set_rng_state(state)
    raise ImageError(messages[0])


def replacing(
    dataset: ImageSet, make: Callable[[int], PairItem | SquareItem], index: int
) -> PairItem | SquareItem:
    """Return the item of an image; if bad images are skipped and it is one, of the next good one.

    The one that takes its place gets the random numbers that the bad one would have had. The first
    image follows the last.
    """
    total = len(dataset)
    tries = (partial(make, place % total) for place in range(index, index + total))
    item, bad = first_good(dataset, tries)
    return item._replace(index=index, bad=bad)


class BadImages:
    """The bad images that a run has met: counted, and listed in the run's folder.

    A run that isn't resumed removes an earlier one's list, also where bad images aren't skipped.

    Args:
        folder: the run's.
        dataset: of the images.
        resumed: add to the list in the folder, which counts for nothing else; else begin one.
        log_line: logs a line, such as about the first one.

    Raises:
        InputError: if the list can't be written.
    """

    def __init__(
        self, folder: Path, dataset: ImageSet, resumed: bool, log_line: Callable[[str], None]
    ) -> None:
        self.list, self.dataset, self.log_line = folder / LIST, dataset, log_line
        self.met: dict[int, str] = {}  # place to complaint, since the run was started
        self.reasons = read_list(self.list) if resumed else {}  # by path
        write_list(self.list, self.reasons.items())
        self.report()

    def note(self, found: Tensor) -> None:
        """Record what was replaced in a batch: ``index`` and ``bad`` of its items, (B, 2).

        Raises:
            InputError: if more images than are allowed have been met; or the list can't be written.
        """
        total = len(self.dataset)
        for first, count in found[found[:, 1] > 0].tolist():
            for index in (place % total for place in range(first, first + count)):
                if index not in self.met:
                    self._add(index)

    def report(self) -> None:
        """Log how many there are, if any."""
        if self.reasons and self.dataset.skip_bad:
            self.log_line(
                f"{len(self.reasons):,} of {len(self.dataset):,} images can't be read so far, "
                f"replaced: listed in {self.list}"
            )

    def _add(self, index: int) -> None:
        path = printable(self.dataset.path(index))
        # The reason stays in the process that met it; reading the image again finds it.
        reason = printable(complaint(self.dataset, index) or PASSED)
        if not self.reasons:
            self.log_line(
                f"{path}: {reason}; the next image takes its place, as for all that {self.list} "
                "will list"
            )
        self.reasons[path] = reason
        write_list(self.list, self.reasons.items())
        self.met[index] = f"{path}: {reason}"
        # An image that is there several times, as for boxes, counts once.
        check_few(dict.fromkeys(self.met.values()), len(self.dataset))
