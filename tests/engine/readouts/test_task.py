"""The shared fit on a small data set of drawn dots: landmarks that can be found exactly."""

import math

import pytest
import torch

from engine.features.squares import Batch
from engine.readouts.published import PublishedReadout, train_one_epoch
from engine.readouts.task import WeightedMean, baseline, check_judged, evaluate, mean_shape
from eval_animal import animal_task
from eval_face import face_task
from models.encoders import build_random_encoder, choose_levels, freeze, weights_digest
from tests.utils.dots import Dots, encoded
from utils.errors import InputError
from utils.log import RunLog


@pytest.fixture
def encoder():
    return freeze(build_random_encoder("resnet18", 64, seed=0))


def fresh(encoder, layer=4, use_hypercol=True, lr=0.01):
    torch.manual_seed(1)
    readout = PublishedReadout(encoder, choose_levels(encoder, layer, use_hypercol), 3, 64)
    return readout, torch.optim.Adam(readout.module.parameters(), lr=lr, betas=(0.5, 0.999))


def test_the_encoder_and_parameters_without_part_stay_as_they_are(tmp_path, encoder):
    before = weights_digest(encoder)
    images = encoded(Dots(tmp_path, 6, warp=True), encoder)
    readout, optimizer = fresh(encoder)
    held = {name: value.clone() for name, value in readout.module.named_parameters()}
    train_one_epoch(readout.module, optimizer, face_task((0, 1)), images, 1, RunLog(), 100)
    for name, value in readout.module.named_parameters():
        assert torch.equal(value, held[name]) == ("conv" not in name), name
    assert weights_digest(encoder) == before
    assert not any(p.requires_grad for p in encoder.parameters())
    assert not any(module.training for module in encoder.modules())


def test_coloured_dots_are_found_in_the_pixels(tmp_path, encoder):
    """With the pixels as features a soft-argmax can find each dot, and the fit has to."""
    dataset, task = Dots(tmp_path, 24), face_task((0, 1))
    images = encoded(dataset, encoder, layer=0, shuffle=True)
    readout, optimizer = fresh(encoder, 0, False, lr=0.002)
    for epoch in range(1, 21):
        train_one_epoch(readout.module, optimizer, task, images, epoch, RunLog(), 100)
    error = evaluate(readout, task, images)["InterOcularError"]
    shape_error = baseline(task, mean_shape(*images.annotations()), images)["InterOcularError"]
    assert error < 0.05 * shape_error


def test_evaluation_weighs_batches_by_their_size(tmp_path, encoder):
    images = encoded(Dots(tmp_path, 6), encoder)  # batches of 4 and 2
    readout, _ = fresh(encoder)
    task = face_task((0, 1))
    found = evaluate(readout, task, images)
    points, _ = images.annotations()
    features = [m.permute(0, 3, 1, 2) for m in images.stored]
    with torch.no_grad():
        pred = readout.module(features)[0]
    distance = (points[:, 0] - points[:, 1]).norm(dim=-1)
    per_image = (pred - points).norm(dim=-1).mean(dim=1) / distance
    assert found["InterOcularError"] == pytest.approx(100 * float(per_image.mean()), rel=1e-4)


class Annotated:
    """Held-out images as batches of points and visibility, without features."""

    def __init__(self, *batches):
        self.parts = [Batch([], points, visible) for points, visible in batches]

    def batches(self, epoch):
        return iter(self.parts)


class Listed:
    """What a data set says of its annotations, without images."""

    def __init__(self, *batches):
        points, self.visibility = (torch.cat(parts) for parts in zip(*batches, strict=True))
        self.annotations = {"keypoints": points.numpy()}

    def __len__(self):
        return len(self.visibility)

    def visible(self):
        return self.visibility


def test_a_batch_without_a_visible_part_counts_for_nothing():
    points, shape = torch.rand(3, 15, 2), torch.rand(15, 2)
    seen, hidden = torch.ones(3, 15).bool(), torch.zeros(3, 15).bool()
    alone = baseline(animal_task(), shape, Annotated((points, seen)))
    both = (points, seen), (torch.rand(3, 15, 2), hidden)
    assert baseline(animal_task(), shape, Annotated(*both)) == alone and math.isfinite(alone["PCK"])
    said = "Val: 45 of 90 landmarks aren't annotated; 3 of 6 images can't be judged"
    assert check_judged(animal_task(), {"Val": Listed(*both)}) == [said]
    assert check_judged(animal_task(), {"Val": Listed((points, seen))}) == []


@pytest.mark.parametrize("task", [animal_task(), face_task((0, 1))])
def test_a_split_that_cannot_be_judged_is_refused(task):
    nothing = Listed((torch.rand(3, 15, 2), torch.zeros(3, 15).bool()))
    with pytest.raises(InputError, match="Test: none of its 3 images can be judged"):
        check_judged(task, {"Test": nothing})


def test_a_mean_of_nothing_is_nan():
    mean = WeightedMean()
    mean.add({"a": torch.tensor(math.nan), "b": torch.tensor(2.0)}, 0)
    assert all(math.isnan(value) for value in mean.result().values())
    mean.add({"a": torch.tensor(3.0)}, torch.tensor(2))
    assert mean.result()["a"] == 3


def test_masked_faces_are_weighed_by_the_points_that_are_judged():
    points, visible = torch.rand(4, 5, 2), torch.ones(4, 5).bool()
    visible[0, 0] = False  # an eye: the image isn't judged
    visible[1, 3] = visible[3, 4] = False
    shape, task = torch.rand(5, 2), face_task((0, 1))
    split = Annotated((points[:2], visible[:2]), (points[2:], visible[2:]))
    errors = [
        float((points[i, a] - shape[a]).norm() / (points[i, 0] - points[i, 1]).norm())
        for i in (1, 2, 3)
        for a in range(5)
        if visible[i, a]
    ]
    wanted = 100 * sum(errors) / len(errors)
    assert baseline(task, shape, split)["InterOcularError"] == pytest.approx(wanted, rel=1e-5)


def test_the_mean_shape_is_that_of_annotated_points():
    points = torch.tensor([[[1.0, 2.0], [9.0, 9.0]], [[3.0, 6.0], [5.0, 7.0]]])
    visible = torch.tensor([[True, False], [True, True]])
    assert mean_shape(points, visible).tolist() == [[2, 4], [5, 7]]
