"""Run by torchrun in test_torchrun.py: every collective against the same thing in one process."""

import torch
import torch.distributed as dist

from utils.distributed import (
    agree,
    check_same,
    exchanged,
    first_to_say,
    from_first,
    gathered,
    gathered_by_first,
    is_first,
    join_ranks,
    leave_ranks,
    rank,
    rank_count,
    share_buffers,
    share_out,
    summed,
)


def rows_of_all_kinds(count):
    yield torch.randn(count, 3, 4, 5)
    yield torch.randn(count, 3, 4, 5).to(memory_format=torch.channels_last)
    yield torch.randn(count, 2).bfloat16()
    yield torch.arange(count)
    yield torch.rand(count, 15) > 0.5


join_ranks(torch.device("cpu"))
torch.manual_seed(0)  # the same batches in all ranks
ranks = rank_count()
for total in (1, 2, 3, 4, 5, 6, 7, 12, 13):
    shares = share_out(total)
    chunks = [len(c) for c in torch.arange(total).chunk(ranks)]
    assert list(shares.sizes) == chunks + [0] * (ranks - len(chunks))
    for batch in rows_of_all_kinds(total):
        own = batch[shares.rows] if shares.own else batch[:1]  # a stand-in
        assert torch.equal(gathered(own, shares), batch)
        at_first = gathered_by_first(own, shares)
        assert torch.equal(at_first, batch) if is_first() else at_first is None
        if batch.dtype is torch.float32:
            order = torch.randperm(total)
            found = exchanged(own, order, shares)
            assert len(found) == max(1, shares.own)
            assert not shares.own or torch.equal(found, batch[order][shares.rows])

assert summed(torch.tensor([1.0, rank()])).tolist() == [ranks, ranks * (ranks - 1) / 2]
assert agree(rank(), 5 * is_first(), 0) == [ranks - 1, 5, 0]
assert from_first(lambda: {"of": rank(), "t": torch.ones(2)})["of"] == 0
spoken = torch.tensor([first_to_say("it"), first_to_say(f"it from {rank()}")]).int()
assert summed(spoken).tolist() == [1, ranks]

net = torch.nn.BatchNorm1d(4)
net.running_mean.fill_(rank())
try:
    check_same(net=net)
except RuntimeError as error:
    assert "such as ['net running_mean']" in str(error)
else:
    raise AssertionError("ranks that differ went unnoticed")
share_buffers(net)
check_same(net=net)
assert not net.running_mean.any()

was_first = is_first()
assert dist.get_world_size() == ranks and leave_ranks() == was_first
assert is_first() and rank_count() == 1 and share_out(5).sizes == (5,)
print("all equal\n", end="")  # in one write, that no other rank gets between
