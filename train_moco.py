r"""Pre-train an encoder on unlabelled images of one kind of object, by momentum contrast.

Two random views of an image must have similar embeddings, and dissimilar ones from a queue of
views of other images.
The published runs, on CelebA and on iNaturalist Aves:

  python train_moco.py --model resnet50 --image_size 136 --image_crop 20 --batch_size 256 \
    --nce_k 4096 --cosine --epochs 800 --dataset CelebA --data_folder datasets/celeba \
    --model_path runs --model_name moco_CelebA
  python train_moco.py --model resnet50 --image_size 96 --image_crop 0 --batch_size 256 \
    --nce_k 4096 --cosine --epochs 800 --dataset InatAve --imagelist inat_train_100K.txt \
    --model_path runs --model_name moco_InatAve

[spec 4; Cheng et al. 2020, Sec. 3.1; He et al. 2020.] Letters: B images a step, of which b are
this process's; K keys in the queue, of D dimensions.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from data_loader.bad_images import count_bad_images, image_options
from data_loader.loaders import (
    add_loader_arguments,
    check_batch_size,
    check_same_images,
    set_epoch,
    worker_notice,
)
from data_loader.views.batch_views import BatchViews
from engine.acceleration import (
    add_acceleration_arguments,
    autocast,
    choose_precision,
    gradient_scaler,
    scaled_step,
)
from engine.parallel import own_rows, weigh_loss, wrap_distributed
from engine.pretraining_checks import check_rows, check_side, harm_notices
from engine.pretraining_images import (
    Cutout,
    PairLoader,
    add_unlabelled_arguments,
    add_view_arguments,
    build_pair_loader,
    build_unlabelled_dataset,
    keep_squares,
)
from engine.pretraining_state import (
    CHECKPOINT_KEYS,
    MoCoState,
    PeriodicSave,
    Position,
    add_save_argument,
    build_encoders,
    restore,
    save_run,
)
from engine.resumption import open_checkpoint, start_run
from engine.run import (
    RunSettings,
    add_device_arguments,
    add_output_arguments,
    choose_device,
    describe_device,
)
from models.encoders import RESNETS
from models.momentum import momentum_update, shuffled_keys
from models.nce import MemoryMoCo, NCESoftmaxLoss
from utils.arguments import (
    ArgumentParser,
    add_ignored_arguments,
    ignored_notices,
    integer,
    positive_float,
    unit_interval,
)
from utils.collectives import split_over_ranks
from utils.errors import check_finite
from utils.interruption import Interruption
from utils.log import RunLog, Stopwatch, progress
from utils.process_group import join_process_group, leave_process_group
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
    add_view_arguments(add_unlabelled_arguments(parser))
    add_loader_arguments(parser, batch_size=128, num_workers=18)
    group = parser.add_argument_group("momentum contrast")
    group.add_argument(
        "--model", choices=list(RESNETS), default="resnet50", help="the encoder's architecture"
    )
    group.add_argument(
        "--nce_k", type=integer(1, 2**24), default=4096, help="keys in the queue of negatives"
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
        type=integer(1, 1024),
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
    add_save_argument(add_output_arguments(parser, save_freq=20))
    add_acceleration_arguments(parser)
    add_device_arguments(parser)
    add_ignored_arguments(parser, **IGNORED)
    return parser


def main() -> None:
    """Run the pre-training."""
    args = build_parser().parse_args()
    run, log = RunSettings.from_options(args), RunLog()
    join_process_group(device := choose_device(args.device, args.gpu))
    seed_everything(args.seed)

    check_batch_size(args.batch_size)
    check_side(args.image_size, args.image_crop, args.model)
    dataset = build_unlabelled_dataset(
        args.dataset,
        args.data_folder,
        imagelist=args.imagelist,
        image_cache=args.image_cache,
        cutout=Cutout(args.fit, args.boxes, args.box_margin),
        colours=args.colours,
        smallest_scale=args.crop,
        **image_options(args.image_size, args.image_crop, args.on_bad_image),
    )
    check_same_images(dataset)

    # ---- query encoder, key encoder, queue; as they were, if the run resumes ----
    encoder = (args.model, dataset.side, args.seed, device)
    query, key = build_encoders(*encoder, args.virtual_gpus, args.compile, args.recompute)
    contrast = MemoryMoCo(EMBEDDING_DIM, len(dataset), args.nce_k, args.nce_t, use_softmax=True)
    optimizer = torch.optim.SGD(
        query.parameters(),
        lr=args.learning_rate,
        momentum=args.momentum,
        weight_decay=args.weight_decay,
    )
    log.line(*worker_notice(args.num_workers), *ignored_notices(args, **IGNORED))
    log.line(*harm_notices(query.encoder, args.nce_k, len(dataset)))
    found = open_checkpoint(run, CHECKPOINT_KEYS, log)
    amp = choose_precision(args.amp, device, found, log)
    state = MoCoState(query, key, contrast.to(device), optimizer, gradient_scaler(device, amp))
    position = Position(torch.zeros(2, device=device), len(dataset), args.batch_size)
    if found is not None:
        restore(
            *found,
            state,
            position,
            hint=f"--model {args.model} and --nce_k {args.nce_k}",
            order=dataset.order_name(),
            override=args.override,
            log=log,
        )
    check_rows(query.encoder, dataset.side, args.batch_size, len(dataset), position.images)

    # ---- the run's folder and log ----
    start_run(run, {"images": len(dataset), "amp": amp}, position.epochs, log)
    log.line(*dataset.count_notice())
    log.line(
        f"{len(dataset)} images of {args.dataset}, {dataset.side} px; "
        f"{args.model} on {describe_device(device, args.gpu)}; to {run.folder}"
    )

    # ---- two random views of each image ----
    keep_squares(dataset, args.image_cache, args.model_path, args.num_workers, log)
    views = build_pair_loader(
        dataset,
        BatchViews(args.image_size, args.image_crop, args.crop, dataset.mean, dataset.std)
        if args.augment == "device"
        else None,
        count_bad_images(dataset, run.folder, found is not None, log.line),
        batch_size=args.batch_size,
        num_workers=args.num_workers,
        seed=args.seed,
        device=device,
    )

    # ---- train ----
    with autocast(device, amp):
        embed = wrap_distributed(query, args.batch_size, dataset.side)
    recorded, notes = run.recording(amp=amp), dataset.noted_colours()
    save = partial(save_run, recorded, dataset.order_name(), state, notes=notes)
    with Interruption() as interruption:
        save_late = PeriodicSave(save, args.save_minutes, interruption)
        for epoch in range(position.epochs + 1, args.epochs + 1):
            lr = cosine_lr(epoch, args.learning_rate, args.epochs)
            if not args.cosine:
                lr = step_lr(epoch, args.learning_rate, args.lr_decay_epochs, args.lr_decay_rate)
            set_learning_rate(optimizer, lr)
            set_epoch(views.loader, epoch, skip=position.images)
            watch, before = Stopwatch(), position.images
            loss, prob = train_one_epoch(
                views, embed, state, position, args.alpha, amp, args.print_freq, log, save_late
            )
            speed = (len(dataset) - before) / watch.seconds()
            report_epoch(log, epoch, args.epochs, loss, prob, lr, speed)
            position.next_epoch()
            save(position, kept=epoch % args.save_freq == 0)
    log.line(f"done: {run.folder / 'current.pth'}")
    leave_process_group()


def report_epoch(
    log: RunLog, epoch: int, epochs: int, loss: float, prob: float, lr: float, speed: float
) -> None:
    """Log an epoch's mean loss and positive logit, and its images a second.

    Raises:
        InputError: if the loss isn't finite.
    """
    check_finite("the loss", loss, epoch, f" at a learning rate of {lr:g}")
    log.record(epoch, ins_loss=loss, ins_prob=prob, learning_rate=lr)
    log.line(
        f"epoch {epoch}/{epochs}  loss {loss:.4f}  prob {prob:.3f}  learning rate {lr:.5f}  "
        f"{speed:.1f} images/s"
    )


def train_one_epoch(
    views: PairLoader,
    embed: nn.Module,
    state: MoCoState,
    position: Position,
    alpha: float,
    amp: str,
    print_freq: int,
    log: RunLog,
    after_step: Callable[[Position], None],
) -> list[float]:
    """Take one step a batch; return the epoch's mean loss and mean positive logit.

    Args:
        views: of this rank's rows of the batches.
        embed: the query encoder, averaging gradients over all ranks.
        state: modified in place.
        position: modified in place.
        alpha: momentum of the key encoder.
        amp: a key of `engine.acceleration.PRECISIONS`.
        print_freq: steps between lines of the log.
        log: receives them.
        after_step: called after each step.
    """
    query, key, contrast, optimizer, scaler = state
    criterion = NCESoftmaxLoss()
    device = position.totals.device
    epoch, last_step = position.epochs + 1, position.steps + len(views.loader)
    for batch in progress(views.loader, f"epoch {epoch}"):
        batch_split = split_over_ranks(position.next_batch())
        views.note_bad_images(batch, batch_split)
        view1, view2 = views.pair(batch, device)  # (b, 3, H, W) each
        with autocast(device, amp):
            q = embed(view1)  # (b, D)
            k = shuffled_keys(key, view2, batch_split)  # (B, D)
        logits = contrast.logits(q, own_rows(k, batch_split))  # (b, K + 1)
        loss = criterion(logits)
        optimizer.zero_grad()
        scaler.scale(weigh_loss(loss, batch_split)).backward()
        if taken := scaled_step(optimizer, scaler):
            momentum_update(query, key, alpha)
            contrast.enqueue(k)

        position.count_skipped(not taken)
        position.count_step(batch_split, loss, logits[:, 0].mean())
        if position.steps % print_freq == 0:
            loss_now, prob_now = position.means()
            log.step(
                f"epoch {epoch}  step {position.steps}/{last_step}  loss {loss_now:.4f}  "
                f"prob {prob_now:.3f}"
            )
        after_step(position)
    if views.bad_images is not None:
        views.bad_images.report()
    return position.means()


if __name__ == "__main__":
    run_script(main)
