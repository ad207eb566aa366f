"""Run by torchrun in test_torchrun.py: every collective against the same thing in one process."""

import torch
import torch.distributed as dist

from utils.collectives import (
    all_gather_rows,
    all_reduce_max,
    all_reduce_sum,
    broadcast_buffers,
    broadcast_from_first,
    check_identical,
    exchange_rows,
    split_over_ranks,
)
from utils.process_group import (
    end_process,
    is_first_rank,
    is_first_to_report,
    join_process_group,
    leave_process_group,
    rank,
    world_size,
)


def rows_of_all_kinds(count):
    yield torch.randn(count, 3, 4, 5)
    yield torch.randn(count, 3, 4, 5).to(memory_format=torch.channels_last)
    yield torch.randn(count, 2).bfloat16()
    yield torch.arange(count)
    yield torch.rand(count, 15) > 0.5


join_process_group(torch.device("cpu"))
torch.manual_seed(0)  # the same batches in all ranks
ranks = world_size()
for total in (1, 2, 3, 4, 5, 6, 7, 12, 13):
    batch_split = split_over_ranks(total)
    chunks = [len(c) for c in torch.arange(total).chunk(ranks)]
    assert list(batch_split.sizes) == chunks + [0] * (ranks - len(chunks))
    for batch in rows_of_all_kinds(total):
        own = batch[batch_split.rows] if batch_split.own else batch[:1]  # a stand-in
        assert torch.equal(all_gather_rows(own, batch_split), batch)
        if batch.dtype is torch.float32:
            order = torch.randperm(total)
            found = exchange_rows(own, order, batch_split)
            assert len(found) == max(1, batch_split.own)
            assert not batch_split.own or torch.equal(found, batch[order][batch_split.rows])

assert all_reduce_sum(torch.tensor([1.0, rank()])).tolist() == [ranks, ranks * (ranks - 1) / 2]
assert all_reduce_max(rank(), 5 * is_first_rank(), 0) == [ranks - 1, 5, 0]
assert broadcast_from_first(lambda: {"of": rank(), "t": torch.ones(2)})["of"] == 0
spoken = torch.tensor([is_first_to_report("it"), is_first_to_report(f"it from {rank()}")]).int()
assert all_reduce_sum(spoken).tolist() == [1, ranks]

net = torch.nn.BatchNorm1d(4)
net.running_mean.fill_(rank())
try:
    check_identical(net=net)
except RuntimeError as error:
    assert "such as ['net running_mean']" in str(error)
else:
    raise AssertionError("ranks that differ went unnoticed")
broadcast_buffers(net)
check_identical(net=net)
assert not net.running_mean.any()

was_first = is_first_rank()
assert dist.get_world_size() == ranks and leave_process_group() == was_first
assert is_first_rank() and world_size() == 1 and split_over_ranks(5).sizes == (5,)
print("all equal\n", end="")  # in one write, that no other rank gets between
end_process()
