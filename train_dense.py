r"""Pre-train an encoder on unlabelled images of one kind of object, by contrast between places.

Two random views of an image show it under known maps and with other colours. What the encoder sees
at a place of the one must be nearest to what it sees at the same place of the other, among all
places of that view. On photographs of faces:

  python train_dense.py --dataset CelebA --data_folder datasets/celeba --model resnet18 \
    --image_size 136 --image_crop 20 --batch_size 32 --epochs 10 \
    --model_path runs --model_name dense_CelebA

With --freeze the encoder of --init stays as it is, and a linear projection of its hypercolumn is
trained, for --projection of the other scripts:

  python train_dense.py ... --freeze --init moco.pth --dimensions 256

[spec 11; Cheng et al., arXiv:2006.14787 v2.] Letters: B images a step, of which b are this
process's; h and w rows and columns of the embedding's map, of D dimensions; N queries of a view.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from data_loader.bad_images import count_bad_images, image_options
from data_loader.loaders import (
    add_loader_arguments,
    check_batch_size,
    check_same_images,
    set_epoch,
    worker_notice,
)
from data_loader.views.dense_views import DenseViews, MappedView
from data_loader.views.similarity import (
    Spread,
    add_spread_arguments,
    check_common_places,
    is_inside,
    to_image,
    to_view,
)
from engine.acceleration import (
    accelerate,
    add_acceleration_arguments,
    autocast,
    choose_precision,
    gradient_scaler,
    scaled_step,
)
from engine.encoder_loading import initialise_encoder, use_colours
from engine.parallel import weigh_loss, wrap_distributed
from engine.pretraining_checks import check_freeze, check_rows, check_side
from engine.pretraining_images import (
    Cutout,
    PairLoader,
    add_unlabelled_arguments,
    as_channels_last,
    build_pair_loader,
    build_unlabelled_dataset,
    keep_squares,
)
from engine.pretraining_state import (
    DenseState,
    PeriodicSave,
    Position,
    add_save_argument,
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
from models.dense_contrast import (
    DenseEmbedding,
    Trainable,
    cell_centres,
    dense_contrast,
    draw_cells,
)
from models.encoders import RESNETS, trainable_name
from utils.arguments import (
    ArgumentParser,
    add_ignored_arguments,
    finite_float,
    ignored_notices,
    integer,
    natural,
    positive_float,
    positive_int,
    unit_interval,
)
from utils.collectives import split_over_ranks
from utils.errors import check_finite
from utils.interruption import Interruption
from utils.log import RunLog, Stopwatch, progress
from utils.process_group import join_process_group, leave_process_group
from utils.randomness import seed_everything
from utils.schedule import set_learning_rate, warm_up_cosine_lr
from utils.script import run_script

CHECKPOINT_KEYS = ("opt", "model", "head", "optimizer", "epoch", "random_states")
RESNET_RATE, TIMM_RATE = 0.016, 0.001
WHY_IGNORED = "since views and schedule aren't those of train_moco.py"
IGNORED = {"crop": 0.2, "augment": "device", "cosine": False, "momentum": 0.9, "tb_freq": 500}


def build_parser() -> ArgumentParser:
    """Return the parser of all options."""
    parser = ArgumentParser(__doc__)
    add_unlabelled_arguments(parser)
    add_loader_arguments(parser, batch_size=32, num_workers=4)
    group = parser.add_argument_group("dense contrast")
    group.add_argument(
        "--model",
        type=trainable_name,
        metavar="NAME",
        default="resnet50",
        help=f"the encoder's architecture: {', '.join(RESNETS)}, or timm:NAME, a network of timm, "
        "such as timm:convnext_tiny (needs pip install -e .[timm])",
    )
    group.add_argument(
        "--init",
        metavar="FILE",
        help="start from this checkpoint's encoder: of train_moco.py, or any other that "
        "--trained_model_path of eval_*.py takes",
    )
    group.add_argument(
        "--freeze",
        action="store_true",
        help="leave the encoder of --init as it is, and train the linear projection of its "
        "hypercolumn alone, for --projection of eval_*.py",
    )
    group.add_argument(
        "--dimensions", type=integer(1, 2**16), default=64, help="length of a place's embedding"
    )
    group.add_argument(
        "--places", type=integer(1, 2**16), default=256, help="queries of a view, at random cells"
    )
    group.add_argument(
        "--detail",
        type=unit_interval,
        default=0.0,
        help="fraction of the queries drawn where a view has detail, rather than anywhere: for "
        "small objects in large empty images",
    )
    group.add_argument(
        "--nce_t", type=positive_float, default=0.1, help="temperature of the softmax"
    )
    group.add_argument(
        "--radius",
        type=unit_interval,
        default=0.12,
        help="a place nearer than this to the right one is no negative; in half sides of a view",
    )
    add_spread_arguments(parser)
    group = parser.add_argument_group("optimization")
    group.add_argument("--epochs", type=positive_int, default=100, help="number of epochs")
    group.add_argument(
        "--learning_rate",
        type=finite_float,
        help="initial learning rate",
    )
    group.add_argument(
        "--warmup_steps",
        type=natural,
        default=50,
        help="steps in which the learning rate rises linearly, without --learning_rate up to "
        f"{RESNET_RATE} for ResNets and {TIMM_RATE} for networks of timm; over all steps a half "
        "cosine lowers it to 0",
    )
    group.add_argument(
        "--weight_decay",
        type=finite_float,
        default=1e-4,
        help="factor of the L2 penalty on the weights",
    )
    add_save_argument(add_output_arguments(parser, save_freq=20))
    add_acceleration_arguments(parser, amp="auto")
    add_device_arguments(parser)
    add_ignored_arguments(parser, WHY_IGNORED, **IGNORED)
    return parser


def main() -> None:
    """Run the pre-training."""
    args = build_parser().parse_args()
    run, log = RunSettings.from_options(args), RunLog()
    join_process_group(device := choose_device(args.device, args.gpu))
    seed_everything(args.seed)
    check_batch_size(args.batch_size)
    check_freeze(args.freeze, args.init)
    check_side(args.image_size, args.image_crop, args.model)
    dataset = build_unlabelled_dataset(
        args.dataset,
        args.data_folder,
        imagelist=args.imagelist,
        image_cache=args.image_cache,
        cutout=Cutout(args.fit, args.boxes, args.box_margin),
        colours=args.colours,
        **image_options(args.image_size, args.image_crop, args.on_bad_image),
    )
    check_same_images(dataset)
    spread = Spread(args.rotation, args.scale, args.shift, args.aspect)
    check_common_places(dataset.side / args.image_size, spread)

    # ---- encoder and head; as they were, if the run resumes ----
    log.line(*worker_notice(args.num_workers), *ignored_notices(args, WHY_IGNORED, **IGNORED))
    encoder = initialise_encoder(args.model, dataset.side, args.seed, args.init, log)
    use_colours(encoder, dataset, noted_in=args.init)
    embedding = DenseEmbedding(cast(Trainable, encoder), args.dimensions, args.freeze).to(device)
    accelerate(embedding.encoder, compiled=args.compile, recompute=args.recompute)
    learning_rate = choose_rate(args.learning_rate, args.model)
    optimizer = torch.optim.AdamW(
        embedding.parameters(), learning_rate, weight_decay=args.weight_decay, fused=True
    )
    found = open_checkpoint(run, CHECKPOINT_KEYS, log)
    amp = choose_precision(args.amp, device, found, log)
    state = DenseState(embedding, optimizer, gradient_scaler(device, amp))
    position = Position(torch.zeros(2, device=device), len(dataset), args.batch_size)
    if found is not None:
        restore(
            *found,
            state,
            position,
            hint=f"--model {args.model} and --dimensions {args.dimensions}",
            order=dataset.order_name(),
            override=args.override,
            log=log,
        )

    check_rows(embedding.encoder.encoder, dataset.side, args.batch_size, len(dataset), views=2)

    # ---- the run's folder and log ----
    start_run(run, {"images": len(dataset), "amp": amp}, position.epochs, log)
    log.line(*dataset.count_notice())
    log.line(
        f"{len(dataset)} images of {args.dataset}, {dataset.side} px; "
        f"{args.model} on {describe_device(device, args.gpu)}; to {run.folder}"
    )

    # ---- two views of each image, under known maps ----
    keep_squares(dataset, args.image_cache, args.model_path, args.num_workers, log)
    views = build_pair_loader(
        dataset,
        DenseViews(args.image_size, args.image_crop, dataset.mean, dataset.std, spread),
        count_bad_images(dataset, run.folder, found is not None, log.line),
        batch_size=args.batch_size,
        num_workers=args.num_workers,
        seed=args.seed,
        device=device,
    )

    # ---- train ----
    with autocast(device, amp):
        embed = wrap_distributed(embedding, args.batch_size, dataset.side)
    objective = partial(
        contrast_both_ways,
        places=args.places,
        detail=args.detail,
        temperature=args.nce_t,
        radius=args.radius,
    )
    steps = args.epochs * math.ceil(len(dataset) / args.batch_size)
    schedule = partial(warm_up_cosine_lr, learning_rate, args.warmup_steps, steps)
    run_epoch = partial(train_one_epoch, views, embed, state, position, objective, schedule)
    save = partial(
        save_run, run.recording(amp=amp), dataset.order_name(), state, notes=dataset.noted_colours()
    )
    with Interruption() as interruption:
        save_late = PeriodicSave(save, args.save_minutes, interruption)
        for epoch in range(position.epochs + 1, args.epochs + 1):
            set_epoch(views.loader, epoch, skip=position.images)
            watch, before = Stopwatch(), position.images
            loss, found_fraction = run_epoch(amp, args.print_freq, log, save_late)
            speed = (len(dataset) - before) / watch.seconds()
            lr = optimizer.param_groups[0]["lr"]
            report_epoch(log, epoch, args.epochs, loss, found_fraction, lr, speed)
            position.next_epoch()
            save(position, kept=epoch % args.save_freq == 0)
    log.line(f"done: {run.folder / 'current.pth'}")
    leave_process_group()


def choose_rate(given: float | None, model: str) -> float:
    """Return the learning rate that was given, or else the architecture's."""
    if given is not None:
        return given
    return RESNET_RATE if model in RESNETS else TIMM_RATE


