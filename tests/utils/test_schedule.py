import json
import math

import pytest
import torch

from tests.recipes import GOLDEN
from utils.schedule import (
    cosine_lr,
    regressor_lr,
    set_learning_rate,
    step_lr,
    warm_up_cosine_lr,
)

SCHEDULES = json.loads((GOLDEN / "schedules.json").read_text())


@pytest.mark.parametrize(("epoch", "rate"), SCHEDULES["moco_cosine_800"].items())
def test_moco_cosine(epoch, rate):
    assert cosine_lr(int(epoch), 0.03, 800) == pytest.approx(rate, rel=1e-9, abs=1e-18)


@pytest.mark.parametrize(("epoch", "rate"), SCHEDULES["moco_step"].items())
def test_moco_steps(epoch, rate):
    assert step_lr(int(epoch), 0.03, (120, 160, 200), 0.1) == pytest.approx(rate, rel=1e-9)


def torch_rates(make, epochs):
    """Rates of a torch scheduler that is stepped before each epoch, as the published code does."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.01)
    scheduler = make(optimizer)
    rates = []
    for _ in range(epochs):
        optimizer.step()
        scheduler.step()
        rates.append(optimizer.param_groups[0]["lr"])
    return rates


def test_regressor_cosine_is_torchs():
    from torch.optim.lr_scheduler import CosineAnnealingLR

    floor = 0.01 * 0.2**3 * 0.1
    expected = torch_rates(lambda o: CosineAnnealingLR(o, 200, eta_min=floor), 200)
    found = [regressor_lr(e, 0.01, 200, (), 0.2, True, False) for e in range(1, 201)]
    assert found == pytest.approx(expected, rel=1e-6)


def test_regressor_multistep_is_torchs():
    from torch.optim.lr_scheduler import MultiStepLR

    expected = torch_rates(lambda o: MultiStepLR(o, [100, 250], gamma=0.1), 260)
    found = [regressor_lr(e, 0.01, 260, (), 0.2, False, True) for e in range(1, 261)]
    assert found == pytest.approx(expected)


def test_flags_choose_the_regressors_schedule():
    def rate(cosine, multistep):
        return regressor_lr(35, 0.1, 60, (30, 40, 50), 0.2, cosine, multistep)

    assert rate(False, False) == pytest.approx(0.02)
    assert rate(False, True) == 0.1
    assert rate(True, False) == rate(True, True) != rate(False, False)


def test_set_learning_rate_reaches_every_group():
    parameters = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    optimizer = torch.optim.SGD([{"params": [p]} for p in parameters], lr=1.0)
    set_learning_rate(optimizer, 0.5)
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 0.5]


def test_a_warm_up_rises_and_a_cosine_falls_over_all_steps():
    rates = [warm_up_cosine_lr(2.0, 4, 10, step) for step in range(10)]
    cosine = [1 + math.cos(math.pi * step / 10) for step in range(10)]
    assert rates == pytest.approx(
        [*(c * (s + 1) / 4 for s, c in enumerate(cosine[:4])), *cosine[4:]]
    )
    assert warm_up_cosine_lr(2.0, 0, 10, 0) == 2.0
