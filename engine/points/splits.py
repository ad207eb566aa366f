"""One's own annotated images as the evaluation wants them: read, checked and split [spec 16]."""

import argparse
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data_loader.bad_images import image_options
from data_loader.folder import add_cutout_arguments
from data_loader.instances import BOXES, with_boxes
from data_loader.keypoints import Keypoints
from data_loader.readers.keypoint_files import file_key, read_keypoints
from data_loader.readers.keypoint_table import (
    KeypointTable,
    check_same_names,
    named,
    places_of,
    select,
)
from data_loader.splits import Groups, check_share, folds, group_names, split_off
from engine.run.settings import Settings
from utils.arguments import ArgumentParser, Gather, as_list, fraction, integer, unit_interval
from utils.errors import InputError

TEST_SHARE = 0.3
FOLDS, FOLDS_BELOW = 3, 50  # by default; annotated instances
Files = str | list[str]  # one, or several
ENDINGS = ("csv", "json", "tps", "tsv", "txt", "xls")  # of texts; ImageJ's .xls is one
ANNOTATIONS = re.compile(rf"[^.].*\.({'|'.join(ENDINGS)})", re.IGNORECASE)  # none is hidden


def flip_pair(text: str) -> tuple[str, str]:
    """Parse two names with a colon between, such as ``left_eye:right_eye``."""
    names = text.split(":")
    if len(names) != 2 or not all(names):
        raise argparse.ArgumentTypeError(f"expected two points, LEFT:RIGHT, got {text!r}")
    return names[0], names[1]


def fold_count(text: str) -> int:
    """Parse a number of folds: 0, or from 2 on."""
    return 0 if text == "0" else integer(2, 1000)(text)


def annotation_files(path: str) -> list[str]:
    """Return the annotation files that a path leads to: itself, or a folder's, by their names."""
    if not os.path.isdir(path):
        return [path]
    try:
        names = [name for name in sorted(os.listdir(path)) if ANNOTATIONS.fullmatch(name)]
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{path}: {error.strerror}") from None
    if not names:
        message = f"{path}: holds no annotations, named *.{', *.'.join(ENDINGS)}"
        raise argparse.ArgumentTypeError(message)
    return [os.path.join(path, name) for name in names]


def add_keypoint_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare which of one's own annotations to read, and how they are split."""
    group = parser.add_argument_group("own annotations (--dataset Keypoints)")
    files: dict[str, Any] = {"type": annotation_files, "action": Gather}
    files |= {"nargs": "+", "metavar": "FILE"}
    group.add_argument(
        "--annotations",
        **files,
        help="named points: COCO keypoints JSON, DeepLabCut's CSV, ImageJ's Results, plain CSV or "
        ".tps; several files, or a folder of them, are taken together; the images are below "
        "--data_folder, or beside the first file",
    )
    group.add_argument(
        "--val_annotations", **files, help="of validation images, which pick the best epoch"
    )
    group.add_argument("--test_annotations", **files, help="of test images")
    group.add_argument(
        "--test_share",
        type=unit_interval,
        metavar="FRACTION",
        help="hold out this fraction of the instances, at random by --seed, as test images "
        f"[{TEST_SHARE}, where nothing else says how to judge and {FOLDS_BELOW} are annotated]; 0 "
        "trains on all of them, and nothing is left to judge by",
    )
    group.add_argument(
        "--val_share",
        type=unit_interval,
        metavar="FRACTION",
        default=0.0,
        help="without --val_annotations: hold out this fraction, too, to pick the best epoch by",
    )
    group.add_argument(
        "--folds",
        type=fold_count,
        metavar="K",
        help="as many fits, each judged by another part of the images, then one to all images, "
        f"whose confidence the others calibrate [{FOLDS} of half the steps, where nothing else "
        f"says how to judge and fewer than {FOLDS_BELOW} are annotated]; 0: the last one alone",
    )
    group.add_argument(
        "--fold", type=integer(1, 1000), metavar="N", help="with --folds: only the Nth of them"
    )
    group.add_argument(
        "--group_by",
        metavar="WHAT",
        help="what splits never part, beside the instances of an image: folder, the one that an "
        "image lies in; or a regular expression whose (first group's) match in the image's name "
        "says what it belongs to",
    )
    _add_reading_arguments(group)


