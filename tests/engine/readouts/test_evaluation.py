"""What an evaluation decides before it begins."""

from types import SimpleNamespace

import numpy as np
import pytest

from engine.readouts.evaluation import choose_mirror
from engine.readouts.finetune import Finetune
from engine.readouts.ridge import Ridge


@pytest.mark.parametrize(
    ("mirror", "ridge", "finetune"),
    [("off", "off", "off"), ("auto", "off", "views"), ("on", "copies", "views")],
)
def test_what_is_mirrored(mirror, ridge, finetune):
    settings = SimpleNamespace(options=SimpleNamespace(mirror=mirror))
    pairs = SimpleNamespace(flip_order=np.array([1, 0]))
    assert choose_mirror(settings, Ridge, pairs) == ridge
    assert choose_mirror(settings, Finetune, pairs) == finetune
    assert choose_mirror(settings, Finetune, SimpleNamespace(flip_order=None)) == "off"


def test_benchmarks_without_the_flag_mirror_nothing():
    pairs = SimpleNamespace(flip_order=np.array([1, 0]))
    assert choose_mirror(SimpleNamespace(options=SimpleNamespace()), Finetune, pairs) == "off"
