"""Processes that work as one, started by PyTorch's own ``torchrun``; their number a process's rank.

A batch is split as DataParallel splits it, so that R processes compute what one process does on
R GPUs [spec 4]. In a process of its own, everything here is trivial: one rank, which is the first.

Letters: R ranks, B rows of a batch over all of them, b of this rank's share.
"""

import os
from collections.abc import Callable
from datetime import timedelta
from typing import NamedTuple, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from utils.errors import InputError

# For a rank that waits at a collective: the first may be saving, or building a cache. A rank that
# dies is noticed at once, by torchrun.
PATIENCE = timedelta(hours=1)

T = TypeVar("T")
_stores: list = []  # through which the processes have met


def join_process_group(device: torch.device) -> None:
    """Join the processes that torchrun started with this one, if it did.

    Tensors on GPUs go by NCCL, those on the CPU by Gloo.

    Raises:
        InputError: if torchrun couldn't start the processes of several machines again.
    """
    if local_rank() is None:
        return
    store, own_rank, count = next(dist.rendezvous("env://", timeout=PATIENCE))
    if count == int(os.environ["LOCAL_WORLD_SIZE"]):
        # On one machine the store outlives the processes that torchrun starts again, and would
        # tell them where the ones before could be reached.
        store = dist.PrefixStore(f"start {os.environ['TORCHELASTIC_RESTART_COUNT']}", store)
    elif (
        os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
        and os.environ.get("TORCHELASTIC_MAX_RESTARTS") != "0"
    ):
        # The same on several machines, which don't count restarts alike.
        raise InputError(
            "--max-restarts on several machines: set TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 for "
            "torchrun, so that processes that are started again find each other"
        )
    backend = "gloo"
    if device.type == "cuda":
        torch.cuda.set_device(device)
        backend = "cpu:gloo,cuda:nccl"
    _stores.append(store)
    dist.init_process_group(backend, store=store, rank=own_rank, world_size=count, timeout=PATIENCE)


def leave_process_group() -> bool:
    """Go on as a process of its own, and return whether it was the first; all are to call this."""
    was_first = is_first_rank()
    if is_distributed():
        all_reduce_max(0)  # no collective is under way in any of them any more
        dist.destroy_process_group()
    return was_first


def is_distributed() -> bool:
    """Return whether this process works together with others."""
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """Return this process's number among all, from 0."""
    return dist.get_rank() if is_distributed() else 0


def world_size() -> int:
    """Return R."""
    return dist.get_world_size() if is_distributed() else 1


def is_first_rank() -> bool:
    """Return whether this is the process that writes, logs and decides."""
    return rank() == 0


def local_rank() -> int | None:
    """Return this process's number on its machine; None if torchrun didn't start it."""
    return int(os.environ["LOCAL_RANK"]) if "TORCHELASTIC_RUN_ID" in os.environ else None


def local_world_size() -> int:
    """Return how many processes work together on this machine."""
    return int(os.environ["LOCAL_WORLD_SIZE"]) if is_distributed() else 1


class BatchSplit(NamedTuple):
    """How many of a batch's B rows each rank has, in their order, and which rank this one is."""

    sizes: tuple[int, ...]
    rank: int

    @property
    def total(self) -> int:
        """B."""
        return sum(self.sizes)

    @property
    def own(self) -> int:
        """b, the rows of this rank; maybe none."""
        return self.sizes[self.rank]

    @property
    def rows(self) -> slice:
        """Where they stand in the batch."""
        first = sum(self.sizes[: self.rank])
        return slice(first, first + self.own)


def split_over_ranks(total: int) -> BatchSplit:
    """Split a batch over the ranks as ``torch.chunk`` and DataParallel do."""
    count = world_size()
    return BatchSplit(tuple(chunk_size(total, count, place) for place in range(count)), rank())


