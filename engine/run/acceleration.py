"""How the arithmetic of pre-training is carried out: precision, memory, compiled kernels.

None of it changes what is computed, beyond rounding.
"""

import argparse
import os
import shutil
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter

import torch
from torch.nn import functional

from engine.run.resumption import AUTO
from models.resnet import InsResNet
from models.timm_encoder import TimmEncoder
from utils.arguments import allow_change
from utils.collectives import broadcast_from_first
from utils.errors import InputError
from utils.files import excerpt
from utils.log import RunLog

PRECISIONS = {"off": None, "bf16": torch.bfloat16, "fp16": torch.float16}
LEAST_GAIN = 1.2  # a speed-up from which bf16 is worth its rounding errors
# What is timed: square maps of so many pixels a side and channels, as in the ResNets' first and
# third stages for 96 px; and how many images have them, fewer on a CPU than keep a GPU busy.
TIMED_LAYERS = ((24, 64), (6, 256))
TIMED_IMAGES = {"cpu": 8, "cuda": 512}
TIMED_ROUNDS = 5


def add_acceleration_arguments(parser: argparse.ArgumentParser, *, amp: str = "off") -> None:
    """Declare the ways to spend less time or memory on a step; ``amp`` is the default precision."""
    group = parser.add_argument_group("acceleration")
    add_precision_argument(group, "the encoders", amp, *PRECISIONS)
    group.add_argument(
        "--compile",
        action="store_true",
        help="compile the encoders (torch.compile): minutes at the start, faster steps afterwards",
    )
    group.add_argument(
        "--recompute",
        action="store_true",
        help="keep one map a block for the backward pass and compute the others again: a fraction "
        "of the memory for about a third more time",
    )
    allow_change("compile", "recompute")


def add_precision_argument(
    group: argparse._ActionsContainer, what: str, amp: str = "off", *precisions: str
) -> None:
    """Declare the precision that ``what`` computes in: off or bf16, or one of ``precisions``."""
    choices = precisions or ("off", "bf16")
    scaled = ", fp16 (with scaled gradients) on older GPUs" if "fp16" in choices else ""
    group.add_argument(
        "--amp",
        choices=[AUTO, *choices],
        default=amp,
        help=f"automatic mixed precision of {what}: bf16 on recent GPUs and CPUs{scaled}; weights "
        "and loss stay float32; auto takes bf16 where a short timing finds it faster, else off, "
        "and stays with it when the run resumes",
    )


def accelerate(encoder: InsResNet | TimmEncoder, *, compiled: bool, recompute: bool) -> None:
    """Prepare an encoder, in place: channels last, compiled or saving memory if asked for.

    Raises:
        InputError: if both are asked for, there is nothing to compile with, or a network of timm
            is to save memory.
    """
    if compiled and recompute:
        raise InputError("--compile and --recompute exclude each other")
    encoder.to(memory_format=torch.channels_last)
    network = encoder.encoder.module
    if isinstance(encoder, TimmEncoder):
        if recompute:
            raise InputError("--recompute: a network of timm can't; only the ResNets here can")
    else:
        network.saves_memory = recompute
    if compiled:
        check_compiler(next(encoder.parameters()).device)
        # In place, so that the state dict keeps its names. Shapes are few: whole batches, the
        # last one, and their chunks on several GPUs.
        network.compile(dynamic=False)


def check_compiler(device: torch.device) -> None:
    """Raise an `InputError` unless there is a C++ compiler, which torch.compile needs."""
    names = [os.environ["CXX"]] if "CXX" in os.environ else ["g++", "clang++", "c++", "cl"]
    if not any(shutil.which(name) for name in names):
        raise InputError(f"--compile on {device.type}: no C++ compiler found ({', '.join(names)})")


def choose_precision(
    amp: str, device: torch.device, found: tuple[Path, dict] | None, log: RunLog
) -> str:
    """Return the precision that ``--amp`` stands for, the same in all ranks.

    Args:
        amp: a key of `PRECISIONS`, which is returned; or ``auto``.
        device: of this process. The first rank times bf16 on its own.
        found: the checkpoint to resume, see `engine.run.resumption.open_checkpoint`. Its run's
            precision is kept: another timing could come out otherwise.
        log: receives what was chosen, in a line.

    Returns:
        A key of `PRECISIONS`.

    Raises:
        InputError: if the checkpoint's options name no precision.
    """
    if amp != AUTO:
        return amp
    if found is not None:
        kept = getattr(found[1]["opt"], "amp", "off")  # published ones had no choice
        if not isinstance(kept, str) or kept not in PRECISIONS:
            raise InputError(f"{found[0]}: its --amp is {excerpt(str(kept))}; give --amp off")
        log.line(f"--amp auto: {kept}, in which the run began")
        return kept
    full, half = broadcast_from_first(partial(time_precisions, device))
    chosen = "bf16" if full >= LEAST_GAIN * half else "off"
    log.line(
        f"--amp auto: {chosen}; some convolutions took {1000 * full:.1f} ms in float32, "
        f"{1000 * half:.1f} ms in bf16"
    )
    return chosen


def time_precisions(device: torch.device) -> tuple[float, float]:
    """Return the seconds that some layers of an encoder take in float32 and in bf16.

    Each is the median of a few passes, forward and backward, which alternate. The global random
    numbers aren't touched. Infinity stands for a precision that the device can't compute in.
    """
    count = TIMED_IMAGES[device.type]
    layers = [
        (
            torch.full((count, channels, side, side), 0.5, device=device, requires_grad=True),
            torch.full((channels, channels, 3, 3), 0.01, device=device, requires_grad=True),
        )
        for side, channels in TIMED_LAYERS
    ]

    def time(amp: str) -> float:
        start = perf_counter()
        try:
            for maps, weight in layers:
                with autocast(device, amp):
                    channels_last = maps.contiguous(memory_format=torch.channels_last)
                    made = functional.conv2d(channels_last, weight, padding=1)
                    made = functional.relu(functional.batch_norm(made, None, None, training=True))
                torch.autograd.grad(made.sum(), (maps, weight))
        except RuntimeError:  # of a GPU without kernels for it
            return float("inf")
        if device.type == "cuda":
            torch.cuda.synchronize(device)  # a pass begins and ends with an idle GPU
        return perf_counter() - start

    taken = [(time("off"), time("bf16")) for _ in range(1 + TIMED_ROUNDS)]
    full, half = (median(seconds) for seconds in zip(*taken[1:], strict=True))  # the first prepares
    return full, half


def autocast(device: torch.device, amp: str) -> torch.autocast:
    """Return a context in which layers compute in the precision of ``--amp``."""
    return torch.autocast(device.type, dtype=PRECISIONS[amp], enabled=amp != "off")
