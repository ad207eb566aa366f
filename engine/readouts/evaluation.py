"""The run that the evaluation scripts share: encode, fit, score, record [spec 5, 7]."""

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import torch

from data_loader.bad_images import leave_out, list_left_out
from data_loader.few_shot import add_few_shot_arguments, restrict, save_picks
from data_loader.landmark_dataset import LandmarkDataset
from data_loader.loaders import add_loader_arguments, check_same_images, worker_notice
from engine.features.cache import FeatureCache, add_feature_cache_arguments
from engine.features.encoder_loading import load_frozen_encoder, use_colours
from engine.features.images import EncodedImages, Encoding, encode_dataset
from engine.features.squares import AnnotatedSquares
from engine.readouts.kinds import (
    READOUTS,
    add_kind_argument,
    build_readout,
    check_own_maps,
    refuse_other_kind,
)
from engine.readouts.readout import EvaluationSettings, Readout
from engine.readouts.task import Task, check_judged, find_landmarks
from engine.run.acceleration import choose_precision
from engine.run.resumption import find_checkpoint, open_checkpoint, start_run
from engine.run.settings import (
    add_device_arguments,
    add_output_arguments,
    add_shared_arguments,
    describe_device,
)
from models.encoders import Levels, add_encoder_arguments
from models.landmarks import Landmarks
from utils.arguments import ArgumentParser, add_ignored_arguments, ignored_notices
from utils.errors import InputError
from utils.files import write_text
from utils.log import RunLog
from utils.process_group import leave_process_group
from utils.randomness import seed_everything

SELDOM = 10**6  # epochs between checkpoints that stay
IGNORED = {"bn": False, "crop": 0.2, "tb_freq": 500}
Score = Callable[[dict[str, Landmarks], Path, RunLog], dict[str, object]]
Calibrate = Callable[[Readout, dict[str, EncodedImages], RunLog], dict[str, object]]


def add_evaluation_arguments(
    parser: ArgumentParser, *, batch_size: int, num_workers: int, save_freq: int
) -> None:
    """Declare the options that `run_evaluation` reads [spec 8]."""
    add_loader_arguments(parser, batch_size=batch_size, num_workers=num_workers)
    add_encoder_arguments(parser, layer=3)
    add_feature_cache_arguments(parser)
    add_readout_arguments(parser)
    add_few_shot_arguments(parser)
    add_shared_arguments(add_output_arguments(parser, save_freq=save_freq), "log_path")
    # A fine-tuning leaves little, unless more is asked for.
    tuned = [kind.kind for kind in READOUTS.values() if kind.trains_encoder]
    parser.choose_default(
        "save_freq", lambda o: SELDOM if o.regressor in tuned else save_freq, last=True
    )
    add_device_arguments(parser)
    add_ignored_arguments(parser, **IGNORED)


def add_readout_arguments(parser: ArgumentParser) -> None:
    """Declare the kind of readout, and the options of all kinds' fits."""
    add_kind_argument(parser.add_argument_group("readout"))
    for kind in READOUTS.values():
        kind.add_arguments(parser)


def flags_without_effect(settings: EvaluationSettings, kind: type[Readout]) -> list[str]:
    """Return a line for each flag that is set and that the kind of readout ignores.

    Raises:
        InputError: for a flag that it can't be used with.
    """
    check_own_maps(kind, settings.projection)
    parser = ArgumentParser("")
    add_readout_arguments(parser)
    add_few_shot_arguments(parser)
    defaults = vars(parser.parse_args([]))
    ignored = {name: defaults[name] for name in kind.ignored}
    lines = ignored_notices(settings.options, f"with --regressor {kind.kind}", **ignored)
    if getattr(settings.options, "curve", ()) is None:
        lines += ignored_notices(settings.options, "without --curve", curve_seeds=None)
    return lines