def _add_reading_arguments(group: argparse._ArgumentGroup) -> None:
    """Declare how a file is read, and how its instances become squares."""
    group.add_argument(
        "--y_up", action="store_true", help="a plain CSV's y runs upwards from the lower edge"
    )
    group.add_argument(
        "--y_down",
        action="store_true",
        help="a .tps file's y runs downwards, as R and others write it, not as tpsDig does",
    )
    group.add_argument(
        "--category", metavar="NAME", help="of a COCO file of several categories, the one meant"
    )
    group.add_argument(
        "--on_missing_point",
        choices=["stop", "skip"],
        default="stop",
        help="stop if no training image has one of the points, or leave that point out",
    )
    group.add_argument(
        "--box",
        choices=BOXES,
        default="annotated",
        help="cut instances out by their annotated boxes (whole images where there are none), by "
        "boxes around their annotated points (also of test images: their truth is used), or take "
        "whole images",
    )
    add_cutout_arguments(group)
    group.add_argument(
        "--flip_pairs",
        type=flip_pair,
        nargs="+",
        metavar="LEFT:RIGHT",
        help="points that a mirror swaps; those that the file or their names tell if not given",
    )
    group.add_argument(
        "--calibrate_at",
        type=fraction,
        default=0.05,
        metavar="FRACTION",
        help="make the readout's confidence, on validation or else test images, the probability "
        "that a point is off by at most this fraction of the diagonal of its box, or of the image "
        "where there is none; predict.py gives it",
    )
    group.add_argument(
        "--mirror",
        choices=["auto", "on", "off"],
        default="auto",
        help="train on mirrored images, too: half of the views of --regressor finetune, a copy of "
        "each image for the others; auto does so for finetune where pairs are known",
    )


@dataclass(frozen=True)
class KeypointSettings(Settings):
    """Which annotations are read, and how they are split and framed."""

    data_folder: str | None
    annotations: Files | None
    val_annotations: Files | None
    test_annotations: Files | None
    test_share: float | None
    val_share: float
    folds: int | None
    fold: int | None
    group_by: str | None
    y_up: bool
    y_down: bool
    category: str | None
    fit: str
    box: str
    boxes: str | None
    box_margin: float
    flip_pairs: list[tuple[str, str]] | None
    mirror: str
    calibrate_at: float
    seed: int
    image_size: int
    image_crop: int
    on_bad_image: str
    on_missing_point: str
    imagelist: str | None

    @property
    def folder(self) -> Path:
        """Of the images."""
        return Path(self.data_folder or Path(as_list(self.annotations)[0]).parent)

    @property
    def says_how_to_judge(self) -> bool:
        """Whether a flag says which images are held out."""
        told = (self.test_annotations, self.val_annotations, self.test_share, self.folds)
        return told != (None,) * 4 or self.val_share > 0

    def without_folds(self) -> "KeypointSettings":
        """Return settings by which a share is held out where nothing says how to judge."""
        return self if self.says_how_to_judge else replace(self, test_share=TEST_SHARE)

    def check(self) -> None:
        """Raise an `InputError` if flags don't go together."""
        if self.annotations is None:
            raise InputError("--dataset Keypoints: give --annotations FILE")
        if self.imagelist is not None:
            raise InputError("--imagelist: not with --dataset Keypoints, whose files name images")
        tests = ("test_annotations", "test_share", "folds")
        given = [f"--{name}" for name in tests if getattr(self, name) is not None]
        if len(given) > 1 and "--test_share" in given:  # folds may be judged beside tests
            raise InputError(f"{' and '.join(given)} exclude each other")
        if self.y_up and self.y_down:
            raise InputError("--y_up and --y_down exclude each other")
        if self.val_annotations is not None and self.val_share:
            raise InputError("--val_annotations and --val_share exclude each other")
        if self.boxes is not None and self.box != "annotated":
            raise InputError(f"--boxes and --box {self.box} exclude each other")
        if (self.fold or 0) > (self.folds or 0):
            raise InputError(f"--fold {self.fold}: there are {self.folds or 'no'} --folds")


