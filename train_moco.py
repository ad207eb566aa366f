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

from typing import cast

import torch
from torch import Tensor, nn

from data_loader.items import PairItem
from data_loader.loaders import add_loader_arguments
from data_loader.views.batch_views import BatchViews
from engine.pretraining.checks import harm_notices
from engine.pretraining.images import add_unlabelled_arguments
from engine.pretraining.objective import Descent, Images, Objective, as_channels_last, squares
from engine.pretraining.run import Pretraining, PretrainingSettings, add_run_arguments
from engine.run.acceleration import accelerate
from engine.run.parallel import own_rows
from models.encoders import RESNETS, build_random_encoder
from models.momentum import copy_parameters, momentum_update, set_key_mode, shuffled_keys
from models.nce import MemoryMoCo, NCESoftmaxLoss, add_temperature_argument
from models.resnet import InsResNet
from utils.arguments import (
    ArgumentParser,
    add_ignored_arguments,
    fraction,
    ignored_notices,
    integer,
    unit_interval,
)
from utils.collectives import BatchSplit
from utils.schedule import add_schedule_arguments, cosine_lr, step_lr
from utils.script import run_script

EMBEDDING_DIM = 128  # [spec 2]
IGNORED = {"nce_m": 0.5, "beta1": 0.5, "beta2": 0.999, "tb_freq": 500}


def build_parser() -> ArgumentParser:
    """Return the parser of all options [spec 8]."""
    parser = ArgumentParser(__doc__)
    group = add_unlabelled_arguments(parser)
    group.add_argument(
        "--crop",
        type=fraction,
        default=0.2,
        help="smallest fraction of an image's area that a random view shows",
    )
    group.add_argument(
        "--augment",
        choices=["pillow", "device"],
        default="pillow",
        help="make the random views one by one in the worker processes, as published, or a batch "
        "at a time on the model's device, with the same distribution",
    )
    add_loader_arguments(parser, batch_size=128, num_workers=18)
    group = parser.add_argument_group("momentum contrast")
    group.add_argument(
        "--model", choices=list(RESNETS), default="resnet50", help="the encoder's architecture"
    )
    group.add_argument(
        "--nce_k", type=integer(1, 2**24), default=4096, help="keys in the queue of negatives"
    )
    add_temperature_argument(group, nce_t=0.07)
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
    add_run_arguments(parser, amp="off")
    add_ignored_arguments(parser, **IGNORED)
    return parser


def main() -> None:
    """Run the pre-training."""
    args = build_parser().parse_args()
    run = Pretraining(PretrainingSettings.from_options(args))
    dataset = run.open_images(smallest_scale=args.crop)

    # ---- query encoder, key encoder, queue ----
    encoder = (args.model, dataset.side, args.seed, run.device)
    query, key = build_encoders(*encoder, args.virtual_gpus, args.compile, args.recompute)
    contrast = MemoryMoCo(EMBEDDING_DIM, len(dataset), args.nce_k, args.nce_t, use_softmax=True)
    contrast.to(run.device)
    optimizer = torch.optim.SGD(
        query.parameters(),
        lr=args.learning_rate,
        momentum=args.momentum,
        weight_decay=args.weight_decay,
    )
    views = None
    if args.augment == "device":
        frame = (args.image_size, args.image_crop)
        views = BatchViews(*frame, args.crop, dataset.mean, dataset.std)
    run.log.line(*ignored_notices(args, **IGNORED))
    run.log.line(*harm_notices(query.encoder, args.nce_k, len(dataset)))

    # ---- steps over the epochs ----
    def rate(epoch: int, _: int) -> float:
        if args.cosine:
            return cosine_lr(epoch, args.learning_rate, args.epochs)
        return step_lr(epoch, args.learning_rate, args.lr_decay_epochs, args.lr_decay_rate)

    run.train(MomentumContrast(query, key, contrast, optimizer, args.alpha, views), rate)


def build_encoders(
    model: str,
    side: int,
    seed: int,
    device: torch.device,
    virtual_gpus: int = 1,
    compiled: bool = False,
    recompute: bool = False,
) -> tuple[InsResNet, InsResNet]:
    """Return the query encoder and its copy, the key encoder, in their training modes.

    See `build_random_encoder`, `accelerate` and `models.parallel.DataParallel`.
    """
    query, key = (
        cast(InsResNet, build_random_encoder(model, side, seed).to(device)) for _ in range(2)
    )
    copy_parameters(query, key)
    for encoder in (query, key):
        encoder.encoder.virtual_gpus = virtual_gpus
        accelerate(encoder, compiled=compiled, recompute=recompute)
    query.train()
    set_key_mode(key)
    return query, key


class MomentumContrast(Objective):
    """Momentum contrast [spec 4; He et al. 2020, Algorithm 1].

    Args:
        query: the encoder that is trained.
        key: the one that follows it.
        contrast: the queue.
        optimizer: of the query encoder.
        alpha: momentum of the key encoder.
        views: make the views a batch at a time; None where the readers make them.
    """

    entries = ("opt", "model", "contrast", "optimizer", "epoch", "model_ema")
    flags = ("model", "nce_k")
    scalars = ("ins_loss", "ins_prob")

    def __init__(
        self,
        query: InsResNet,
        key: InsResNet,
        contrast: MemoryMoCo,
        optimizer: torch.optim.Optimizer,
        alpha: float,
        views: BatchViews | None = None,
    ) -> None:
        super().__init__({"model": query, "model_ema": key, "contrast": contrast}, query, optimizer)
        self.query, self.key, self.contrast, self.alpha = query, key, contrast, alpha
        self.views, self.sees_squares = views, views is not None
        self.criterion = NCESoftmaxLoss()

    def step(
        self, embed: nn.Module, images: Images, batch_split: BatchSplit, descent: Descent
    ) -> tuple[Tensor, Tensor]:
        """Take one step; return the mean loss and the mean positive logit: see `Objective`."""
        view1, view2 = self.pair(images, descent.device)  # (b, 3, W, W) each
        with descent.autocast():
            q = embed(view1)  # (b, D)
            k = shuffled_keys(self.key, view2, batch_split)  # (B, D)
        logits = self.contrast.logits(q, own_rows(k, batch_split))  # (b, K + 1)
        loss = self.criterion(logits)
        if descent.step(loss, batch_split):  # backward, then SGD on the query encoder
            momentum_update(self.query, self.key, self.alpha)
            self.contrast.enqueue(k)
        return loss, logits[:, 0].mean()

    def pair(self, images: Images, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return two random views of the images, (b, 3, W, W) each, on a device."""
        if isinstance(images, PairItem):
            view1, view2 = images.views.to(device, non_blocking=True).split(3, dim=1)
        else:
            assert self.views is not None
            whole, generator = squares(images, device)
            view1, view2 = self.views(whole, generator), self.views(whole, generator)
        return as_channels_last(view1), as_channels_last(view2)

    def describe(self, loss: float, score: float) -> str:
        """Return the mean loss and the mean positive logit in words."""
        return f"loss {loss:.4f}  prob {score:.3f}"

    def numbers(self) -> dict[str, int]:
        """Return the row of the queue that the next keys overwrite."""
        return {"queue_index": self.contrast.index}

    def restore_numbers(self, content: dict) -> None:
        """Take it from a checkpoint."""
        self.contrast.index = int(content["queue_index"]) % self.contrast.queue_size


if __name__ == "__main__":
    run_script(main)
