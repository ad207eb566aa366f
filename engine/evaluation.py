"""The run that the evaluation scripts share: encode, fit, score, record [spec 5, 7]."""

import argparse
import json
from functools import partial
from pathlib import Path

import torch
from torch import nn

from data_loader.bad_images import leave_out, list_left_out
from data_loader.few_shot import add_few_shot_arguments, restrict, save_picks
from data_loader.landmark_dataset import LandmarkDataset
from data_loader.loaders import add_loader_arguments, check_same_images, worker_notice
from engine.encoded_images import EncodedImages, Encoding
from engine.encoder_loading import load_frozen_encoder
from engine.feature_cache import FeatureCache, add_feature_cache_arguments
from engine.features import encode_dataset
from engine.fitting import FitSettings, RegressorRun, in_words
from engine.regression import (
    REGRESSOR_KEYS,
    Task,
    add_regressor_arguments,
    baseline,
    build_optimizer,
    build_regressor,
    check_judged,
    mean_shape,
    resume_regressor,
)
from engine.resumption import forget_later_epochs, open_checkpoint
from engine.run import (
    add_device_arguments,
    add_log_argument,
    add_output_arguments,
    describe_device,
    plain_options,
    scalar_folder,
    start_folder,
)
from models.encoders import add_encoder_arguments, weights_digest
from utils.arguments import ArgumentParser, add_ignored_arguments, ignored_notices
from utils.errors import InputError
from utils.files import write_text
from utils.log import RunLog
from utils.process_group import leave_process_group
from utils.randomness import seed_everything
from utils.schedule import regressor_lr

IGNORED = {"bn": False, "crop": 0.2, "tb_freq": 500}


def add_evaluation_arguments(
    parser: ArgumentParser, *, batch_size: int, num_workers: int, save_freq: int
) -> None:
    """Declare the options that `run_evaluation` reads [spec 8]."""
    add_loader_arguments(parser, batch_size=batch_size, num_workers=num_workers)
    add_encoder_arguments(parser, layer=3)
    add_feature_cache_arguments(parser)
    add_regressor_arguments(parser)
    add_few_shot_arguments(parser)
    add_log_argument(add_output_arguments(parser, save_freq=save_freq))
    add_device_arguments(parser)
    add_ignored_arguments(parser, **IGNORED)


def run_evaluation(
    args: argparse.Namespace,
    device: torch.device,
    task: Task,
    train_set: LandmarkDataset,
    held_out_sets: dict[str, LandmarkDataset],
) -> None:
    """Fit a regressor on a frozen encoder's features and evaluate it.

    Args:
        args: the options that `add_evaluation_arguments` declares.
        device: to compute on.
        task: loss, metrics and baseline of the benchmark.
        train_set: annotated images, from which a few are drawn if asked for.
        held_out_sets: split to its images.
    """
    seed_everything(args.seed)
    check_same_images(train_set, *held_out_sets.values())
    folder = args.model_path / args.model_name
    notices = worker_notice(args.num_workers) + ignored_notices(args, **IGNORED)
    for images in (train_set, *held_out_sets.values()):
        notices += images.count_notice()
    left_out = leave_out({"training": train_set, **held_out_sets}, args.num_workers)
    found = open_checkpoint(args, folder, REGRESSOR_KEYS, notices)
    picks = restrict(
        train_set,
        args.restrict_annos,
        repeat=args.repeat,
        num_per_epoch=args.num_per_epoch,
        seed=args.seed,
        noted_in=found[0].parent if found else None,
    )

    encoder = load_frozen_encoder(
        args.model,
        train_set.side,
        args.trained_model_path,
        args.random_network,
        args.layer,
        args.seed,
        notices,
    ).to(device)
    digest = weights_digest(encoder)
    run = prepare_run(args, task, encoder, digest, train_set, device, found)

    # ---- the run's folder and log ----
    start_folder(args.model_path, args.model_name, args, {"encoder_digest": digest})
    forget_later_epochs(folder / "log.jsonl", run.done)
    save_picks(folder, picks)
    notices += list_left_out(left_out, folder)
    scalars = scalar_folder(args.model_path, args.model_name)
    log = RunLog(args.log_path, scalars, folder / "log.jsonl")
    counts = {"training": len(train_set), **{k: len(v) for k, v in held_out_sets.items()}}
    log.line(
        f"{args.dataset}: {', '.join(f'{n} {split}' for split, n in counts.items())} images of "
        f"{train_set.side} px; {args.model}{' (untrained)' if args.random_network else ''} on "
        f"{describe_device(device, args.gpu)}; to {folder}"
    )
    for notice in notices:
        log.line(notice)

    # ---- encode, fit, score ----
    encoding = Encoding(encoder, digest, args.layer, args.use_hypercol)
    train, held_out = encode_splits(args, encoding, train_set, held_out_sets, log)
    if not leave_process_group():
        return  # the rest is little work, done by the first rank
    for notice in check_judged(task, held_out):
        log.line(notice)
    shape_scores = baseline(task, mean_shape(*train.annotations()), held_out["Test"])
    log.line(f"mean shape: {in_words(task, {'Test': shape_scores})}")
    last = run.fit(train, held_out, log)

    epochs = max(run.done, args.epochs)
    log.line(f"after the last epoch ({epochs}): {in_words(task, last)}")
    log.line(run.best_in_words())
    result = {
        "dataset": args.dataset,
        "unit": task.unit,
        "images": counts,
        "epochs": epochs,
        "last": last,
        "best": run.best,
        "mean_shape": shape_scores,
        "encoder_digest": digest,
    }
    write_text(folder / "result.json", json.dumps(result, indent=1) + "\n")


