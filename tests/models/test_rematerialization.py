"""Activations computed twice: the same step to the bit, for less memory."""

import copy

import torch

from models.encoders import build_random_encoder


def step(encoder, images):
    encoder.train()
    kept = set()

    def pack(tensor):
        kept.add((tensor.data_ptr(), tensor.nbytes))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        embedding = encoder(images)
    embedding[:, 0].sum().backward()
    return embedding.detach(), sum(size for _, size in kept)


def test_a_step_is_the_same_to_the_bit_and_keeps_less():
    literal = build_random_encoder("resnet18", 64, seed=0)
    ours = copy.deepcopy(literal)
    ours.encoder.module.saves_memory = True
    images = torch.randn(4, 3, 64, 64)
    for _ in range(2):
        results = [step(encoder, images) for encoder in (literal, ours)]
        assert torch.equal(results[0][0], results[1][0])
        for (name, p), q in zip(literal.named_parameters(), ours.parameters(), strict=True):
            assert torch.equal(p.grad, q.grad), name
        # BatchNorm has counted each batch once.
        for (name, p), q in zip(literal.named_buffers(), ours.buffers(), strict=True):
            assert torch.equal(p, q), name
    assert int(ours.encoder.module.bn1.num_batches_tracked) == 2
    assert all(m.momentum == 0.1 for m in ours.modules() if isinstance(m, torch.nn.BatchNorm2d))
    activations = [kept - sum(p.nbytes for p in ours.parameters()) for _, kept in results]
    assert activations[1] < 0.6 * activations[0]


def test_without_gradients_nothing_is_recomputed():
    encoder = build_random_encoder("resnet18", 32, seed=0)
    encoder.encoder.module.saves_memory = True
    with torch.no_grad():
        assert not encoder(torch.randn(2, 3, 32, 32)).requires_grad