def chunk_size(total: int, count: int, place: int) -> int:
    """Return how many of so many rows ``torch.chunk`` puts into one of so many chunks."""
    size = -(-total // count)
    return min(size, max(0, total - size * place))


def all_gather_rows(rows: Tensor, batch_split: BatchSplit) -> Tensor:
    """Return the rows (B, ...) of all ranks, given this rank's (b, ...); the same in each."""
    if not is_distributed():
        return rows
    own = _as_bytes(rows, batch_split)
    parts = [torch.empty_like(own) for _ in batch_split.sizes]
    dist.all_gather(parts, own)
    return _from_bytes(parts, rows, batch_split)


def gather_rows(rows: Tensor, batch_split: BatchSplit) -> Tensor | None:
    """Return the rows (B, ...) of all ranks in the first one, None in the others."""
    if not is_distributed():
        return rows
    own = _as_bytes(rows, batch_split)
    parts = [torch.empty_like(own) for _ in batch_split.sizes] if is_first_rank() else None
    dist.gather(own, parts)
    return _from_bytes(parts, rows, batch_split) if is_first_rank() else None


def _as_bytes(rows: Tensor, batch_split: BatchSplit) -> Tensor:
    """Return this rank's rows as bytes, filled up to the largest share: (max(sizes), bytes)."""
    own = (
        rows[: batch_split.own].flatten(start_dim=1)
        if rows.dim() > 1
        else rows[: batch_split.own, None]
    )
    filled = own.new_zeros(max(batch_split.sizes), own.shape[1])
    filled[: batch_split.own] = own
    return filled.view(torch.uint8)


def _from_bytes(parts: list[Tensor], like: Tensor, batch_split: BatchSplit) -> Tensor:
    rows = torch.cat([part[:size] for part, size in zip(parts, batch_split.sizes, strict=True)])
    return rows.view(like.dtype).view(-1, *like.shape[1:])


def exchange_rows(rows: Tensor, order: Tensor, batch_split: BatchSplit) -> Tensor:
    """Return this rank's share of ``batch[order]``, given its share of a batch.

    Each rank sends every other only what it needs, an R-th of what gathering the batch would take.

    Args:
        rows: (b, ...); anything where b = 0.
        order: (B,), a permutation on the CPU, the same in each rank.
        batch_split: of the batch, and of its permutation.

    Returns:
        (b, ...), or some row where b = 0.
    """
    if not is_distributed():
        return rows[copy_indices(order, rows.device)]
    owner = torch.repeat_interleave(
        torch.arange(len(batch_split.sizes)), torch.tensor(batch_split.sizes)
    )
    places = torch.argsort(order)[batch_split.rows]  # where this rank's rows go
    sent = torch.argsort(places)  # by place, so by receiver
    wanted = order[batch_split.rows]  # what belongs into this rank's places
    by_sender = torch.argsort(owner[wanted], stable=True)  # as it arrives
    output = rows.new_empty(batch_split.own, *rows.shape[1:])
    dist.all_to_all_single(
        output,
        rows[copy_indices(sent, rows.device)].contiguous(),
        owner[wanted].bincount(minlength=len(batch_split.sizes)).tolist(),
        owner[places].bincount(minlength=len(batch_split.sizes)).tolist(),
    )
    if not batch_split.own:
        return rows[:1]
    return output[copy_indices(torch.argsort(by_sender), rows.device)]


def copy_indices(indices: Tensor, device: torch.device) -> Tensor:
    """Return indices on a device, without waiting for what it is working on."""
    if device.type == "cuda":
        indices = indices.pin_memory()
    return indices.to(device, non_blocking=True)


def all_reduce_sum(values: Tensor) -> Tensor:
    """Return the sums of values over all ranks."""
    if is_distributed():
        dist.all_reduce(values)
    return values


def all_reduce_max(*values: int) -> list[int]:
    """Return the largest that any rank gave, of each value; waits for all, but for no GPU."""
    if not is_distributed():
        return list(values)
    largest = torch.tensor(values)
    dist.all_reduce(largest, dist.ReduceOp.MAX)
    return largest.tolist()


def broadcast_from_first(make: Callable[[], T]) -> T:
    """Return in all ranks what the first one makes: plain values, or tensors on the CPU."""
    if not is_distributed():
        return make()
    values = [make() if is_first_rank() else None]
    dist.broadcast_object_list(values, device=torch.device("cpu"))
    return values[0]


def is_first_to_report(message: str) -> bool:
    """Return whether no other rank has said the same."""
    try:
        return all(store.add(f"said: {message}", 1) == 1 for store in _stores)
    except dist.DistError:  # it was torchrun that ended
        return True


def is_connection_lost(error: RuntimeError) -> bool:
    """Return whether a collective failed since another rank has ended or can't be reached."""
    lost = (
        "Connection closed by peer",
        "Connection reset by peer",
        "Broken pipe",
        "remote process exited or there was a network error",
    )
    return any(words in str(error) for words in lost)


def broadcast_buffers(*modules: nn.Module) -> None:
    """Set buffers to the first rank's, as DataParallel keeps those of the first GPU."""
    if is_distributed():
        for module in modules:
            for buffer in module.buffers():
                dist.broadcast(buffer, 0)


def check_identical(**modules: nn.Module) -> None:
    """Compare parameters and buffers between all ranks, by sums of their bits.

    Raises:
        RuntimeError: if they aren't the same to the bit; names the first that differ.
    """
    if not is_distributed():
        return
    tensors = {
        f"{part} {name}": tensor
        for part, module in modules.items()
        for name, tensor in module.state_dict().items()
    }
    sums = torch.stack([_bits(tensor).sum(dtype=torch.int64) for tensor in tensors.values()])
    batch_split = BatchSplit((1,) * world_size(), rank())
    differs = (all_gather_rows(sums[None], batch_split) != sums).any(dim=0)  # (tensors,)
    if differs.any():
        names = [name for name, d in zip(tensors, differs.tolist(), strict=True) if d]
        raise RuntimeError(f"the ranks differ in {len(names)} tensors, such as {names[:3]}")


def _bits(tensor: Tensor) -> Tensor:
    kinds = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    return tensor.detach().view(kinds[tensor.element_size()])
