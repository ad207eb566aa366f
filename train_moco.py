"""Pre-train an encoder on unlabelled images of one kind of object, by momentum contrast.

Two random views of an image must embed alike, and unlike a queue of views of other images.
The published runs, on CelebA and on iNaturalist Aves:

  python train_moco.py --model resnet50 --image_size 136 --image_crop 20 --batch_size 256
    --nce_k 4096 --cosine --epochs 800 --dataset CelebA --data_folder datasets/celeba
    --model_path runs --model_name moco_CelebA
  python train_moco.py --model resnet50 --image_size 96 --image_crop 0 --batch_size 256
    --nce_k 4096 --cosine --epochs 800 --dataset InatAve --imagelist inat_train_100K.txt
    --model_path runs --model_name moco_InatAve

[SPEC 4; Cheng et al. 2020, Sec. 3.1; He et al. 2020.] Letters: B images a step.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from data_loader.bad_images import BadImages
from data_loader.device_augmentation import BatchViews
from data_loader.loaders import add_loader_arguments, worker_notice
from data_loader.unlabelled_images import add_unlabelled_arguments, build_unlabelled_dataset
from models.encoders import RESNETS, STRIDE
from models.momentum import copy_parameters, momentum_update, set_key_mode, shuffled_keys
from models.nce import MemoryMoCo, NCESoftmaxLoss
from utils.acceleration import (
    accelerate,
    add_acceleration_arguments,
    as_channels_last,
    autocast,
    gradient_scaler,
)
from utils.arguments import (
    ArgumentParser,
    add_ignored_arguments,
    finite_float,
    ignored_notices,
    positive_float,
    positive_int,
    share,
)
from utils.encoder_loading import new_encoder
from utils.errors import InputError, run_script
from utils.interruption import Interruption
from utils.log import RunLog, Stopwatch, progress
from utils.pretraining_images import open_images
from utils.pretraining_state import (
    CHECKPOINT_KEYS,
    Learned,
    Progress,
    SaveInTime,
    restore,
    save_run,
)
from utils.randomness import seed_everything
from utils.resumption import forget_later_epochs, open_checkpoint
from utils.run import (
    add_device_arguments,
    add_output_arguments,
    choose_device,
    describe_device,
    plain_options,
    scalar_folder,
    start_folder,
)
from utils.schedule import (
    add_schedule_arguments,
    cosine_rate,
    set_learning_rate,
    step_rate,
)

EMBEDDING_DIM = 128  # [SPEC 2]
IGNORED = {"nce_m": 0.5, "beta1": 0.5, "beta2": 0.999, "tb_freq": 500}


def build_parser() -> ArgumentParser:
    """Return the parser of all options [SPEC 8]."""
    parser = ArgumentParser(__doc__)
    add_unlabelled_arguments(parser)
    add_loader_arguments(parser, batch_size=128, num_workers=18)
    group = parser.add_argument_group("momentum contrast")
    group.add_argument(
        "--model", choices=list(RESNETS), default="resnet50", help="the encoder's architecture"
    )
    group.add_argument(
        "--nce_k", type=positive_int, default=4096, help="keys in the queue of negatives"
    )
    group.add_argument("--nce_t", type=share, default=0.07, help="temperature of the softmax")
    group.add_argument(
        "--alpha",
        type=finite_float,
        default=0.999,
        help="momentum of the key encoder: alpha * key + (1 - alpha) * query",
    )
    group.add_argument(
        "--virtual_gpus",
        type=positive_int,
        default=1,
        metavar="N",
        help="on one device, split each batch as DataParallel would over N GPUs, so that "
        "ShuffleBN works; the published runs had 4",
    )
    add_schedule_arguments(
        parser,
        epochs=240,
        learning_rate=0.03,
        lr_decay_epochs="120,160,200",
        lr_decay_rate=0.1,
        momentum=0.9,
        weight_decay=1e-4,
    )
    group = add_output_arguments(parser, save_freq=20)
    group.add_argument(
        "--save_minutes",
        type=positive_float,
        default=30,
        metavar="MINUTES",
        help="write current.pth within an epoch, too, after so much time",
    )
    add_acceleration_arguments(parser)
    add_device_arguments(parser)
    add_ignored_arguments(parser, **IGNORED)
    return parser


def main() -> None:
    """Run the pre-training."""
    args = build_parser().parse_args()
    device = choose_device(args.device, args.gpu)
    seed_everything(args.seed)

    check_side(args.image_size, args.image_crop)
    dataset = build_unlabelled_dataset(
        args.dataset,
        args.data_folder,
        args.imagelist,
        args.image_size,
        args.image_crop,
        args.crop,
        skip_bad=args.on_bad_image == "skip",
    )

    # ---- query encoder, key encoder, queue ----
    query = new_encoder(args.model, dataset.side, args.seed).to(device)
    key = new_encoder(args.model, dataset.side, args.seed).to(device)
    copy_parameters(query, key)
    for encoder in (query, key):
        encoder.encoder.virtual_gpus = args.virtual_gpus
        accelerate(encoder, compiled=args.compile, recompute=args.recompute)
    contrast = MemoryMoCo(EMBEDDING_DIM, len(dataset), args.nce_k, args.nce_t, use_softmax=True).to(
        device
    )
    optimizer = torch.optim.SGD(
        query.parameters(),
        lr=args.learning_rate,
        momentum=args.momentum,
        weight_decay=args.weight_decay,
    )
    learned = Learned(query, key, contrast, optimizer, gradient_scaler(device, args.amp))
    notices = worker_notice(args.num_workers) + ignored_notices(args, **IGNORED)
    so_far = Progress(torch.zeros(2, device=device))
    folder = args.model_path / args.model_name
    found = open_checkpoint(args, folder, CHECKPOINT_KEYS, notices)
    if found is not None:
        notices += restore(*found, args.model, learned, so_far)

    # ---- the run's folder and log ----
    start_folder(args.model_path, args.model_name, args, {"images": len(dataset)})
    forget_later_epochs(folder / "log.jsonl", so_far.epochs)
    scalars = scalar_folder(args.model_path, args.model_name)
    log = RunLog(None, scalars, folder / "log.jsonl")
    for notice in notices:
        log.line(notice)
    log.line(
        f"{len(dataset)} images of {args.dataset}, {dataset.side} px; "
        f"{args.model} on {describe_device(device, args.gpu)}; to {folder}"
    )

    loader, augment, bad_images = open_images(args, dataset, folder, found is not None, device, log)

    # ---- train ----
    save = partial(save_run, folder, args.keep_last, {"opt": plain_options(args)}, learned)
    with Interruption() as interruption:
        after_step = SaveInTime(save, args.save_minutes, interruption)
        for epoch in range(so_far.epochs + 1, args.epochs + 1):
            rate = step_rate(epoch, args.learning_rate, args.lr_decay_epochs, args.lr_decay_rate)
            if args.cosine:
                rate = cosine_rate(epoch, args.learning_rate, args.epochs)
            set_learning_rate(optimizer, rate)
            loader.sampler.set_epoch(epoch, skip=so_far.images)
            watch, skipped = Stopwatch(), so_far.images
            loss, prob = train_one_epoch(
                loader,
                augment,
                bad_images,
                learned,
                args.alpha,
                args.amp,
                log,
                so_far,
                args.print_freq,
                after_step,
            )
            if not torch.isfinite(torch.tensor(loss)):
                raise InputError(
                    f"the loss is {loss} after epoch {epoch} at --learning_rate "
                    f"{args.learning_rate}: not saved; try a smaller rate"
                )
            log.record(epoch, ins_loss=loss, ins_prob=prob, learning_rate=rate)
            log.line(
                f"epoch {epoch}/{args.epochs}  loss {loss:.4f}  prob {prob:.3f}  rate {rate:.5f}  "
                f"{(len(dataset) - skipped) / watch.seconds():.1f} images/s"
            )
            so_far.next_epoch()
            save(so_far, kept=epoch % args.save_freq == 0)
    log.line(f"done: {folder / 'current.pth'}")


def train_one_epoch(
    loader: DataLoader,
    augment: BatchViews | None,
    bad_images: BadImages | None,
    learned: Learned,
    alpha: float,
    amp: str,
    log: RunLog,
    so_far: Progress,
    print_freq: int,
    after_step: Callable[[Progress], None],
) -> tuple[float, float]:
    """Take one step a batch; return the epoch's mean loss and mean positive logit."""
    query, key, contrast, optimizer, scaler = learned
    query.train()
    set_key_mode(key)
    criterion = NCESoftmaxLoss()
    device = contrast.memory.device
    epoch, last_step = so_far.epochs + 1, so_far.steps + len(loader)
    for batch in progress(loader, f"epoch {epoch}"):
        if bad_images is not None:
            bad_images.note(batch[-1])
        view1, view2 = two_views(batch, augment, device)  # (B, 3, H, W) each
        with autocast(device, amp):
            q = query(view1)  # (B, D)
            k = shuffled_keys(key, view2)  # (B, D)
        logits = contrast.logits(q, k)  # (B, K + 1)
        loss = criterion(logits)
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        momentum_update(query, key, alpha)
        contrast.enqueue(k)

        # Summed on the device: reading a number there would hold the next step up.
        so_far.totals += torch.stack([loss.detach(), logits[:, 0].detach().mean()]) * len(q)
        so_far.images += len(q)
        so_far.steps += 1
        if so_far.steps % print_freq == 0:
            loss_now, prob_now = (so_far.totals / so_far.images).tolist()
            log.step(
                f"epoch {epoch}  step {so_far.steps}/{last_step}  loss {loss_now:.4f}  "
                f"prob {prob_now:.3f}"
            )
        after_step(so_far)
    if bad_images is not None:
        bad_images.report()
    loss, prob = (so_far.totals / so_far.images).tolist()
    return loss, prob


def two_views(
    batch: list[Tensor], augment: BatchViews | None, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return two random views of a batch's images, (B, 3, H, W) each.

    Args:
        batch: views that the loader has drawn, stacked on channels; or squares, and a seed each.
        augment: draws the views of squares.
        device: of the views.
    """
    images = batch[0].to(device, non_blocking=True)
    if augment is None:
        view1, view2 = images.split(3, dim=1)
    else:
        generator = torch.Generator().manual_seed(batch[1][0].item())
        view1, view2 = augment(images, generator), augment(images, generator)
    return as_channels_last(view1), as_channels_last(view2)


def check_side(image_size: int, image_crop: int) -> None:
    """Raise an `InputError` unless the last map pools to a single vector [SPEC 2]."""
    side = image_size - 2 * image_crop
    if side > 0 and side % STRIDE:  # without any pixels, the data set says so
        raise InputError(
            f"--image_size {image_size} and --image_crop {image_crop} leave {side} pixels: the "
            f"embedding needs a multiple of {STRIDE}, such as 96 (--image_size 136 "
            "--image_crop 20)"
        )


if __name__ == "__main__":
    run_script(main)
