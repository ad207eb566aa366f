"""Which encoder a readout is used on."""

from types import SimpleNamespace

from engine.prediction.predictor import Trained, choose_encoder
from engine.readouts.finetune import Finetune
from utils.log import RunLog


def test_a_fine_tuned_encoder_is_asked_for_no_map_that_it_may_lack():
    """Some networks of timm have fewer than four; the head says which ones it takes."""
    settings = {"options": None, "trained_model_path": None, "random_network": False}
    settings = SimpleNamespace(**settings, projection=None)
    trained = Trained("Keypoints", "timm:small", 3, False, 64, 0, projection="p.pth")
    found = choose_encoder(settings, "c.pth", trained, Finetune, RunLog())
    assert (found.layer, found.use_hypercol) == (0, False)
    assert found.trained_model_path == "c.pth" and found.projection is None
