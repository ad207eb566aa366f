"""Steps: what they change, in which order, and how a run of skipped ones ends."""

import pytest
import torch

from data_loader.items import PairItem
from engine.pretraining.objective import Descent
from models.nce import MemoryMoCo
from tests.recipes import arr
from train_moco import MomentumContrast, build_encoders
from utils.collectives import split_over_ranks
from utils.errors import InputError

CPU = torch.device("cpu")
ONE = split_over_ranks(1)


def test_a_step_averages_no_old_gradients():
    weight = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    descent = Descent(torch.optim.SGD([weight], lr=0.5), CPU, "off")
    for expected in ([0.5, 2.0], [0.0, 2.0]):
        assert descent.step(weight[0], ONE)
        assert weight.tolist() == expected


def test_a_run_of_skipped_steps_ends_with_advice():
    weight = torch.nn.Parameter(torch.ones(1))
    descent = Descent(torch.optim.SGD([weight], lr=0.5), CPU, "fp16")

    def step(factor):
        return descent.step((weight * factor).sum(), ONE)

    for factor in [float("inf")] * 19 + [1.0] + [float("inf")] * 19:
        assert step(factor) == (factor == 1.0)
    with pytest.raises(InputError, match=r"the gradients of 20 steps in a row .* try --amp bf16"):
        step(float("inf"))


class Wild(Descent):
    """Takes no step, as if gradients were infinite."""

    def step(self, loss, batch_split):
        return False


@pytest.mark.parametrize("taken", [True, False])
def test_keys_follow_the_query_encoder_after_its_step_and_are_enqueued(taken):
    query, key = build_encoders("resnet18", 32, 0, CPU)
    contrast = MemoryMoCo(128, 0, 6, 0.07, use_softmax=True)
    optimizer = torch.optim.SGD(query.parameters(), lr=0.1)
    objective = MomentumContrast(query, key, contrast, optimizer, 0.75)
    before = {name: value.clone() for name, value in key.named_parameters()}
    queue = contrast.memory.clone()
    descent = (Descent if taken else Wild)(optimizer, CPU, "off")
    images = PairItem(arr(0, 4, 6, 32, 32), torch.arange(4))
    loss, positive = objective.step(query, images, split_over_ranks(4), descent)
    assert loss.isfinite() and positive.isfinite() and not query.training == key.training
    weights = dict(query.named_parameters())
    for name, value in key.named_parameters():
        expected = 0.75 * before[name] + 0.25 * weights[name] if taken else before[name]
        torch.testing.assert_close(value.detach(), expected.detach())
    name = "encoder.module.conv1.weight"
    assert torch.equal(weights[name], before[name]) != taken
    assert objective.numbers() == {"queue_index": 4 if taken else 0}
    assert torch.equal(contrast.memory[:4], queue[:4]) != taken
    assert torch.equal(contrast.memory[4:], queue[4:])
