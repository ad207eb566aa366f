"""Pre-train an encoder on unlabelled images of one kind of object, by momentum contrast.

Two random views of an image must embed alike, and unlike a queue of views of other images.
The published runs, on CelebA and on iNaturalist Aves:

  python train_moco.py --model resnet50 --image_size 136 --image_crop 20 --batch_size 256
    --nce_k 4096 --cosine --epochs 800 --dataset CelebA --data_folder datasets/celeba
    --model_path runs --model_name moco_CelebA
  python train_moco.py --model resnet50 --image_size 96 --image_crop 0 --batch_size 256
    --nce_k 4096 --cosine --epochs 800 --dataset InatAve --imagelist inat_train_100K.txt
    --model_path runs --model_name moco_InatAve

[spec 4; Cheng et al. 2020, Sec. 3.1; He et al. 2020.] Letters: B images a step, of which b are
this process's; K keys in the queue, of D dimensions.
"""

import argparse
from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from data_loader.landmark_dataset import LandmarkDataset
from data_loader.loaders import (
    add_loader_arguments,
    check_batch_size,
    check_same_images,
    set_epoch,
    worker_notice,
)
from engine.acceleration import (
    accelerate,
    add_acceleration_arguments,
    autocast,
    gradient_scaler,
)
from engine.encoder_loading import new_encoder
from engine.parallel import wrap_distributed
from engine.pretraining_images import (
    Views,
    add_unlabelled_arguments,
    build_unlabelled_dataset,
    build_views,
    order_name,
)
from engine.pretraining_state import (
    CHECKPOINT_KEYS,
    MoCoState,
    PeriodicSave,
    Progress,
    check_order,
    restore,
    save_run,
)
from engine.resumption import forget_later_epochs, open_checkpoint
from engine.run import (
    add_device_arguments,
    add_output_arguments,
    choose_device,
    describe_device,
    plain_options,
    scalar_folder,
    start_folder,
)
from models.encoders import RESNETS, STRIDE
from models.momentum import copy_parameters, momentum_update, set_key_mode, shuffled_keys
from models.nce import MemoryMoCo, NCESoftmaxLoss
from utils.arguments import (
    ArgumentParser,
    add_ignored_arguments,
    ignored_notices,
    positive_float,
    positive_int,
    unit_interval,
)
from utils.collectives import all_reduce_sum, split_over_ranks
from utils.errors import InputError
from utils.interruption import Interruption
from utils.log import RunLog, Stopwatch, progress
from utils.process_group import join_process_group, leave_process_group, world_size
from utils.randomness import seed_everything
from utils.schedule import (
    add_schedule_arguments,
    cosine_lr,
    set_learning_rate,
    step_lr,
)
from utils.script import run_script

EMBEDDING_DIM = 128  # [spec 2]
IGNORED = {"nce_m": 0.5, "beta1": 0.5, "beta2": 0.999, "tb_freq": 500}