def refuse_keypoint_flags(
    options: Mapping[str, object], *declare: Callable[[argparse.ArgumentParser], None]
) -> None:
    """Raise an `InputError` if a flag of one's own annotations is set, for a benchmark.

    ``declare`` are what else declares such flags.
    """
    parser = ArgumentParser("")
    for add in (add_keypoint_arguments, *declare):
        add(parser)
    for name, default in vars(parser.parse_args([])).items():
        if options[name] != default:
            raise InputError(f"--{name}: only of --dataset Keypoints")


def count_folds(settings: KeypointSettings, groups: Groups) -> int:
    """Return in how many folds N instances of these groups are judged; 0 without folds."""
    if settings.folds is not None:
        return settings.folds
    distinct = len(set(groups))
    if settings.says_how_to_judge or len(groups) >= FOLDS_BELOW or distinct == 1:
        return 0
    return min(FOLDS, distinct)


class Splits(NamedTuple):
    """The images to train on, and those of ``Val`` and ``Test``, or else ``All``.

    ``fold`` is the number of the fold that is held out, from 1, if there are several.
    """

    train: Keypoints
    held_out: dict[str, Keypoints]
    fold: int | None = None


def keypoint_splits(settings: KeypointSettings, **options: Any) -> Iterator[Splits]:
    """Yield the splits of one's own annotated images: one of each fold, if any, and a last one.

    In the last one, no fold is held out. With ``--fold`` there is that fold alone.

    ``options`` are `TPS_aug` of the training images.

    Raises:
        InputError: if the files can't be read, don't fit each other, or can't be split.
    """
    settings.check()
    assert settings.annotations is not None  # else that is an error
    whole = read(settings, settings.annotations)
    fixed = {
        split: read(settings, given, whole)
        for split, given in (("Val", settings.val_annotations), ("Test", settings.test_annotations))
        if given is not None
    }
    check_apart(settings, {"training": whole, **fixed})
    groups = np.array(group_names(whole.images, settings.group_by))
    if count_folds(settings, groups):
        learnable_points(settings, whole)  # before the folds, not after them
    for fold, test in held_out_rows(settings, groups):
        val = np.zeros_like(test)
        if settings.val_share:
            # A share of all, of which some are held out already.
            share = settings.val_share * len(test) / np.count_nonzero(~test)
            val[~test] = split_off(groups[~test], min(share, 1), settings.seed + 1)
        training, parts = select(whole, ~(test | val)), {"Test": test, "Val": val}
        tables = {s: select(whole, rows) for s, rows in parts.items() if rows.any()}
        tables |= {s: table for s, table in fixed.items() if s not in tables}
        # Nothing is held out: what was learnt is all that there is to look at.
        tables = tables or {"All": whole}
        names = learnable_points(settings, training, fold is not None and settings.folds is None)
        held_out = {
            split: build(settings, of_points(tables[split], names), split)
            for split in sorted(tables, reverse=True)  # Val, then Test
        }
        train = build(settings, of_points(training, names), "train", **options)
        if left_out := [name for name in whole.names if name not in names]:
            train.notices.append(f"left out, as no training image has them: {', '.join(left_out)}")
        train.check_landmarks()
        yield Splits(train, held_out, fold)


