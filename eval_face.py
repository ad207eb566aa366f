"""Find landmarks in faces: fit a small regressor on the features of a frozen encoder.

The published run on AFLW_M, and the one with 50 annotated pictures:

  python eval_face.py --model resnet50 --layer 4 --use_hypercol --image_size 136 --image_crop 20
    --dataset AFLW_MTFL --trained_model_path runs/moco_CelebA/ckpt_epoch_800.pth
    --adam --cosine --learning_rate 0.001 --weight_decay 0.0005 --epochs 200 --batch_size 32
    --model_path runs --model_name AFLW_M_regressor
  python eval_face.py ... --restrict_annos 50 --repeat --TPS_aug --epochs 1000
    --learning_rate 0.01 --weight_decay 0.05

[SPEC 5; Cheng et al. 2020, Sec. 4, tables 1 and 2.]
"""

from functools import partial
from pathlib import Path

from data_loader.data_loaders_face import add_face_arguments, build_face_dataset
from data_loader.few_shot import add_few_shot_arguments, restrict, save_picks
from data_loader.loaders import add_loader_arguments, worker_notice
from models.encoders import add_encoder_arguments, weights_digest
from models.loss import regression_loss
from models.metric import inter_ocular_error
from utils.arguments import ArgumentParser, add_ignored_arguments, ignored_notices
from utils.encoder_loading import load_frozen_encoder
from utils.errors import run_script
from utils.features import encode_dataset
from utils.log import RunLog
from utils.randomness import seed_everything
from utils.regression import (
    Task,
    add_regressor_arguments,
    baseline,
    build_optimizer,
    build_regressor,
    fit,
    resume_regressor,
    save_regressor,
    write_result,
)
from utils.run import (
    add_device_arguments,
    add_log_argument,
    add_output_arguments,
    choose_device,
    describe_device,
    plain_options,
    scalar_folder,
    start_folder,
)
from utils.schedule import regressor_rate

IGNORED = {"bn": False, "crop": 0.2, "tb_freq": 500}


def build_parser() -> ArgumentParser:
    """Return the parser of all options [SPEC 8]."""
    parser = ArgumentParser(__doc__)
    add_face_arguments(parser)
    add_loader_arguments(parser, batch_size=256, num_workers=32)
    add_encoder_arguments(parser, layer=3)
    add_regressor_arguments(parser)
    add_few_shot_arguments(parser)
    add_log_argument(add_output_arguments(parser, save_freq=20))
    add_device_arguments(parser)
    add_ignored_arguments(parser, **IGNORED)
    return parser


def face_task(eyes: tuple[int, int]) -> Task:
    """Return how faces are judged: by their error in percent of the distance of the eyes."""
    return Task(
        loss=lambda pred, truth, _: regression_loss(pred, truth),
        metrics={"InterOcularError": lambda pred, truth, _: inter_ocular_error(pred, truth, eyes)},
        best={"best_error": ("Test", "InterOcularError")},
        lower_is_better=True,
    )


def main() -> None:
    """Fit and evaluate a regressor."""
    args = build_parser().parse_args()
    device = choose_device(args.device, args.gpu)
    seed_everything(args.seed)

    # ---- data ----
    frame = {"image_size": args.image_size, "image_crop": args.image_crop}
    root = args.data_folder
    train_set = build_face_dataset(args.dataset, root, train=True, TPS_aug=args.TPS_aug, **frame)
    test_set = build_face_dataset(args.dataset, root, train=False, **frame)
    picks = restrict(
        train_set,
        args.restrict_annos,
        repeat=args.repeat,
        num_per_epoch=args.num_per_epoch,
        seed=args.seed,
        noted_in=args.model_path / args.model_name if args.resume else None,
    )
    task = face_task(train_set.eyes)

    # ---- frozen encoder, regressor ----
    encoder = load_frozen_encoder(
        args.model,
        train_set.side,
        args.trained_model_path,
        args.random_network,
        args.layer,
        args.seed,
    ).to(device)
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
    done, best = 0, task.worst()
    if args.resume:
        hint = f"--model {args.model} --layer {args.layer} on {args.dataset}"
        done, best = resume_regressor(args.resume, regressor, optimizer, task, hint)

    # ---- the run's folder and log ----
    digest = weights_digest(encoder)
    folder = start_folder(args.model_path, args.model_name, args, {"encoder_digest": digest})
    save_picks(folder, picks)
    scalars = scalar_folder(args.model_path, args.model_name)
    log = RunLog(args.log_path, scalars, folder / "log.jsonl")
    for notice in worker_notice(args.num_workers) + ignored_notices(args, **IGNORED):
        log.line(notice)
    log.line(
        f"{args.dataset}: {len(train_set)} pictures to train on, {len(test_set)} to test on, "
        f"{train_set.side} px; {args.model}"
        f"{' (untrained)' if args.random_network else ''} on {describe_device(device, args.gpu)}; "
        f"to {folder}"
    )

    # ---- encode, fit, score ----
    options = {
        "layer": args.layer,
        "use_hypercol": args.use_hypercol,
        "batch_size": args.batch_size,
        "num_workers": args.num_workers,
        "seed": args.seed,
        "device": device,
        "log": log,
    }
    train = encode_dataset(encoder, train_set, shuffle=True, **options)
    test = encode_dataset(encoder, test_set, shuffle=False, **options)
    mean_shape = baseline(task, train.all_points().mean(dim=0), test)["InterOcularError"]
    log.line(f"mean shape  Test InterOcularError {mean_shape:.2f} %")

    rate_of = partial(
        regressor_rate,
        base=args.learning_rate,
        epochs=args.epochs,
        decay_epochs=args.lr_decay_epochs,
        rate=args.lr_decay_rate,
        cosine=args.cosine,
        multistep=args.multistep,
    )

    def save(epoch: int, best: dict, improved: bool) -> None:
        entries = {"opt": plain_options(args), "epoch": epoch, "encoder_digest": digest, **best}
        if improved:
            save_regressor(folder / f"{args.model}.pth", regressor, optimizer, **entries)
        if epoch % args.save_freq == 0 or epoch == args.epochs:
            path = folder / f"ckpt_epoch_{epoch}.pth"
            save_regressor(path, regressor, optimizer, **entries)

    last, best = fit(
        regressor,
        optimizer,
        task,
        train,
        {"Test": test},
        rate_of=rate_of,
        first_epoch=done + 1,
        epochs=args.epochs,
        best=best,
        log=log,
        print_freq=args.print_freq,
        save=save,
    )
    report(log, folder, args.model, last, best, mean_shape, len(test_set), args.epochs, digest)


def report(
    log: RunLog,
    folder: Path,
    model: str,
    last: dict,
    best: dict,
    mean_shape: float,
    test_images: int,
    epochs: int,
    digest: str,
) -> None:
    """Say what was found, and write it to ``result.json``."""
    if last:
        error = last["Test"]["InterOcularError"]
        log.line(f"test error after the last epoch: {error:.2f} % of the inter-ocular distance")
    else:
        error = None
        log.line(f"nothing to train: the checkpoint has {epochs} epochs or more behind it")
    log.line(
        f"best: {best['best_error']:.2f} % after epoch {best['best_epoch']} (picked on the test "
        f"set, as published: too good to quote), in {folder / model}.pth"
    )
    write_result(
        folder / "result.json",
        metric="InterOcularError",
        unit="percent of the inter-ocular distance",
        test_images=test_images,
        last_epoch=epochs,
        last_error=error,
        mean_shape_error=mean_shape,
        encoder_digest=digest,
        **best,
    )


if __name__ == "__main__":
    run_script(main)