def contrast_both_ways(
    embedding: Tensor,
    view1: MappedView,
    view2: MappedView,
    generator: torch.Generator,
    *,
    places: int,
    detail: float,
    temperature: float,
    radius: float,
) -> tuple[Tensor, Tensor]:
    """Return the mean loss of finding view 1's places in view 2, and the reverse.

    Args:
        embedding: (2 b, D, h, w), of each image the first view and the second.
        view1: the first views of the b images.
        view2: the second ones.
        generator: of the cells that are queries, on the CPU.
        places: N, queries of a view.
        detail: see `draw_cells`.
        temperature: see `dense_contrast`.
        radius: see `dense_contrast`.

    Returns:
        The loss and the fraction of places that are found, scalars: see `dense_contrast`.
    """
    height, width = embedding.shape[2:]
    centres = cell_centres(height, width).to(embedding)  # (h * w, 2)
    embedding1, embedding2 = embedding[0::2], embedding[1::2]
    results = []
    for query, key, here, there in (
        (embedding1, embedding2, view1, view2),
        (embedding2, embedding1, view2, view1),
    ):
        cells = draw_cells(here.images, (height, width), places, detail, generator)  # (b, N)
        of_image = to_image(here.maps, centres[cells])  # (b, N, 2)
        target = to_view(there.maps, of_image)
        counts = is_inside(of_image) & is_inside(target)
        shown = is_inside(to_image(there.maps, centres.expand(len(key), -1, -1)))  # (b, h * w)
        results.append(
            dense_contrast(query, key, cells, target, counts, shown, temperature, radius)
        )
    (loss1, found1), (loss2, found2) = results
    return (loss1 + loss2) / 2, (found1 + found2) / 2