def held_out_rows(
    settings: KeypointSettings, groups: np.ndarray
) -> Iterator[tuple[int | None, np.ndarray]]:
    """Yield which of N instances are test images, bool (N,), and the fold's number if any."""
    count = count_folds(settings, groups)
    if count:
        fold_of = folds(groups, count, settings.seed)
        for fold in [settings.fold] if settings.fold else range(1, count + 1):
            yield fold, fold_of == fold - 1
        if settings.fold:
            return
    share = TEST_SHARE if settings.test_share is None else settings.test_share
    if count or settings.folds == 0 or settings.test_annotations is not None or share == 0:
        yield None, np.zeros(len(groups), dtype=bool)
        return
    check_share(share, settings.val_share)
    yield None, split_off(groups, share, settings.seed)


def read(
    settings: KeypointSettings, given: Files, like: KeypointTable | None = None
) -> KeypointTable:
    """Read annotation files, whose points must be those of others."""
    paths, ways = [Path(file) for file in as_list(given)], ("y_up", "y_down", "category")
    how: dict[str, Any] = {name: getattr(settings, name) for name in ways}
    table = read_keypoints(paths, settings.folder, **how)
    if settings.boxes is not None:
        table = with_boxes(table, Path(settings.boxes), settings.folder)
    if like is not None:
        others = named(as_list(settings.annotations))
        check_same_names(named(paths), table.names, others, like.names)
    return table


def learnable_points(
    settings: KeypointSettings, training: KeypointTable, skip: bool = False
) -> list[str]:
    """Return the names of the points that a training instance has.

    Raises:
        InputError: if there are others, unless ``skip`` or a flag says to leave them out.
    """
    has = ~np.isnan(training.points).all(axis=(0, 2))  # (A,)
    missing = [name for name, is_there in zip(training.names, has, strict=True) if not is_there]
    if missing and settings.on_missing_point == "stop" and not skip:
        raise InputError(
            f"{named(as_list(settings.annotations))}: none of the {len(training.images):,} "
            f"training instances has {', '.join(missing[:3])} ({len(missing)} of {len(has)} "
            "points); --on_missing_point skip leaves such points out"
        )
    return [name for name, is_there in zip(training.names, has, strict=True) if is_there]


def of_points(table: KeypointTable, names: list[str]) -> KeypointTable:
    """Return a table of some of its points alone, in their order."""
    places, own = places_of(names, table.names), set(names)
    return table._replace(
        names=names,
        points=table.points[:, places],
        flip_pairs=[pair for pair in table.flip_pairs if set(pair) <= own],
        sigmas=None if table.sigmas is None else table.sigmas[places],
    )


def check_apart(settings: KeypointSettings, tables: dict[str, KeypointTable]) -> None:
    """Raise an `InputError` if an image is in two of the splits."""
    seen: dict[object, str] = {}
    for split, table in tables.items():
        paths = {file_key(path): path for path in map(settings.folder.joinpath, table.images)}
        if again := next(filter(seen.get, paths), None):
            raise InputError(
                f"{paths[again].resolve()}: among the {seen[again]} images and the {split.lower()} "
                "images: an image that was trained on can't tell how good other predictions are"
            )
        seen |= dict.fromkeys(paths, split.lower())


def build(
    settings: KeypointSettings, table: KeypointTable, split: str, **options: Any
) -> Keypoints:
    """Return a split's images."""
    is_training, pairs = split == "train", settings.flip_pairs
    if pairs is not None and settings.on_missing_point == "skip":
        pairs = [pair for pair in pairs if set(pair) <= set(table.names)]
    dataset = Keypoints(
        table,
        settings.folder,
        split.lower(),
        fit=settings.fit,
        box=settings.box,
        margin=settings.box_margin,
        flip_pairs=pairs,
        groups=group_names(table.images, settings.group_by) if is_training else None,
        **image_options(settings.image_size, settings.image_crop, settings.on_bad_image),
        **(options if is_training else {}),
    )
    if is_training:
        dataset.notices = [*table.notices, *dataset.notices]
        if dataset.flip_order is None and settings.mirror == "on":
            dataset.flip_order = np.arange(dataset.num_landmarks)
            dataset.notices.append("--mirror on: no pairs are known, each point is its own mirror")
    return dataset
