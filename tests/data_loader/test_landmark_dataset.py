"""Items: frames, pairs, normalisation; on AFLW's layout, whose images are no squares."""

import numpy as np
import pytest
import torch

from data_loader.data_loaders_face import AFLW
from data_loader.views.random_view import RandomView
from tests.data_loader.layouts import bright_spot, complaint, write_aflw

SINGLE = {"pair_image": False, "do_augmentations": False, "imwidth": 64, "crop": 6}
PAIR = {"pair_image": True, "do_augmentations": True, "imwidth": 64, "crop": 6}


@pytest.fixture
def root(tmp_path):
    write_aflw(tmp_path)
    return tmp_path


def test_arguments_stand_in_the_published_order(root):
    dataset = AFLW(root, False, False, 64, 6, False, True)
    assert dataset.filenames[0] == "test_9.jpg"
    assert (dataset.imwidth, dataset.crop, dataset.side) == (64, 6, 52)
    assert dataset.warper is not None
    data, points, points_norm, index = dataset[4]
    assert data.shape == (3, 52, 52) and points.shape == points_norm.shape == (5, 2)
    assert index == 4


def test_defaults_are_pairs_of_70_px(root):
    torch.manual_seed(0)
    data, second, third, index = AFLW(str(root))[3]
    assert data.shape == (6, 70, 70) and data.dtype == torch.float32
    assert second.shape == third.shape == ()
    assert (int(second), int(third), index) == (-1, -1, 3)


def test_the_crop_moves_points_and_pixels_alike(root):
    whole, cropped = AFLW(root, **SINGLE | {"crop": 0}), AFLW(root, **SINGLE)
    for i in range(5):
        data, points, _, _ = whole[i]
        inner, moved, points_norm, _ = cropped[i]
        assert torch.equal(inner, data[:, 6:58, 6:58])
        assert torch.allclose(moved, points - 6, atol=1e-5)
        assert torch.allclose(points_norm, 2 * moved / 51 - 1, atol=1e-5)
        assert moved.dtype == points_norm.dtype == torch.float32


def test_all_annotations_at_once_are_those_of_the_items_unwarped(root):
    dataset, warped = AFLW(root, **SINGLE), AFLW(root, **SINGLE, TPS_aug=True)
    items = [dataset[i] for i in range(5)]
    for points_norm, visible in (dataset.annotation_tensors(), warped.annotation_tensors()):
        assert torch.allclose(points_norm, torch.stack([item[2] for item in items]), atol=1e-6)
        assert visible.shape == points_norm.shape[:2] and visible.all()


# ---- colours ----


def test_faces_are_standardised_by_the_published_colours(root):
    dataset = AFLW(root, **SINGLE)
    grey = dataset.normalize(torch.full((3, 2, 2), 0.5))
    mean, std = torch.tensor([0.5084, 0.4224, 0.3769]), torch.tensor([0.2599, 0.2371, 0.2323])
    assert torch.allclose(grey[:, 0, 1], (0.5 - mean) / std, atol=1e-6)


def test_denormalising_undoes_normalising_and_stays_in_0_to_1(root):
    dataset = AFLW(root, **SINGLE)
    image = torch.rand(3, 5, 4, generator=torch.Generator().manual_seed(0))
    batch = torch.stack([dataset.normalize(image)] * 2).double()
    back = dataset.denormalize(batch)
    assert back.dtype == torch.float64 and torch.allclose(back[1], image.double(), atol=1e-6)
    outside = dataset.denormalize(torch.tensor([-9.0, 9, 9])[:, None, None])
    assert outside.flatten().tolist() == [0, 1, 1]


# ---- pairs ----


def test_the_views_of_a_pair_differ_and_follow_the_seed(root):
    dataset = AFLW(root, **PAIR)
    torch.manual_seed(7)
    first = dataset[2][0]
    other = dataset[2][0]
    torch.manual_seed(7)
    assert torch.equal(dataset[2][0], first)
    assert first.shape == (6, 52, 52)
    assert (first[:3] - first[3:]).abs().mean() > 0.01
    assert (first - other).abs().mean() > 0.01