def train_one_epoch(
    views: PairLoader,
    embed: nn.Module,
    state: DenseState,
    position: Position,
    objective: Callable[[Tensor, MappedView, MappedView, torch.Generator], tuple[Tensor, Tensor]],
    schedule: Callable[[int], float],
    amp: str,
    print_freq: int,
    log: RunLog,
    after_step: Callable[[Position], None],
) -> list[float]:
    """Take one step a batch; return the epoch's mean loss and fraction of places found.

    Args:
        views: of this rank's rows of the batches.
        embed: the embedding, averaging gradients over all ranks.
        state: modified in place.
        position: modified in place.
        objective: see `contrast_both_ways`.
        schedule: a step's number, counted from 0 over all epochs, to its learning rate.
        amp: a key of `engine.acceleration.PRECISIONS`.
        print_freq: steps between lines of the log.
        log: receives them.
        after_step: called after each step.
    """
    optimizer, scaler = state.optimizer, state.scaler
    device = position.totals.device
    epoch, last_step = position.epochs + 1, position.steps + len(views.loader)
    for batch in progress(views.loader, f"epoch {epoch}"):
        batch_split = split_over_ranks(position.next_batch())
        views.note_bad_images(batch, batch_split)
        view1, view2, generator = views.mapped_pair(batch, device)  # (b, 3, H, W) each
        set_learning_rate(optimizer, schedule(position.epochs * last_step + position.steps))
        with autocast(device, amp):
            # Both views of an image go to the same device, as under torchrun.
            pairs = torch.stack([view1.images, view2.images], dim=1).flatten(0, 1)
            embedding = embed(as_channels_last(pairs))  # (2 b, D, h, w)
        loss, found = objective(embedding, view1, view2, generator)
        optimizer.zero_grad()
        scaler.scale(weigh_loss(loss, batch_split)).backward()
        taken = scaled_step(optimizer, scaler)

        position.count_skipped(not taken)
        position.count_step(batch_split, loss, found)
        if position.steps % print_freq == 0:
            loss_now, found_now = position.means()
            log.step(
                f"epoch {epoch}  step {position.steps}/{last_step}  loss {loss_now:.4f}  "
                f"found {100 * found_now:.1f} %"
            )
        after_step(position)
    if views.bad_images is not None:
        views.bad_images.report()
    return position.means()


def report_epoch(
    log: RunLog, epoch: int, epochs: int, loss: float, found: float, lr: float, speed: float
) -> None:
    """Log an epoch's mean loss, the fraction of places found, and its images a second.

    Raises:
        InputError: if the loss isn't finite.
    """
    check_finite("the loss", loss, epoch, f" at a learning rate of {lr:g}")
    log.record(epoch, dense_loss=loss, places_found=found, learning_rate=lr)
    log.line(
        f"epoch {epoch}/{epochs}  loss {loss:.4f}  found {100 * found:.1f} %  rate {lr:.6f}  "
        f"{speed:.1f} images/s"
    )


if __name__ == "__main__":
    run_script(main)
