"""Learning rates by epoch, as pure functions; epochs count from 1 [spec 4, 5]."""

import argparse
import math
from collections.abc import Sequence

from torch.optim import Optimizer

from utils.arguments import epoch_list, finite_float, positive_int, unit_interval

MULTISTEP_MILESTONES = (100, 250)
MULTISTEP_RATE = 0.1


def add_rate_arguments(
    parser: argparse.ArgumentParser, **defaults: float | str
) -> argparse._ArgumentGroup:
    """Declare the options of the optimizer that all training shares, and set defaults by name.

    Returns:
        The group, for what else is to be declared there.
    """
    group = parser.add_argument_group("optimization")
    group.add_argument("--epochs", type=positive_int, help="number of epochs")
    group.add_argument("--learning_rate", type=finite_float, help="initial learning rate")
    group.add_argument(
        "--weight_decay", type=finite_float, help="factor of the L2 penalty on the weights"
    )
    parser.set_defaults(**defaults)
    return group


def add_schedule_arguments(
    parser: argparse.ArgumentParser, **defaults: float | str
) -> argparse._ArgumentGroup:
    """Declare the options of SGD and of the published schedules, as `add_rate_arguments` does."""
    group = add_rate_arguments(parser)
    group.add_argument(
        "--lr_decay_epochs",
        type=epoch_list,
        metavar="E,E,...",
        help="epochs after which the learning rate is multiplied by --lr_decay_rate",
    )
    group.add_argument(
        "--lr_decay_rate",
        type=unit_interval,
        help="see --lr_decay_epochs; in eval_*.py --cosine ends at 0.1 times its cube times "
        "--learning_rate",
    )
    group.add_argument(
        "--cosine",
        action="store_true",
        help="lower the learning rate along a half cosine instead of in steps",
    )
    group.add_argument("--momentum", type=unit_interval, help="momentum of SGD")
    parser.set_defaults(**defaults)
    return group


def step_lr(epoch: int, base: float, decay_epochs: Sequence[int], rate: float) -> float:
    """Return base times rate for each decay epoch that lies before this one."""
    return base * rate ** sum(e < epoch for e in decay_epochs)


def cosine_lr(epoch: int, base: float, epochs: int, floor: float = 0.0) -> float:
    """Return the learning rate on a half cosine from base (epoch 0) to floor (the last)."""
    return floor + (base - floor) * 0.5 * (1 + math.cos(math.pi * epoch / epochs))


def warm_up_cosine_lr(base: float, warm_up: int, steps: int, step: int) -> float:
    """Return the learning rate of a step, counted from 0, of ``steps`` in all.

    It follows a half cosine from base to 0, times a line from 0 to 1 over the steps of the warm-up.
    """
    return base * min(1.0, (step + 1) / max(warm_up, 1)) * cosine_lr(step, 1.0, steps)


def regressor_lr(
    epoch: int,
    base: float,
    epochs: int,
    decay_epochs: Sequence[int],
    rate: float,
    cosine: bool,
    multistep: bool,
) -> float:
    """Return the regressor's rate under the flags of the evaluation scripts [spec 5].

    The published code steps PyTorch's schedulers before each epoch: at epoch 1 the cosine is one
    step down, and a milestone counts from its own epoch on.
    """
    if cosine:
        return cosine_lr(epoch, base, epochs, floor=base * rate**3 * 0.1)
    if multistep:
        return base * MULTISTEP_RATE ** sum(m <= epoch for m in MULTISTEP_MILESTONES)
    return step_lr(epoch, base, decay_epochs, rate)


def set_learning_rate(optimizer: Optimizer, lr: float) -> None:
    """Set the learning rate of all parameter groups."""
    for group in optimizer.param_groups:
        group["lr"] = lr
