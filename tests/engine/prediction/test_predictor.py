"""Which encoder a readout is used on."""

from types import SimpleNamespace

import pytest
import torch

from engine.prediction.predictor import Predictor, Trained, choose_encoder
from engine.readouts.finetune import Finetune
from models.encoders import build_random_encoder
from utils.log import RunLog


@pytest.mark.parametrize("model", ["resnet18", "hourglass"])
def test_a_fine_tuned_readout_is_shown_the_pixels_by_every_encoder(model):
    """The hourglass gives its one map whatever it is asked for."""
    encoder = build_random_encoder(model, 64, seed=0)
    readout = Finetune(encoder, Finetune.choose_levels(encoder, 3, False, {}), 3, 64)
    predictor, images = Predictor(readout, None).eval(), torch.rand(2, 3, 64, 64)
    points, confidence, errors = predictor(images)
    with torch.no_grad():
        expected = readout.module(encoder(images, levels=readout.levels.numbers))
    assert torch.equal(points, expected[0]) and torch.equal(confidence, expected[1])
    assert errors.shape == confidence.shape and errors.isnan().all()  # nothing is calibrated


def test_a_fine_tuned_encoder_is_asked_for_no_map_that_it_may_lack():
    """Some networks of timm have fewer than four; the head says which ones it takes."""
    settings = {"options": None, "trained_model_path": None, "random_network": False}
    settings = SimpleNamespace(**settings, projection=None)
    trained = Trained("Keypoints", "timm:small", 3, False, 64, 0, projection="p.pth")
    found = choose_encoder(settings, "c.pth", trained, Finetune, RunLog())
    assert (found.layer, found.use_hypercol) == (0, False)
    assert found.trained_model_path == "c.pth" and found.projection is None