def build_parser() -> ArgumentParser:
    """Return the parser of all options [spec 8]."""
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
    group.add_argument(
        "--nce_t", type=positive_float, default=0.07, help="temperature of the softmax"
    )
    group.add_argument(
        "--alpha",
        type=unit_interval,
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
    join_process_group(device)
    seed_everything(args.seed)

    check_batch_size(args.batch_size)
    check_side(args.image_size, args.image_crop)
    dataset = build_unlabelled_dataset(args)
    check_same_images(dataset)

    # ---- query encoder, key encoder, queue; as they were, if the run goes on ----
    state = build_learned(args, dataset, device)
    notices = worker_notice(args.num_workers) + ignored_notices(args, **IGNORED)
    progress_state = Progress(torch.zeros(2, device=device), len(dataset), args.batch_size)
    folder = args.model_path / args.model_name
    found = open_checkpoint(args, folder, CHECKPOINT_KEYS, notices)
    if found is not None:
        check_order(*found, order_name(dataset), args.override)
        notices += restore(*found, args.model, state, progress_state)

    # ---- the run's folder and log ----
    start_folder(args.model_path, args.model_name, args, {"images": len(dataset)})
    forget_later_epochs(folder / "log.jsonl", progress_state.epochs)
    scalars = scalar_folder(args.model_path, args.model_name)
    log = RunLog(None, scalars, folder / "log.jsonl")
    for notice in [*notices, *dataset.count_notice()]:
        log.line(notice)
    log.line(
        f"{len(dataset)} images of {args.dataset}, {dataset.side} px; "
        f"{args.model} on {describe_device(device, args.gpu)}; to {folder}"
    )

    # ---- two random views of each image ----
    views = build_views(args, dataset, folder, found is not None, device, log)

    # ---- train ----
    with autocast(device, args.amp):
        embed = wrap_distributed(state.query, args.batch_size, dataset.side)
    entries = {"opt": plain_options(args), "order": order_name(dataset)}
    save = partial(save_run, folder, args.keep_last, entries, state)
    with Interruption() as interruption:
        after_step = PeriodicSave(save, args.save_minutes, interruption)
        for epoch in range(progress_state.epochs + 1, args.epochs + 1):
            rate = step_lr(epoch, args.learning_rate, args.lr_decay_epochs, args.lr_decay_rate)
            if args.cosine:
                rate = cosine_lr(epoch, args.learning_rate, args.epochs)
            set_learning_rate(state.optimizer, rate)
            set_epoch(views.loader, epoch, skip=progress_state.images)
            watch, skipped = Stopwatch(), progress_state.images
            loss, prob = train_one_epoch(args, views, embed, state, progress_state, log, after_step)
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
            progress_state.next_epoch()
            save(progress_state, kept=epoch % args.save_freq == 0)
    log.line(f"done: {folder / 'current.pth'}")
    leave_process_group()


def build_learned(
    args: argparse.Namespace, dataset: LandmarkDataset, device: torch.device
) -> MoCoState:
    """Return query encoder, key encoder, queue and optimizer as they are before the first step."""
    query = new_encoder(args.model, dataset.side, args.seed).to(device)
    key = new_encoder(args.model, dataset.side, args.seed).to(device)
    copy_parameters(query, key)
    for encoder in (query, key):
        encoder.encoder.virtual_gpus = args.virtual_gpus
        accelerate(encoder, compiled=args.compile, recompute=args.recompute)
    query.train()
    set_key_mode(key)
    contrast = MemoryMoCo(EMBEDDING_DIM, len(dataset), args.nce_k, args.nce_t, use_softmax=True).to(
        device
    )
    optimizer = torch.optim.SGD(
        query.parameters(),
        lr=args.learning_rate,
        momentum=args.momentum,
        weight_decay=args.weight_decay,
    )
    return MoCoState(query, key, contrast, optimizer, gradient_scaler(device, args.amp))


def train_one_epoch(
    args: argparse.Namespace,
    views: Views,
    embed: nn.Module,
    state: MoCoState,
    progress_state: Progress,
    log: RunLog,
    after_step: Callable[[Progress], None],
) -> tuple[float, float]:
    """Take one step a batch; return the epoch's mean loss and mean positive logit.

    Args:
        args: the options.
        views: of this rank's shares of the batches.
        embed: the query encoder, averaging gradients over all ranks.
        state: is changed.
        progress_state: is changed.
        log: is told every ``args.print_freq`` steps.
        after_step: is called after each.
    """
    query, key, contrast, optimizer, scaler = state
    criterion = NCESoftmaxLoss()
    device = contrast.memory.device
    epoch, last_step = progress_state.epochs + 1, progress_state.steps + len(views.loader)
    for batch in progress(views.loader, f"epoch {epoch}"):
        batch_split = split_over_ranks(progress_state.next_batch())
        views.note_bad_images(batch, batch_split)
        view1, view2 = views.pair(batch, device)  # (b, 3, H, W) each
        with autocast(device, args.amp):
            q = embed(view1)  # (b, D)
            k = shuffled_keys(key, view2, batch_split)  # (B, D)
        logits = contrast.logits(q, k[batch_split.rows] if batch_split.own else k[:1])  # (b, K + 1)
        loss = criterion(logits)
        optimizer.zero_grad()
        # Gradients are averaged over ranks: a share counts by its size, a stand-in not at all.
        scaler.scale(loss * (batch_split.own * world_size() / batch_split.total)).backward()
        scaler.step(optimizer)
        scaler.update()
        momentum_update(query, key, args.alpha)
        contrast.enqueue(k)

        # Summed on the device: reading a number there would hold the next step up.
        means = torch.stack([loss.detach(), logits[:, 0].detach().mean()])
        progress_state.totals += all_reduce_sum(means * batch_split.own)
        progress_state.images += batch_split.total
        progress_state.steps += 1
        if progress_state.steps % args.print_freq == 0:
            loss_now, prob_now = (progress_state.totals / progress_state.images).tolist()
            log.step(
                f"epoch {epoch}  step {progress_state.steps}/{last_step}  loss {loss_now:.4f}  "
                f"prob {prob_now:.3f}"
            )
        after_step(progress_state)
    if views.bad_images is not None:
        views.bad_images.report()
    loss, prob = (progress_state.totals / progress_state.images).tolist()
    return loss, prob


def check_side(image_size: int, image_crop: int) -> None:
    """Raise an `InputError` unless the last map pools to a single vector [spec 2]."""
    side = image_size - 2 * image_crop
    if side > 0 and side % STRIDE:  # without any pixels, the data set says so
        raise InputError(
            f"--image_size {image_size} and --image_crop {image_crop} leave {side} pixels: the "
            f"embedding needs a multiple of {STRIDE}, such as 96 (--image_size 136 "
            "--image_crop 20)"
        )


if __name__ == "__main__":
    run_script(main)
