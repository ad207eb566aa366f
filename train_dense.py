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

import argparse
import math
from typing import cast

import torch
from torch import Tensor, nn

from data_loader.loaders import add_loader_arguments
from data_loader.views.dense_views import DenseViews, MappedView
from data_loader.views.similarity import (
    Spread,
    add_spread_arguments,
    check_common_places,
    is_inside,
    to_image,
    to_view,
)
from engine.features.encoder_loading import initialise_encoder, use_colours
from engine.features.imagenet import IMAGENET
from engine.pretraining.images import add_unlabelled_arguments
from engine.pretraining.objective import Descent, Images, Objective, as_channels_last, squares
from engine.pretraining.run import Pretraining, PretrainingSettings, add_run_arguments
from engine.run.acceleration import accelerate
from models.dense_contrast import (
    DenseEmbedding,
    Trainable,
    cell_centres,
    dense_contrast,
    draw_cells,
)
from models.encoders import (
    OWN_MODEL,
    PUBLISHED_MODEL,
    RESNETS,
    add_random_argument,
    encoder_name,
)
from models.nce import add_temperature_argument
from utils.arguments import (
    ArgumentParser,
    add_ignored_arguments,
    ignored_notices,
    integer,
    natural,
    positive_int,
    unit_interval,
)
from utils.collectives import BatchSplit
from utils.errors import InputError
from utils.schedule import add_rate_arguments, warm_up_cosine_lr
from utils.script import run_script

RESNET_RATE, TIMM_RATE = 0.016, 0.001
OWN_STEPS, OWN_RATE, PUBLISHED_EPOCHS = 300, 0.004, 100
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
        type=encoder_name,
        metavar="NAME",
        default=PUBLISHED_MODEL,
        help=f"the encoder's architecture: {', '.join(RESNETS)}, or timm:NAME, a network of timm, "
        "such as timm:convnext_tiny (needs pip install -e .[timm]); of Folder, if none is named, "
        f"{OWN_MODEL} from ImageNet's weights",
    )
    group.add_argument(
        "--init",
        metavar="FILE",
        help="start from this checkpoint's encoder: of train_moco.py, or any other that "
        "--trained_model_path of eval_*.py takes; or from imagenet, the weights of torchvision's "
        "ResNet or of timm's network, fetched where they aren't here yet",
    )
    add_random_argument(group)
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
    add_temperature_argument(group, nce_t=0.1)
    group.add_argument(
        "--radius",
        type=unit_interval,
        default=0.12,
        help="a place nearer than this to the right one is no negative; in half sides of a view",
    )
    add_spread_arguments(parser)
    group = add_rate_arguments(parser, epochs=PUBLISHED_EPOCHS, weight_decay=1e-4)
    group.add_argument(
        "--steps",
        type=positive_int,
        metavar="N",
        help="take so many steps, in place of --epochs "
        f"[{PUBLISHED_EPOCHS} epochs; of Folder {OWN_STEPS} steps]",
    )
    group.add_argument(
        "--warmup_steps",
        type=natural,
        default=50,
        help="steps in which the learning rate rises linearly, without --learning_rate up to "
        f"{RESNET_RATE} for ResNets and {TIMM_RATE} for networks of timm, or {OWN_RATE} for "
        "Folder's; over all steps a half cosine lowers it to 0",
    )
    add_run_arguments(parser, amp="auto")
    add_ignored_arguments(parser, WHY_IGNORED, **IGNORED)
    choose_own_defaults(parser)
    return parser


def choose_own_defaults(parser: ArgumentParser) -> None:
    """Choose what isn't given for images of one's own, unless a network is named."""

    def is_own(options: argparse.Namespace) -> bool:
        return options.dataset == "Folder" and options.model is None

    def steps(options: argparse.Namespace) -> int | None:
        return OWN_STEPS if is_own(options) and options.epochs is None else None

    def init(options: argparse.Namespace) -> str | None:
        return IMAGENET if is_own(options) and not options.random_network else None

    parser.choose_own_defaults(is_own, image_size=160, batch_size=16)
    parser.choose_default("epochs", lambda _: None)  # late, so that steps know if they are given
    parser.choose_default("steps", steps)
    parser.choose_default("learning_rate", lambda o: OWN_RATE if is_own(o) else None)
    parser.choose_default("init", init)
    parser.choose_default("model", lambda o: OWN_MODEL if is_own(o) else None)