def prepare_run(
    args: argparse.Namespace,
    task: Task,
    encoder: nn.Module,
    digest: str,
    train_set: LandmarkDataset,
    device: torch.device,
    found: tuple[Path, dict] | None,
) -> RegressorRun:
    """Return a fresh regressor with its optimizer, or one that resumes from a checkpoint."""
    channels = encoder.feature_channels(args.layer, args.use_hypercol)
    regressor = build_regressor(channels, train_set.num_landmarks).to(device)
    optimizer = build_optimizer(
        regressor,
        learning_rate=args.learning_rate,
        momentum=args.momentum,
        weight_decay=args.weight_decay,
        adam=args.adam,
        amsgrad=args.amsgrad,
        betas=(args.beta1, args.beta2),
    )
    settings = FitSettings(
        epochs=args.epochs,
        lr_of_epoch=partial(
            regressor_lr,
            base=args.learning_rate,
            epochs=args.epochs,
            decay_epochs=args.lr_decay_epochs,
            rate=args.lr_decay_rate,
            cosine=args.cosine,
            multistep=args.multistep,
        ),
        print_freq=args.print_freq,
        save_freq=args.save_freq,
        keep_last=args.keep_last,
        folder=args.model_path / args.model_name,
        best_name=f"{args.model}.pth",
        entries={"opt": plain_options(args), "encoder_digest": digest},
    )
    run = RegressorRun(task, regressor, optimizer, settings)
    if found is not None:
        path, content = found
        if content.get("encoder_digest", digest) != digest and not args.override:
            raise InputError(
                f"{path}: was trained on the features of another encoder; --override to insist"
            )
        hint = f"--model {args.model} --layer {args.layer} on {args.dataset}"
        run.done, run.best = resume_regressor(path, content, regressor, optimizer, task, hint)
    return run


def encode_splits(
    args: argparse.Namespace,
    encoding: Encoding,
    train_set: LandmarkDataset,
    held_out_sets: dict[str, LandmarkDataset],
    log: RunLog,
) -> tuple[EncodedImages | None, dict[str, EncodedImages | None]]:
    """Return the training images, in a new order each epoch, and the others as features.

    All ranks encode; the first one has the features then.
    """
    folder = args.cache_folder or Path(f"{args.model_path}_cache")
    encoded = partial(
        encode_dataset,
        encoding,
        batch_size=args.batch_size,
        num_workers=args.num_workers,
        seed=args.seed,
        cache=FeatureCache(args.feature_cache, folder, args.cache_gb, encoding.device),
        log=log,
    )
    held_out = {split: encoded(images, shuffle=False) for split, images in held_out_sets.items()}
    return encoded(train_set, shuffle=True), held_out