def run_evaluation(
    settings: EvaluationSettings,
    device: torch.device,
    task: Task,
    train_set: LandmarkDataset,
    held_out_sets: Mapping[str, LandmarkDataset],
    score: Score | None = None,
    calibrate: Calibrate | None = None,
) -> dict[str, object] | None:
    """Fit a regressor on a frozen encoder's features, or fine-tune both, and evaluate it.

    Args:
        settings: the options of `add_evaluation_arguments`.
        device: to compute on.
        task: loss and metrics of the benchmark.
        train_set: annotated images, of which a few are picked if asked for.
        held_out_sets: split to its images.
        score: is called after the fit, with what was found in each split's images, in their
            order, the run's folder and its log; returns further entries of the result.
        calibrate: is called in the end, with the readout, the encoded images by split and the log;
            returns further entries, too.

    Returns:
        What ``result.json`` holds, in the first rank.
    """
    seed_everything(settings.seed)
    log, kind = RunLog(), READOUTS[settings.regressor]
    log.line(*ignored_notices(settings.options, **IGNORED), *flags_without_effect(settings, kind))

    # ---- data sets, encoder, readout ----
    left_out = check_images(settings, task, train_set, held_out_sets, log)
    found = open_readout(settings, kind, [train_set, *held_out_sets.values()], log)
    picks = restrict(
        train_set,
        settings.restrict_annos,
        repeat=settings.repeat and "repeat" not in kind.ignored,
        num_per_epoch=settings.num_per_epoch,
        seed=settings.seed,
        noted_in=found[0].parent if found else None,
    )
    if kind.trains_encoder:
        settings = settings.with_options(amp=choose_precision(settings.amp, device, found, log))
    train_set.mirror = choose_mirror(settings, kind, train_set)
    train_set.add_copies()
    encoder = load_frozen_encoder(settings, train_set.side, log).to(device)
    use_colours(encoder, train_set, *held_out_sets.values(), noted_in=settings.trained_model_path)
    readout = build_readout(kind, encoder, settings, train_set.num_landmarks, train_set.side)
    readout.begin(settings, task, device, train_set, found)
    digest = readout.encoder_digest

    # ---- the run's folder, log and result ----
    counts = {"training": len(train_set), **{k: len(v) for k, v in held_out_sets.items()}}
    splits = ", ".join(f"{count} {split}" for split, count in counts.items())
    heading = (
        f"{settings.dataset}: {splits} images of {train_set.side} px; {settings.model}"
        f"{' (untrained)' if settings.random_network else ''} on "
        f"{describe_device(device, settings.gpu)}; to {settings.folder}"
    )
    start_run(settings, {"encoder_digest": digest}, readout.done, log, settings.log_path, heading)
    save_picks(settings.folder, picks)
    log.line(*list_left_out(left_out, settings.folder))
    cache_folder = settings.cache_folder or Path(f"{settings.model_path}_cache")
    cache = FeatureCache(settings.feature_cache, cache_folder, settings.cache_gb, device)
    encode = partial(encode_split, settings, readout, cache, log)
    encoded = {split: encode(images) for split, images in held_out_sets.items()}
    train = None if kind.trains_encoder else encode(train_set, shuffle=True)
    if not leave_process_group():
        return None  # the rest is done by the first rank
    held_out = {split: images for split, images in encoded.items() if images is not None}
    images = AnnotatedSquares(train_set, settings.num_workers) if train is None else train
    fitted = readout.fit(images, held_out, log)
    if score is not None:
        predicted = {split: find_landmarks(readout, images) for split, images in held_out.items()}
        fitted |= score(predicted, settings.folder, log)
    if calibrate is not None:
        fitted |= calibrate(readout, held_out, log)
    result = {"dataset": settings.dataset, "unit": task.unit, "images": counts, **fitted}
    result["encoder_digest"] = digest
    write_text(settings.folder / "result.json", json.dumps(result, indent=1) + "\n")
    return result


def choose_mirror(
    settings: EvaluationSettings, kind: type[Readout], train_set: LandmarkDataset
) -> str:
    """Return what of the training images is mirrored, as ``--mirror`` says; see `Keypoints`."""
    asked = getattr(settings.options, "mirror", "off")
    if asked == "auto":
        asked = "on" if kind.trains_encoder else "off"
    if asked == "off" or train_set.flip_order is None:
        return "off"
    return "views" if kind.trains_encoder else "copies"


def open_readout(
    settings: EvaluationSettings, kind: type[Readout], datasets: list[LandmarkDataset], log: RunLog
) -> tuple[Path, dict] | None:
    """Return the checkpoint to resume, see `open_checkpoint`; the data sets' points follow it."""
    try:
        found = open_checkpoint(settings, kind.keys, log)
    except InputError:
        any_kind = find_checkpoint(settings, ("opt", "epoch"), log)
        if any_kind is not None:
            refuse_other_kind(*any_kind, kind)
        raise
    for dataset in datasets if found else ():
        dataset.order_points(*found)  # type: ignore[misc]  # a pair, then
    return found


def check_images(
    settings: EvaluationSettings,
    task: Task,
    train_set: LandmarkDataset,
    held_out_sets: Mapping[str, LandmarkDataset],
    log: RunLog,
) -> dict[str, dict[str, str]]:
    """Take unreadable images out of the data sets where that is asked for; see `leave_out`.

    Raises:
        InputError: if a split can't be read or judged.
    """
    check_same_images(train_set, *held_out_sets.values())
    log.line(*worker_notice(settings.num_workers))
    for images in (train_set, *held_out_sets.values()):
        log.line(*images.count_notice())
    left_out = leave_out({"training": train_set, **held_out_sets}, settings.num_workers)
    log.line(*check_judged(task, held_out_sets))
    return left_out


def encode_split(
    settings: EvaluationSettings,
    readout: Readout,
    cache: FeatureCache,
    log: RunLog,
    dataset: LandmarkDataset,
    shuffle: bool = False,
) -> EncodedImages | None:
    """Return the images of a split as the maps that a readout sees, shuffled for training.

    All ranks encode; the first one has the features then, the others None.
    """
    digest, levels = readout.encoder_digest, readout.levels
    if readout.trains_encoder:  # its maps change
        digest, levels = "pixels", Levels(readout.sees, None)
    return encode_dataset(
        Encoding(readout.encoder, digest, levels),
        dataset,
        batch_size=settings.batch_size,
        num_workers=settings.num_workers,
        seed=settings.seed,
        shuffle=shuffle,
        cache=cache,
        log=log,
    )
