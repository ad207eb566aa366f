"""The shared fit on a small data set of drawn dots: landmarks that can be found exactly."""

from argparse import Namespace

import pytest
import torch

from engine.features import StoredImages, StreamedImages, WarpedImages
from engine.regression import (
    REGRESSOR_KEYS,
    baseline,
    build_optimizer,
    build_regressor,
    evaluate,
    load_regressor,
    regressor_states,
    resume_regressor,
    train_one_epoch,
)
from eval_face import face_task
from models.encoders import build_random_encoder, freeze, weights_digest
from tests.utils.dots import Dots, encoded
from utils.checkpoint import load_checkpoint, save_checkpoint
from utils.log import RunLog


@pytest.fixture
def encoder():
    return freeze(build_random_encoder("resnet18", 64, seed=0))


def fresh(encoder):
    torch.manual_seed(1)
    regressor = build_regressor(encoder.feature_channels(4, True), 3)
    optimizer = build_optimizer(
        regressor,
        learning_rate=0.01,
        momentum=0.9,
        weight_decay=5e-4,
        adam=True,
        amsgrad=False,
        betas=(0.5, 0.999),
    )
    return regressor, optimizer


def test_stored_features_give_the_same_training_as_encoding_each_batch(tmp_path, encoder):
    dataset, task = Dots(tmp_path, 10), face_task((0, 1))
    results = []
    for mode, kind in (("memory", StoredImages), ("off", StreamedImages)):
        images = encoded(dataset, encoder, mode=mode, shuffle=True)
        assert type(images) is kind
        regressor, optimizer = fresh(encoder)
        scores = [
            train_one_epoch(regressor, optimizer, task, images, epoch, RunLog(), 100)
            for epoch in (1, 2)
        ]
        results.append((scores, evaluate(regressor, task, images)))
    flat = [
        [*(v for s in scores for v in s.values()), *final.values()] for scores, final in results
    ]
    # One image's features differ in the last bits with the batch it is encoded in.
    assert flat[0] == pytest.approx(flat[1], rel=2e-3)


def test_the_encoder_stays_frozen(tmp_path, encoder):
    before = weights_digest(encoder)
    images = encoded(Dots(tmp_path, 6, warp=True), encoder)
    regressor, optimizer = fresh(encoder)
    weight = regressor.inner_conv.weight.clone()
    train_one_epoch(regressor, optimizer, face_task((0, 1)), images, 1, RunLog(), 100)
    assert not torch.equal(weight, regressor.inner_conv.weight)
    assert weights_digest(encoder) == before
    assert not any(p.requires_grad for p in encoder.parameters())
    assert not any(module.training for module in encoder.modules())


def test_parameters_without_part_stay_as_they_are(tmp_path, encoder):
    regressor, optimizer = fresh(encoder)
    kept = {n: p.clone() for n, p in regressor.named_parameters() if "conv" not in n}
    images = encoded(Dots(tmp_path, 4), encoder)
    train_one_epoch(regressor, optimizer, face_task((0, 1)), images, 1, RunLog(), 100)
    for name, value in kept.items():
        assert torch.equal(dict(regressor.named_parameters())[name], value), name


def test_coloured_dots_are_found_in_the_pixels(tmp_path, encoder):
    """With the pixels as features a soft-argmax can find each dot, and the fit has to."""
    dataset, task = Dots(tmp_path, 24), face_task((0, 1))
    images = encoded(dataset, encoder, layer=0, shuffle=True)
    torch.manual_seed(1)
    regressor = build_regressor(encoder.feature_channels(0, False), 3)
    optimizer = torch.optim.Adam(regressor.parameters(), lr=0.002, betas=(0.5, 0.999))
    for epoch in range(1, 21):
        train_one_epoch(regressor, optimizer, task, images, epoch, RunLog(), 100)
    error = evaluate(regressor, task, images)["InterOcularError"]
    mean_shape = baseline(task, task.mean_shape(*images.annotations()), images)["InterOcularError"]
    assert error < 0.05 * mean_shape


def test_evaluation_weighs_batches_by_their_size(tmp_path, encoder):
    images = encoded(Dots(tmp_path, 6), encoder)  # batches of 4 and 2
    regressor, _ = fresh(encoder)
    task = face_task((0, 1))
    found = evaluate(regressor, task, images)
    features = tuple(m.permute(0, 3, 1, 2) for m in images.stored.maps)
    with torch.no_grad():
        pred = regressor(features)[0]
    points = images.stored.points
    distance = (points[:, 0] - points[:, 1]).norm(dim=-1)
    per_image = (pred - points).norm(dim=-1).mean(dim=1) / distance
    assert found["InterOcularError"] == pytest.approx(100 * float(per_image.mean()), rel=1e-4)


def test_warped_images_change_each_epoch_and_repeat_with_the_seed(tmp_path, encoder):
    images = encoded(Dots(tmp_path, 4, warp=True), encoder)
    assert type(images) is WarpedImages
    first, again, second = ([p for _, p, _ in images.batches(e)][0] for e in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, second)


def test_a_resumed_fit_is_the_uninterrupted_one(tmp_path, encoder):
    images = encoded(Dots(tmp_path, 8), encoder, shuffle=True)
    task, log = face_task((0, 1)), RunLog()
    regressor, optimizer = fresh(encoder)
    for epoch in range(1, 5):
        train_one_epoch(regressor, optimizer, task, images, epoch, log, 100)
        if epoch == 2:
            entries = {"opt": Namespace(), "epoch": 2, "best_error": 3.0, "best_epoch": 1}
            save_checkpoint(tmp_path / "r.pth", regressor_states(regressor, optimizer, **entries))
    torch.manual_seed(99)
    resumed = build_regressor(encoder.feature_channels(4, True), 3)
    _, optimizer = fresh(encoder)
    optimizer.param_groups[0]["params"] = list(resumed.parameters())
    content = load_checkpoint(tmp_path / "r.pth", REGRESSOR_KEYS)
    done, best = resume_regressor(tmp_path / "r.pth", content, resumed, optimizer, task, "")
    assert (done, best) == (2, {"best_error": 3.0, "best_epoch": 1})
    for epoch in (3, 4):
        train_one_epoch(resumed, optimizer, task, images, epoch, log, 100)
    for name, value in regressor.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    assert load_regressor(tmp_path / "r.pth", resumed, "")["epoch"] == 2
