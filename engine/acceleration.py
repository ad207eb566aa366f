"""How the arithmetic of pre-training is carried out: precision, memory, compiled kernels.

None of it changes what is computed, beyond rounding.
"""

import argparse
import os
import shutil

import torch

from models.resnet import InsResNet
from models.timm_encoder import TimmEncoder
from utils.arguments import allow_change
from utils.errors import InputError

PRECISIONS = {"off": None, "bf16": torch.bfloat16, "fp16": torch.float16}


def add_acceleration_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the ways to spend less time or memory on a step."""
    group = parser.add_argument_group("acceleration")
    group.add_argument(
        "--amp",
        choices=list(PRECISIONS),
        default="off",
        help="automatic mixed precision of the encoders: bf16 on recent GPUs and CPUs, fp16 (with "
        "scaled gradients) on older GPUs; weights, queue and loss stay float32",
    )
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


def autocast(device: torch.device, amp: str) -> torch.autocast:
    """Return a context in which layers compute in the precision of ``--amp``."""
    return torch.autocast(device.type, dtype=PRECISIONS[amp], enabled=amp != "off")


def gradient_scaler(device: torch.device, amp: str) -> torch.amp.GradScaler:
    """Return a scaler that keeps float16's gradients from vanishing; elsewhere it does nothing."""
    return torch.amp.GradScaler(device.type, enabled=amp == "fp16")


def scaled_step(optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler) -> bool:
    """Take a step, and return whether it was taken: with infinite gradients the scaler skips it."""
    before = scaler.get_scale() if scaler.is_enabled() else 0.0  # reading it waits for a GPU
    scaler.step(optimizer)
    scaler.update()
    return not scaler.is_enabled() or scaler.get_scale() >= before
