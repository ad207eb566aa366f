import pytest
import torch
import torch.nn.functional as F

from models.momentum import (
    copy_parameters,
    momentum_update,
    set_key_mode,
    shuffled_keys,
)
from models.nce import MemoryMoCo
from utils.collectives import split_over_ranks


@pytest.mark.parametrize("batches", [(4, 4, 4), (10, 3), (23, 5), (1,) * 12, (10, 10)])
def test_the_queue_is_a_ring_that_wraps_anywhere(batches):
    contrast = MemoryMoCo(8, 0, 10, use_softmax=True)
    ring, place = contrast.memory.clone(), 0
    for batch in batches:
        q, k = (F.normalize(torch.randn(batch, 8), dim=1) for _ in range(2))
        expected = torch.cat([(q * k).sum(1, keepdim=True), q @ ring.t()], dim=1) / 0.07
        torch.testing.assert_close(contrast(q, k), expected)
        for key in k:  # the literal write, one key at a time
            ring[place] = key
            place = (place + 1) % 10
        torch.testing.assert_close(contrast.memory, ring)
        assert contrast.index == place


def test_the_queue_starts_uniform_with_unit_mean_square_length():
    memory = MemoryMoCo(128, 0, 4096, use_softmax=True).memory
    assert memory.abs().max() <= (3 / 128) ** 0.5
    assert memory.square().sum(dim=1).mean() == pytest.approx(1, abs=0.02)


def test_other_losses_are_refused():
    with pytest.raises(ValueError, match="use_softmax"):
        MemoryMoCo(8, 0, 10)


def net():
    return torch.nn.Sequential(
        torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Dropout(), torch.nn.Linear(4, 2)
    )


def test_momentum_moves_parameters_and_leaves_buffers():
    query, key = net(), net()
    copied = [p.clone() for p in key.parameters()]
    query(torch.randn(5, 3))  # moves its running mean
    running_mean = key[1].running_mean.clone()
    momentum_update(query, key, alpha=0.9)
    for p, q, old in zip(key.parameters(), query.parameters(), copied, strict=True):
        torch.testing.assert_close(p, 0.9 * old + 0.1 * q)
    assert torch.equal(key[1].running_mean, running_mean)
    copy_parameters(query, key)
    assert all(map(torch.equal, key.parameters(), query.parameters()))
    assert torch.equal(key[1].running_mean, running_mean)


def test_the_key_encoder_is_in_eval_mode_but_for_its_batch_norms():
    key = net().train()
    set_key_mode(key)
    assert [module.training for module in key] == [False, True, False, False]


def test_shuffled_keys_come_back_in_order():
    images = torch.arange(24.0).view(8, 3)
    seen = []

    def key(x):
        seen.append(x)
        return x * 2

    assert torch.equal(shuffled_keys(key, images, split_over_ranks(8)), images * 2)
    assert not torch.equal(seen[0], images)


def test_logits_and_enqueuing_apart_are_the_call_without_its_copy():
    torch.manual_seed(3)
    whole, apart = (MemoryMoCo(8, 0, 10, use_softmax=True) for _ in range(2))
    apart.load_state_dict(whole.state_dict())
    for batch in (4, 7, 13):
        q, k = (F.normalize(torch.randn(batch, 8), dim=1) for _ in range(2))
        q1, q2 = q.clone().requires_grad_(), q.clone().requires_grad_()
        wanted = whole(q1, k)
        found = apart.logits(q2, k)
        wanted.square().sum().backward()
        found.square().sum().backward()
        apart.enqueue(k)
        assert torch.equal(found, wanted) and torch.equal(q1.grad, q2.grad)
        assert torch.equal(whole.memory, apart.memory) and whole.index == apart.index


def test_enqueuing_before_the_backward_pass_is_noticed():
    contrast = MemoryMoCo(8, 0, 10, use_softmax=True)
    q, k = torch.randn(3, 8, requires_grad=True), torch.randn(3, 8)
    logits = contrast.logits(q, k)
    contrast.enqueue(k)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        logits.sum().backward()
