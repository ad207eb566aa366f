"""Fine-tuning on drawn dots: what it learns, chooses, saves, resumes and refuses."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from data_loader.views.dense_views import DenseViews
from engine.features.cache import FeatureCache
from engine.features.images import Encoding, encode_dataset
from engine.features.squares import AnnotatedSquares
from engine.readouts.finetune import JUDGED_FROM, Finetune, plan_fit, shuffled, split
from eval_face import face_task
from models.encoders import Levels, build_random_encoder
from models.resnet import PIXELS
from tests.utils.dots import Dots, evaluation_settings
from utils.checkpoint import load_checkpoint
from utils.errors import InputError
from utils.log import RunLog

SIDE, CPU = 64, torch.device("cpu")


@pytest.fixture
def settings(tmp_path):
    flags = "--random_network --regressor finetune --model resnet18 --finetune_steps 4"
    return evaluation_settings(tmp_path, f"{flags} --finetune_batch 4")


@pytest.fixture
def squares(tmp_path):
    return AnnotatedSquares(Dots(tmp_path, 8), num_workers=0)


def start(settings, squares, found=None):
    """Return a fit that begins from the same weights whenever it is called."""
    torch.manual_seed(1)
    encoder = build_random_encoder("resnet18", SIDE, seed=0)
    readout = Finetune(encoder, Finetune.choose_levels(encoder, 3, False, {}), 3, SIDE)
    readout.begin(settings, face_task((0, 1)), CPU, squares.dataset, found)
    return readout


@pytest.fixture
def short_rounds(monkeypatch):
    """Rounds of one step each, judged by two of eight images."""
    monkeypatch.setattr("engine.readouts.finetune.ROUND_STEPS", 1)
    monkeypatch.setattr("engine.readouts.finetune.JUDGED_FROM", 4)
    monkeypatch.setattr("engine.readouts.finetune.JUDGED_FRACTION", 0.3)


def pixels(squares, encoder):
    cache = FeatureCache("memory", squares.dataset.folder / "cache", None, CPU)
    images = Encoding(encoder, "pixels", Levels((PIXELS,), None))
    options = {"batch_size": 4, "num_workers": 0, "seed": 0, "shuffle": False}
    return encode_dataset(images, squares.dataset, **options, cache=cache, log=RunLog())


def distance(run, images):
    run.network.eval()
    with torch.no_grad():
        off = [(run(b.features).points - b.points).norm(dim=2) for b in images.batches(0)]
    return float(torch.cat(off).mean()) * (SIDE - 1) / 2


def test_it_learns_to_find_dots(squares, settings):
    run = start(replace(settings, finetune_steps=30), squares)
    images = pixels(squares, run.encoder)
    before = distance(run, images)
    run.fit(squares, {"Test": images}, RunLog())
    # Dots are 5 pixels wide; guessing is some 12 pixels off.
    assert before > 8 and distance(run, images) < 4


def test_views_vary_as_far_as_was_asked(squares, settings, monkeypatch):
    seen = []

    class Views(DenseViews):
        def __call__(self, images, generator):
            seen.append(super().__call__(images, generator).maps)
            return DenseViews.__call__(self, images, generator)

    monkeypatch.setattr("engine.readouts.finetune.DenseViews", Views)
    numbers = torch.arange(len(squares))
    for factor in (0.0, 0.5):
        start(replace(settings, finetune_spread=factor), squares).train_round(1, squares, numbers)
    still, moved = seen[0], torch.cat(seen[len(seen) // 2 :])
    centre = torch.tensor([[1.0, 0, 0], [0, 1, 0]]) * squares.dataset.side / squares.dataset.imwidth
    assert torch.allclose(still, centre.expand_as(still))
    angles = torch.atan2(moved[:, 1, 0], moved[:, 0, 0]).rad2deg().abs()
    assert 5 < angles.max() < 15 * math.exp(0.1)  # stretching turns an axis a little further
    assert 0.03 < moved[:, :, 2].abs().max() <= 0.1


def test_a_resumed_run_ends_in_the_same_bits(squares, settings, short_rounds):
    settings = replace(settings, finetune_steps=2, save_freq=1, keep_last=3)
    whole = start(settings, squares)
    images = pixels(squares, whole.encoder)
    result = whole.fit(squares, {"Test": images}, RunLog())
    assert result["epochs"] == 2 and result["finetune"]["held_out"] == 2
    written = sorted(path.name for path in settings.folder.glob("*.pth"))
    names = ["ckpt_epoch_1.pth", "ckpt_epoch_2.pth", "current.pth", "previous_1.pth"]
    assert written == [*names, "resnet18.pth"]  # as was asked for
    path = settings.folder / "ckpt_epoch_1.pth"
    again = start(settings, squares, found=(path, load_checkpoint(path, Finetune.keys)))
    assert again.done == 1 and again.best_round == 1 and math.isfinite(again.best_px)
    assert again.fit(squares, {"Test": images}, RunLog()) == result
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, again.network.state_dict()[name]), name
    # The chosen round's weights are those that were scored.
    chosen = load_checkpoint(settings.folder / "resnet18.pth", ("model", "heatmaps"))
    assert chosen["epoch"] == result["finetune"]["best_round"]
    for name, value in chosen["model"].items():
        assert torch.equal(value, whole.encoder.state_dict()[name]), name


def test_a_finished_fit_leaves_its_weights_alone(squares, settings, short_rounds):
    run = start(settings, squares)
    run.fit(squares, {}, RunLog())
    paths = sorted(settings.folder.glob("*.pth"))
    assert [path.name for path in paths] == ["current.pth", "resnet18.pth"]
    weights = sum(v.numel() * v.element_size() for v in run.network.state_dict().values())
    assert all(path.stat().st_size < 1.05 * weights for path in paths)
    found = paths[0], load_checkpoint(paths[0], Finetune.keys)
    assert start(settings, squares, found).done == 4
    with pytest.raises(InputError, match="is finished; it can't be made longer"):
        start(replace(settings, finetune_steps=5), squares, found)


def test_the_confidence_is_what_a_checkpoint_says(squares, settings, short_rounds):
    run = start(settings, squares)
    run.fit(squares, {}, RunLog())
    content = load_checkpoint(settings.folder / "resnet18.pth", ("opt",))
    images = pixels(squares, run.encoder).batches(0)
    (batch,) = [batch for batch, _ in zip(images, range(1), strict=False)]
    kept = {}
    for entry in (True, None):  # None: of a version before
        run.load("x", content | {"expects_distance": entry}, "")
        kept[entry] = run(batch.features)
    assert torch.equal(kept[True].points, kept[None].points)
    maps = run.encoder(batch.features[0], levels=run.levels.numbers)
    log_probability, places = run.module.heatmaps(maps)
    off = (places - kept[True].points[:, :, None]).norm(dim=3)  # (B, A, P)
    expected = (1 - (log_probability.exp() * off).sum(dim=2)).clamp(min=0)
    assert torch.allclose(kept[True].confidence, expected, atol=1e-5)
    near = (log_probability.exp() * (off < 0.25)).sum(dim=2)
    assert (kept[None].confidence <= near + 1e-5).all()
    assert not torch.equal(kept[None].confidence, kept[True].confidence)


def test_what_does_not_fit_is_refused(squares, settings):
    run = start(settings, squares)
    run.best, run.done = run.state(), 1
    run.save(finished=False)
    path = settings.folder / "current.pth"
    content = load_checkpoint(path, Finetune.keys)
    content["optimizer"]["param_groups"] = []
    with pytest.raises(InputError, match="the optimizer's state doesn't fit"):
        start(settings, squares, found=(path, content))
    del content["heatmaps"]["output.bias"]
    with pytest.raises(InputError, match=r"output\.bias is missing"):
        start(settings, squares, found=(path, content))


def test_a_landmark_that_no_image_shows_is_refused(squares, settings):
    squares.dataset.annotations["visible"] = np.arange(24).reshape(8, 3) % 3 != 1
    with pytest.raises(InputError, match="no training image shows landmark 2"):
        start(settings, squares).fit(squares, {}, RunLog())


def test_a_loss_that_is_not_finite_is_not_saved(squares, settings):
    run = start(settings, squares)
    run.module.output.bias.data.fill_(math.nan)
    images = pixels(squares, run.encoder)
    with pytest.raises(InputError, match="not saved; try a smaller --finetune_rate"):
        run.fit(squares, {"Test": images}, RunLog())
    assert not list(settings.folder.glob("*.pth"))


def test_few_images_are_all_learnt_from_and_many_are_split():
    learnt, judged = split(JUDGED_FROM - 1, seed=0)
    assert len(learnt) == JUDGED_FROM - 1 and len(judged) == 0
    learnt, judged = split(500, seed=0)
    assert len(judged) == 50 and sorted([*learnt.tolist(), *judged.tolist()]) == list(range(500))
    assert not torch.equal(split(500, seed=1)[1], judged)
    assert len(split(19_000, seed=0)[1]) == 100


def test_groups_are_learnt_from_or_judged_by_as_a_whole():
    groups = [str(number // 7) for number in range(2 * JUDGED_FROM)]
    learnt, judged = split(len(groups), 0, groups)
    assert sorted([*learnt.tolist(), *judged.tolist()]) == list(range(len(groups)))
    assert abs(len(judged) - len(groups) / 10) <= 4
    assert not {groups[i] for i in learnt.tolist()} & {groups[i] for i in judged.tolist()}
    assert len(split(len(groups), 0, ["one"] * len(groups))[1]) == 0
    few = JUDGED_FROM - 1
    assert torch.equal(split(few, 3, groups[:few])[0], split(few, 3)[0])


def test_every_image_is_shown_equally_often():
    order = shuffled(5, 12, torch.Generator())
    assert np.bincount(order.numpy()).max() == 3 and len(order) == 12
    assert all(sorted(part.tolist()) == [0, 1, 2, 3, 4] for part in order[:10].split(5))


def test_the_round_with_the_least_distance_is_kept(squares, settings, short_rounds, monkeypatch):
    distances = iter([5.0, 3.0, 4.0, 3.0])
    monkeypatch.setattr(Finetune, "mean_distance", lambda *_: next(distances))
    run = start(replace(settings, save_freq=1), squares)
    result = run.fit(squares, {"Test": pixels(squares, run.encoder)}, RunLog())
    assert result["finetune"]["best_round"] == 2 and run.best_px == 3
    best, second = (
        load_checkpoint(settings.folder / name, Finetune.keys[:4])
        for name in ("resnet18.pth", "ckpt_epoch_2.pth")
    )
    for entry in ("model", "heatmaps"):
        for name, value in second[entry].items():
            assert torch.equal(best[entry][name], value), name


def test_without_held_out_images_the_last_round_is_kept(squares, settings, monkeypatch):
    monkeypatch.setattr("engine.readouts.finetune.ROUND_STEPS", 1)
    run = start(settings, squares)
    result = run.fit(squares, {"Test": pixels(squares, run.encoder)}, RunLog())
    assert result["finetune"] == {"best_round": 4, "held_out": 0, "steps": 4}


@pytest.mark.parametrize(
    ("factor", "plan"),
    [(0.3, (0.3, 100)), (0.484, (0.48, 100)), (0.6, (0.6, 125)), (1.0, (1, 200)), (None, (1, 200))],
)
def test_views_and_steps_follow_the_poses(squares, settings, monkeypatch, factor, plan):
    """Of 200 steps such a part, in 25s, and 100 at least."""
    monkeypatch.setattr("engine.readouts.finetune.pose_factor", lambda *_: factor)
    auto = replace(settings, finetune_spread="auto", finetune_steps="auto")
    assert plan_fit(auto, squares.dataset) == plan
    given = replace(settings, finetune_spread=0.4, finetune_steps=7)
    assert plan_fit(given, squares.dataset) == (0.4, 7)
    assert start(auto, squares).plan == plan
