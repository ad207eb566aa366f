"""The fit of a regressor as a run: what it saves, and what it resumes."""

from dataclasses import replace

import pytest
import torch

from engine.readouts.published import PublishedReadout
from eval_face import face_task
from models.encoders import build_random_encoder, choose_levels, freeze
from tests.utils.dots import Dots, encoded, evaluation_settings
from utils.checkpoint import load_checkpoint
from utils.errors import InputError
from utils.log import RunLog

FLAGS = "--random_network --adam --cosine --learning_rate 0.01 --epochs 4 --save_freq 2"


@pytest.fixture
def settings(tmp_path):
    return evaluation_settings(tmp_path, FLAGS)


@pytest.fixture
def dots(tmp_path):
    return Dots(tmp_path, 8)


@pytest.fixture
def images(dots):
    return encoded(dots, freeze(build_random_encoder("resnet18", 64, seed=0)), shuffle=True)


def start(settings, dots, found=None, seed=0):
    """Return a fit that begins from the same weights whenever it is called."""
    torch.manual_seed(1)
    encoder = build_random_encoder("resnet18", 64, seed)
    readout = PublishedReadout(encoder, choose_levels(encoder, 4, True), 3, 64)
    readout.begin(settings, face_task((0, 1)), torch.device("cpu"), dots, found)
    return readout


def test_a_resumed_fit_is_bitwise_the_uninterrupted_one(settings, dots, images):
    whole = start(settings, dots)
    result = whole.fit(images, {"Test": images}, RunLog())
    written = sorted(path.name for path in settings.folder.glob("*.pth"))
    assert written == [
        "ckpt_epoch_2.pth", "ckpt_epoch_4.pth", "current.pth", "previous_1.pth", "resnet50.pth"
    ]  # fmt: skip
    path = settings.folder / "ckpt_epoch_2.pth"
    resumed = start(settings, dots, (path, load_checkpoint(path, PublishedReadout.keys)))
    assert resumed.done == 2 and set(resumed.best) == {"best_error", "best_epoch"}
    assert resumed.best["best_epoch"] in (1, 2)
    assert resumed.fit(images, {"Test": images}, RunLog()) == result
    for name, value in whole.module.state_dict().items():
        assert torch.equal(value, resumed.module.state_dict()[name]), name


def test_a_checkpoint_of_another_encoder_is_resumed_only_if_insisted_on(settings, dots):
    run = start(settings, dots)
    run.done = 1
    run.save(improved=False)
    path = settings.folder / "current.pth"
    content = load_checkpoint(path, PublishedReadout.keys)
    with pytest.raises(InputError, match="features of another encoder"):
        start(settings, dots, (path, content), seed=1)
    settings = replace(settings, override=True)
    assert start(settings, dots, (path, content), seed=1).done == 1
    content["optimizer"]["param_groups"] = []
    with pytest.raises(InputError, match="the optimizer's state doesn't fit"):
        start(settings, dots, (path, content))


def test_the_file_named_after_the_encoder_is_the_best_epochs(settings, dots, images, monkeypatch):
    errors = iter([3.0, 1.0, 2.0, 4.0])
    scores = {"loss": 0.0}
    monkeypatch.setattr(
        PublishedReadout,
        "evaluate",
        lambda *_: {"Test": {**scores, "InterOcularError": next(errors)}},
    )
    readout = start(settings, dots)
    result = readout.fit(images, {"Test": images}, RunLog())
    assert result["best"] == {"best_error": 1.0, "best_epoch": 2}
    best, second = (
        load_checkpoint(settings.folder / name, ("epoch", "regressor"))
        for name in ("resnet50.pth", "ckpt_epoch_2.pth")
    )
    assert best["epoch"] == 2
    for name, value in second["regressor"].items():
        assert torch.equal(best["regressor"][name], value), name
        assert torch.equal(readout.module.state_dict()[name], value), name  # that is scored