def test_views_are_in_the_data_sets_frame_and_colours(root):
    for benchmark in (AFLW, type("Birds", (AFLW,), {"mean": (0.1, 0.2, 0.3), "std": (2, 3, 4)})):
        dataset = benchmark(root, **PAIR)
        view = RandomView(64, 0.2)  # in [0, 1] and not cropped
        torch.manual_seed(3)
        data = dataset[1][0]
        torch.manual_seed(3)
        for half in data.split(3):
            wanted = dataset.normalize(view(dataset.base_item(1)[0]))[:, 6:58, 6:58]
            assert torch.allclose(half, wanted, atol=1e-6)


def test_the_smallest_scale_reaches_the_pipeline(root):
    for scale in (0.2, 0.65):
        assert AFLW(root, **PAIR, smallest_scale=scale).smallest_scale == scale
    assert AFLW(root, **PAIR).smallest_scale == 0.2


# ---- thin-plate splines ----


def test_pairs_are_never_warped(root):
    assert AFLW(root, **PAIR, TPS_aug=True).warper is None


def test_warped_dots_stay_under_their_points(root):
    dataset, plain = AFLW(root, **SINGLE, TPS_aug=True), AFLW(root, **SINGLE)
    torch.manual_seed(0)
    moved = []
    for i in range(5):
        for _ in range(3):
            data, points, points_norm, _ = dataset[i]
            assert data.shape == (3, 52, 52) and data.dtype == torch.float32
            assert torch.allclose(points_norm, 2 * points / 51 - 1, atol=1e-5)
            # The resize's half pixel and the sampling's add up to less than one.
            assert np.abs(bright_spot(data, dataset) - points[i % 5].numpy()).max() < 0.9
            moved.append((points - plain[i][1]).abs().max().item())
    assert max(moved) > 1 and min(moved) > 0.05


def test_the_warper_gets_0_to_255_and_its_result_is_cut_to_whole_levels(root, monkeypatch):
    dataset, given = AFLW(root, **SINGLE, TPS_aug=True), {}

    def warper(image, keypts, crop):
        given.update(image=image, keypts=keypts, crop=crop)
        return torch.full((3, 52, 52), 99.97), keypts * 0 + 26.0

    monkeypatch.setattr(dataset, "warper", warper)
    data, points, points_norm, _ = dataset[0]
    base, base_points = dataset.base_item(0)
    exact = torch.from_numpy(np.asarray(base).copy()).permute(2, 0, 1)
    assert torch.allclose(given["image"], exact.float(), atol=1e-3)
    assert np.allclose(given["keypts"], base_points) and given["crop"] == 6
    wanted = dataset.normalize(torch.full((3, 52, 52), 99 / 255))  # truncated, not rounded
    assert torch.allclose(data, wanted, atol=1e-6)  # not cropped again
    assert torch.equal(points, torch.full((5, 2), 26.0))
    assert torch.allclose(points_norm, torch.full((5, 2), 2 * 26 / 51 - 1))


# ---- what is refused ----


def test_augmenting_a_single_image_is_refused(root):
    with pytest.raises(ValueError, match="augmenting a single"):
        AFLW(root, pair_image=False, do_augmentations=True)


@pytest.mark.parametrize("options", [SINGLE, PAIR], ids=["single", "pair"])
def test_a_image_that_cannot_be_read_is_named_when_it_is_needed(root, options):
    path = root / "output/train_8.jpg"
    path.write_bytes(b"text named .jpg")
    dataset = AFLW(root, **options)
    assert dataset[0][3] == 0
    assert str(path) in complaint(dataset.__getitem__, 1)


# ---- choosing ----


def test_a_count_unlike_the_published_one_is_noted(root):
    train = AFLW(root, train=True, **SINGLE)
    notice = f"AFLW train: {len(train)} images here, 10,122 in the published benchmark"
    assert train.count_notice() == [notice]
    train.published_counts = {"train": len(train)}
    assert train.count_notice() == []
