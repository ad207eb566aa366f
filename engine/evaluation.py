"""The run that the evaluation scripts share: encode, fit, score, record [spec 5, 7]."""

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import torch

from data_loader.bad_images import LeftOut, leave_out, list_left_out
from data_loader.few_shot import add_few_shot_arguments, restrict, save_picks
from data_loader.landmark_dataset import LandmarkDataset
from data_loader.loaders import add_loader_arguments, check_same_images, worker_notice
from engine.annotated_squares import AnnotatedSquares
from engine.encoded_images import EncodedImages, Encoding, Pixels
from engine.encoder_loading import load_frozen_encoder, use_colours
from engine.feature_cache import FeatureCache, add_feature_cache_arguments
from engine.features import encode_dataset
from engine.finetune_run import FinetuneRun
from engine.regressor_run import EvaluationSettings, RegressorRun
from engine.regressor_training import (
    FINETUNE_KEYS,
    KINDS,
    REGRESSOR_KEYS,
    RIDGE_KEYS,
    Landmarks,
    Task,
    add_finetune_arguments,
    add_regressor_arguments,
    build_regressor,
    check_judged,
    check_own_maps,
    predict_landmarks,
    refuse_other_kind,
)
from engine.resumption import find_checkpoint, open_checkpoint, start_run
from engine.ridge_run import RidgeRun
from engine.run import (
    add_device_arguments,
    add_log_argument,
    add_output_arguments,
    describe_device,
)
from models.encoders import Encoder, add_encoder_arguments, choose_levels, weights_digest
from models.ridge import RidgeReadout
from utils.arguments import ArgumentParser, add_ignored_arguments, ignored_notices
from utils.errors import InputError
from utils.files import write_text
from utils.log import RunLog
from utils.process_group import leave_process_group
from utils.randomness import seed_everything

IGNORED = {"bn": False, "crop": 0.2, "tb_freq": 500}
ENTRIES = {kind: entry for entry, kind in KINDS.items()}
Score = Callable[[dict[str, Landmarks], Path, RunLog], dict[str, object]]
Run = RidgeRun | RegressorRun | FinetuneRun
Calibrate = Callable[[Run, dict[str, EncodedImages], RunLog], None]
KEYS = {"published": REGRESSOR_KEYS, "ridge": RIDGE_KEYS, "finetune": FINETUNE_KEYS}


def add_evaluation_arguments(
    parser: ArgumentParser, *, batch_size: int, num_workers: int, save_freq: int
) -> None:
    """Declare the options that `run_evaluation` reads [spec 8]."""
    add_loader_arguments(parser, batch_size=batch_size, num_workers=num_workers)
    add_encoder_arguments(parser, layer=3)
    add_feature_cache_arguments(parser)
    add_regressor_arguments(parser)
    add_finetune_arguments(parser)
    add_few_shot_arguments(parser)
    add_log_argument(add_output_arguments(parser, save_freq=save_freq))
    add_device_arguments(parser)
    add_ignored_arguments(parser, **IGNORED)


