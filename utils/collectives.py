"""Collectives: what the ranks of a process group compute together, or exchange.

A batch is split as DataParallel splits it, so that R processes compute what one process does on
R GPUs [spec 4]. In a process of its own, everything here is trivial: it is the only rank.

Letters: R ranks, B rows of a batch over all of them, b rows of this rank.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from utils.process_group import is_distributed, is_first_rank, rank, world_size

T = TypeVar("T")


class BatchSplit(NamedTuple):
    """How the B rows of a batch are split over the ranks, in order.

    Args:
        sizes: R numbers of rows, whose sum is B.
        rank: of this process.
    """

    sizes: tuple[int, ...]
    rank: int

    @property
    def total(self) -> int:
        """B, the rows of the whole batch."""
        return sum(self.sizes)

    @property
    def own(self) -> int:
        """b, the rows of this rank; can be 0."""
        return self.sizes[self.rank]

    @property
    def rows(self) -> slice:
        """This rank's rows in the batch."""
        first = sum(self.sizes[: self.rank])
        return slice(first, first + self.own)


def split_over_ranks(total: int) -> BatchSplit:
    """Split a batch over the ranks as ``torch.chunk`` and DataParallel do."""
    count = world_size()
    return BatchSplit(tuple(chunk_size(total, count, place) for place in range(count)), rank())


def chunk_size(total: int, count: int, place: int) -> int:
    """Return how many of ``total`` rows are in chunk ``place`` of ``torch.chunk(_, count)``."""
    size = -(-total // count)
    return min(size, max(0, total - size * place))


def all_gather_rows(rows: Tensor, batch_split: BatchSplit) -> Tensor:
    """Return in every rank the rows (B, ...) of all, given this rank's (b, ...)."""
    if not is_distributed():
        return rows
    own = rows[: batch_split.own].reshape(batch_split.own, math.prod(rows.shape[1:]))
    filled = own.new_zeros(max(batch_split.sizes), own.shape[1])
    filled[: batch_split.own] = own
    filled = filled.view(torch.uint8)  # whatever the type: not all backends take all
    parts = [torch.empty_like(filled) for _ in batch_split.sizes]
    dist.all_gather(parts, filled)
    held = torch.cat([part[:size] for part, size in zip(parts, batch_split.sizes, strict=True)])
    return held.view(rows.dtype).view(-1, *rows.shape[1:])


def exchange_rows(rows: Tensor, order: Tensor, batch_split: BatchSplit) -> Tensor:
    """Return this rank's rows of ``batch[order]``, given its rows of ``batch``.

    Each rank sends every other only what it needs, an R-th of what gathering the batch would take.

    Args:
        rows: (b, ...); any one row where b = 0.
        order: (B,), a permutation on the CPU, the same in each rank.
        batch_split: of the batch, and of its permutation.

    Returns:
        (b, ...); any one row where b = 0.
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
    """Return each value's maximum over all ranks; waits for the ranks, not for a GPU."""
    if not is_distributed():
        return list(values)
    largest = torch.tensor(values)
    dist.all_reduce(largest, dist.ReduceOp.MAX)
    return largest.tolist()


def broadcast_from_first(make: Callable[[], T]) -> T:
    """Return in all ranks what ``make`` returns in the first: plain values or CPU tensors."""
    if not is_distributed():
        return make()
    values: list[Any] = [make() if is_first_rank() else None]
    dist.broadcast_object_list(values, device=torch.device("cpu"))
    return values[0]


def broadcast_buffers(*modules: nn.Module) -> None:
    """Copy the first rank's buffers to all, as DataParallel keeps those of the first GPU."""
    if is_distributed():
        for module in modules:
            for buffer in module.buffers():
                dist.broadcast(buffer, 0)


def check_identical(**modules: nn.Module) -> None:
    """Compare parameters and buffers of all ranks, by sums of their bits.

    Raises:
        RuntimeError: if they aren't bitwise identical; names the first that differ.
    """
    if not is_distributed():
        return
    tensors = {
        f"{part} {name}": tensor
        for part, module in modules.items()
        for name, tensor in module.state_dict().items()
    }
    integers = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    bits = [t.detach().view(integers[t.element_size()]) for t in tensors.values()]
    sums = torch.stack([of_tensor.sum(dtype=torch.int64) for of_tensor in bits])
    batch_split = BatchSplit((1,) * world_size(), rank())
    differs = (all_gather_rows(sums[None], batch_split) != sums).any(dim=0)  # (tensors,)
    if differs.any():
        names = [name for name, d in zip(tensors, differs.tolist(), strict=True) if d]
        raise RuntimeError(f"the ranks differ in {len(names)} tensors, such as {names[:3]}")