def main() -> None:
    """Run the pre-training."""
    args = build_parser().parse_args()
    run = Pretraining(PretrainingSettings.from_options(args))
    if args.init is not None and args.random_network:
        raise InputError("--init and --random_network exclude each other")
    if args.freeze and args.init is None:
        raise InputError("--freeze: give the encoder that is frozen: --init FILE")
    dataset = run.open_images()
    spread = Spread(args.rotation, args.scale, args.shift, args.aspect)
    check_common_places(dataset.side / args.image_size, spread)
    run.log.line(*ignored_notices(args, WHY_IGNORED, **IGNORED))

    # ---- encoder and head ----
    encoder = initialise_encoder(args.model, dataset.side, args.seed, args.init, run.log)
    use_colours(encoder, dataset, noted_in=args.init)
    embedding = DenseEmbedding(cast(Trainable, encoder), args.dimensions, args.freeze)
    embedding.to(run.device)
    accelerate(embedding.encoder, compiled=args.compile, recompute=args.recompute)
    learning_rate = args.learning_rate
    if learning_rate is None:
        learning_rate = RESNET_RATE if args.model in RESNETS else TIMM_RATE
    optimizer = torch.optim.AdamW(
        embedding.parameters(), learning_rate, weight_decay=args.weight_decay, fused=True
    )
    views = DenseViews(args.image_size, args.image_crop, dataset.mean, dataset.std, spread)
    objective = DenseContrast(
        embedding,
        optimizer,
        views,
        places=args.places,
        detail=args.detail,
        temperature=args.nce_t,
        radius=args.radius,
    )

    # ---- steps over the epochs ----
    steps = args.steps or args.epochs * math.ceil(len(dataset) / args.batch_size)
    run.train(
        objective,
        lambda _, step: warm_up_cosine_lr(learning_rate, args.warmup_steps, steps, step),
        args.steps,
    )


class DenseContrast(Objective):
    """Contrast between the places of two views of an image [spec 11].

    Args:
        embedding: the encoder and its head.
        optimizer: of what is trained of them.
        views: make the views.
        places: N, queries of a view.
        detail: see `draw_cells`.
        temperature: see `dense_contrast`.
        radius: see `dense_contrast`.
    """

    entries = ("opt", "model", "head", "optimizer", "epoch", "random_states")
    flags = ("model", "dimensions")
    scalars = ("dense_loss", "places_found")
    rate_words = "rate {:.6f}"
    views_at_once = 2

    def __init__(
        self,
        embedding: DenseEmbedding,
        optimizer: torch.optim.Optimizer,
        views: DenseViews,
        *,
        places: int,
        detail: float,
        temperature: float,
        radius: float,
    ) -> None:
        modules = {"model": embedding.encoder, "head": embedding.head}
        super().__init__(modules, embedding, optimizer)
        self.views, self.places, self.detail = views, places, detail
        self.temperature, self.radius = temperature, radius

    def step(
        self, embed: nn.Module, images: Images, batch_split: BatchSplit, descent: Descent
    ) -> tuple[Tensor, Tensor]:
        """Take one step; return the mean loss and the fraction of places found: see `Objective`."""
        whole, generator = squares(images, descent.device)
        view1, view2 = self.views(whole, generator), self.views(whole, generator)
        # Both views of an image go to the same device, as under torchrun.
        pairs = torch.stack([view1.images, view2.images], dim=1).flatten(0, 1)  # (2 b, 3, W, W)
        with descent.autocast():
            embedding = embed(as_channels_last(pairs))  # (2 b, D, h, w)
        loss, found = self.contrast_both_ways(embedding, view1, view2, generator)
        descent.step(loss, batch_split)  # backward, then AdamW
        return loss, found

    def contrast_both_ways(
        self, embedding: Tensor, view1: MappedView, view2: MappedView, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Return the mean loss of finding view 1's places in view 2, and the reverse.

        Args:
            embedding: (2 b, D, h, w), of each image the first view and the second.
            view1: the first views of the b images.
            view2: the second ones.
            generator: of the cells that are queries, on the CPU.

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
            shape = (height, width)
            cells = draw_cells(here.images, shape, self.places, self.detail, generator)  # (b, N)
            of_image = to_image(here.maps, centres[cells])  # (b, N, 2)
            target = to_view(there.maps, of_image)
            counts = is_inside(of_image) & is_inside(target)
            shown = is_inside(to_image(there.maps, centres.expand(len(key), -1, -1)))  # (b, h * w)
            result = dense_contrast(
                *(query, key, cells, target, counts, shown), self.temperature, self.radius
            )
            results.append(result)
        (loss1, found1), (loss2, found2) = results
        return (loss1 + loss2) / 2, (found1 + found2) / 2

    def describe(self, loss: float, score: float) -> str:
        """Return the mean loss and the fraction of places found in words."""
        return f"loss {loss:.4f}  found {100 * score:.1f} %"


if __name__ == "__main__":
    run_script(main)