def readout_notices(settings: EvaluationSettings) -> list[str]:
    """Return a line for each flag that is set and that the kind of readout ignores.

    Raises:
        InputError: for a flag that it can't be used with.
    """
    kind = settings.regressor
    if kind == "published":
        return []
    if kind == "finetune":
        check_own_maps(settings.projection)
    names = (
        "epochs learning_rate lr_decay_epochs lr_decay_rate cosine multistep momentum weight_decay "
        "adam amsgrad beta1 beta2 repeat num_per_epoch"
    )
    names += " TPS_aug" if kind == "finetune" else ""  # ridge is fitted to one warp of an image
    parser = ArgumentParser("")
    add_regressor_arguments(parser)
    add_few_shot_arguments(parser)
    defaults = vars(parser.parse_args([]))
    ignored = {name: defaults[name] for name in names.split()}
    return ignored_notices(settings.options, f"with --regressor {kind}", **ignored)


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
        calibrate: is called in the end, with the run, the encoded images by split and the log.

    Returns:
        What ``result.json`` holds, in the first rank.
    """
    seed_everything(settings.seed)
    log = RunLog()
    log.line(*ignored_notices(settings.options, **IGNORED), *readout_notices(settings))

    # ---- data sets, encoder, regressor ----
    left_out = check_images(settings, task, train_set, held_out_sets, log)
    kind = settings.regressor
    found = open_readout(settings, log)
    picks = restrict(
        train_set,
        settings.restrict_annos,
        repeat=settings.repeat and kind == "published",  # the others see to it themselves
        num_per_epoch=settings.num_per_epoch,
        seed=settings.seed,
        noted_in=found[0].parent if found else None,
    )
    train_set.add_copies()
    encoder = load_frozen_encoder(settings, train_set.side, log).to(device)
    use_colours(encoder, train_set, *held_out_sets.values(), noted_in=settings.trained_model_path)
    run, encoding = build_run(settings, task, train_set, encoder, device)
    digest = run.encoder_digest
    if found is not None:
        run.resume(*found)

    # ---- the run's folder, log and result ----
    where = describe_device(device, settings.gpu)
    counts = {"training": len(train_set), **{k: len(v) for k, v in held_out_sets.items()}}
    heading = f"{describe_run(settings, counts, train_set.side)} on {where}; to {settings.folder}"
    start_run(settings, {"encoder_digest": digest}, run.done, log, settings.log_path, heading)
    save_picks(settings.folder, picks)
    log.line(*list_left_out(left_out, settings.folder))
    to_encode = None if isinstance(run, FinetuneRun) else train_set
    train, held_out = encode_splits(settings, encoding, to_encode, held_out_sets, log)
    if not leave_process_group():
        return None  # the rest is done by the first rank
    if isinstance(run, FinetuneRun):
        fitted = run.fit(AnnotatedSquares(train_set, settings.num_workers), held_out, log)
    else:
        assert train is not None  # in the first rank
        fitted = run.fit(train, held_out, log)
    if score is not None:
        predicted = {s: predict_landmarks(run.readout, images) for s, images in held_out.items()}
        fitted |= score(predicted, settings.folder, log)
    if calibrate is not None:
        calibrate(run, held_out, log)
    result = {
        "dataset": settings.dataset,
        "unit": task.unit,
        "images": counts,
        **fitted,
        "encoder_digest": digest,
    }
    write_text(settings.folder / "result.json", json.dumps(result, indent=1) + "\n")
    return result


def describe_run(settings: EvaluationSettings, counts: Mapping[str, int], side: int) -> str:
    """Return in words which images, so many of each split, which encoder sees."""
    splits = ", ".join(f"{count} {split}" for split, count in counts.items())
    untrained = " (untrained)" if settings.random_network else ""
    return f"{settings.dataset}: {splits} images of {side} px; {settings.model}{untrained}"


def build_run(
    settings: EvaluationSettings,
    task: Task,
    train_set: LandmarkDataset,
    encoder: Encoder,
    device: torch.device,
) -> tuple[Run, Encoding]:
    """Return the fit that is asked for, not begun, and what it wants to see of images."""
    digest, notes = weights_digest(encoder), train_set.checkpoint_notes()
    levels = choose_levels(encoder, settings.layer, settings.use_hypercol)
    channels = encoder.feature_channels(levels.numbers)
    side, landmarks = train_set.side, train_set.num_landmarks
    if settings.regressor == "finetune":
        notes = {**notes, **train_set.noted_colours()}
        tuned = FinetuneRun(settings, task, encoder, landmarks, side, device, digest, notes)
        return tuned, Pixels(encoder)
    encoding = Encoding(encoder, digest, levels)
    if settings.regressor == "ridge":
        groups = train_set.item_groups()
        readout = RidgeReadout(channels, landmarks, side, levels.shape)
        return RidgeRun(settings, task, readout, device, digest, notes, groups), encoding
    regressor = build_regressor(channels, landmarks, levels.shape).to(device)
    return RegressorRun(settings, task, regressor, digest, notes), encoding


def open_readout(settings: EvaluationSettings, log: RunLog) -> tuple[Path, dict] | None:
    """Return the checkpoint to resume, see `open_checkpoint`; one of another kind is named so."""
    kind = settings.regressor
    try:
        return open_checkpoint(settings, KEYS[kind], log)
    except InputError:
        any_kind = find_checkpoint(settings.resume, settings.folder, ("opt", "epoch"), log)
        if any_kind is not None:
            refuse_other_kind(*any_kind, ENTRIES[kind])
        raise


def check_images(
    settings: EvaluationSettings,
    task: Task,
    train_set: LandmarkDataset,
    held_out_sets: Mapping[str, LandmarkDataset],
    log: RunLog,
) -> list[LeftOut]:
    """Take unreadable images out of the data sets where that is asked for; return them.

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


def encode_splits(
    settings: EvaluationSettings,
    encoding: Encoding,
    train_set: LandmarkDataset | None,
    held_out_sets: Mapping[str, LandmarkDataset],
    log: RunLog,
) -> tuple[EncodedImages | None, dict[str, EncodedImages]]:
    """Return the training images, in a new order each epoch, and the others as features.

    All ranks encode; the first one has the features then, the others None and nothing. Without
    training images, there are None of them.
    """
    folder = settings.cache_folder or Path(f"{settings.model_path}_cache")
    encoded = partial(
        encode_dataset,
        encoding,
        batch_size=settings.batch_size,
        num_workers=settings.num_workers,
        seed=settings.seed,
        cache=FeatureCache(settings.feature_cache, folder, settings.cache_gb, encoding.device),
        log=log,
    )
    held_out = {split: encoded(images, shuffle=False) for split, images in held_out_sets.items()}
    train = None if train_set is None else encoded(train_set, shuffle=True)
    return train, {split: images for split, images in held_out.items() if images is not None}
