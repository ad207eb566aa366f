"""Processes that work as one, started by PyTorch's ``torchrun``: start-up, ranks and the end.

A process of its own is a group of one, whose rank is 0.
"""

import atexit
import os
import sys
from datetime import timedelta
from typing import NoReturn

import torch
import torch.distributed as dist

from utils.errors import InputError

# For a rank that waits at a collective: the first may be saving, or building a cache. A rank that
# dies is noticed at once, by torchrun.
TIMEOUT = timedelta(hours=1)

_stores: list[dist.Store] = []  # through which the processes have met
# Groups that were left, kept until the process ends. Gloo's destructor holds Python's lock while it
# waits for its threads, of which one may be waiting for that lock to drop the last collective's
# tensor: seen as a process that never ends, with PyTorch 2.6.
_left: list[dist.ProcessGroup | None] = []


def join_process_group(device: torch.device) -> None:
    """Join the processes that torchrun started with this one; do nothing without torchrun.

    Tensors on this rank's GPU go by NCCL, those on the CPU by Gloo.

    Raises:
        InputError: if torchrun couldn't restart the processes of several machines.
    """
    if local_rank() is None:
        return
    store, own_rank, count = next(dist.rendezvous("env://", timeout=TIMEOUT))
    if count == int(os.environ["LOCAL_WORLD_SIZE"]):
        # PyTorch 2.6 to 2.15: the store is torchrun's own, which outlives the processes that it
        # restarts, and would tell them the addresses of those before.
        store = dist.PrefixStore(f"start {os.environ['TORCHELASTIC_RESTART_COUNT']}", store)
    elif (
        os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
        and os.environ.get("TORCHELASTIC_MAX_RESTARTS") != "0"
    ):
        # The same on several machines, whose counts of restarts differ. Of these variables only
        # TORCHELASTIC_USE_AGENT_STORE is missing from torchrun's documentation.
        raise InputError(
            "--max-restarts on several machines: set TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 for "
            "torchrun, so that processes that are started again find each other"
        )
    backend = "gloo"
    if device.type == "cuda":
        torch.cuda.set_device(device)
        backend = "cpu:gloo,cuda:nccl"
    _stores.append(store)
    dist.init_process_group(backend, store=store, rank=own_rank, world_size=count, timeout=TIMEOUT)


def leave_process_group() -> bool:
    """Leave the group and return whether this was its first rank; all ranks must call this."""
    was_first = is_first_rank()
    if is_distributed():
        dist.all_reduce(torch.zeros(1))  # waits until no rank is in another collective
        _left.append(dist.group.WORLD)
        dist.destroy_process_group()
    return was_first


def end_process() -> NoReturn:
    """End this process with status 0, its exit handlers run, but without Python's finalization.

    A thread of Gloo may still have to drop the last collective's tensor. For that it waits for
    Python's lock, and Python up to 3.13, while it finalizes, ends a thread that does so, which
    aborts the process: seen with PyTorch 2.15 on a busy machine.
    """
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def is_distributed() -> bool:
    """Return whether this process is in a group."""
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """Return this process's number in the group, from 0."""
    return dist.get_rank() if is_distributed() else 0


def world_size() -> int:
    """Return how many processes the group has."""
    return dist.get_world_size() if is_distributed() else 1


def is_first_rank() -> bool:
    """Return whether this is the process that writes, logs and decides."""
    return rank() == 0


def local_rank() -> int | None:
    """Return this process's number on its machine, from 0; None without torchrun."""
    return int(os.environ["LOCAL_RANK"]) if "TORCHELASTIC_RUN_ID" in os.environ else None


def local_world_size() -> int:
    """Return how many of the group's processes run on this machine."""
    return int(os.environ["LOCAL_WORLD_SIZE"]) if is_distributed() else 1


def is_first_to_report(message: str) -> bool:
    """Return whether no other rank has reported the same message."""
    try:
        return all(store.add(f"reported: {message}", 1) == 1 for store in _stores)
    except dist.DistError:  # it was torchrun that ended
        return True


def is_connection_lost(error: Exception) -> bool:
    """Return whether a collective failed because another rank ended or can't be reached."""
    # Gloo, up to PyTorch 2.15, raises a plain RuntimeError: only its text tells.
    lost = (
        "Connection closed by peer",
        "Connection reset by peer",
        "Broken pipe",
        "remote process exited or there was a network error",
    )
    return any(words in str(error) for words in lost)
