"""The bird benchmarks, on tiny ones written here and on the images where they are."""

import argparse

import numpy as np
import pytest
import torch

from data_loader.bad_images import image_options
from data_loader.data_loaders_animal import (
    CUB,
    InatAve,
    add_animal_arguments,
    build_animal_dataset,
)
from tests.data_loader.layouts import (
    CUB_NAMES,
    CUB_SIZES,
    CUB_SPLITS,
    PREFIX,
    assert_published,
    bright_spot,
    complaint,
    dat_table,
    dot_image,
    save_image,
    shown_part,
    torch7,
    write_cub,
    write_text,
)
from tests.recipes import FACES, needs_faces

# ---- iNaturalist ----


def write_inat(root, names, size=(64, 40)):
    for name in names:
        save_image(root / name, dot_image(size, (20, 30)))


def test_inat_takes_a_folder_or_a_list_that_needs_none(tmp_path, monkeypatch):
    write_inat(tmp_path, ["s/2.jpg", "s/1.jpg"])
    write_text(tmp_path / "list.txt", "s/2.jpg", "s/1.jpg", "s/2.jpg")
    dataset = InatAve(str(tmp_path))
    assert list(dataset.filenames) == ["s/1.jpg", "s/2.jpg"]
    assert dataset.count_notice() == [f"{tmp_path}: 1 files or folders left out: 1 *.txt"]
    for path in (tmp_path / "list.txt", str(tmp_path / "list.txt")):
        dataset = InatAve(tmp_path / "absent", imagelist=path, imwidth=32)
        assert list(dataset.filenames) == [str(tmp_path / f"s/{i}.jpg") for i in (2, 1, 2)]
    # The names are absolute: another working directory doesn't change what is read.
    monkeypatch.chdir(tmp_path / "s")
    assert dataset[1][0].shape == (6, 32, 32)
    assert str(tmp_path / "gone") in complaint(InatAve, tmp_path / "gone")


def test_inat_gives_pairs_by_default_and_at_224_px(tmp_path):
    write_inat(tmp_path, ["a/1.jpg"])
    single = InatAve(tmp_path, pair_image=False, imwidth=40, crop=4, do_augmentations=False)
    for dataset, shape in ((InatAve(tmp_path), (6, 224, 224)), (single, (3, 32, 32))):
        data, second, third, index = dataset[0]
        assert data.shape == shape
        assert (int(second), int(third), index) == (-1, -1, 0)


def test_inat_images_are_resized_to_a_square_and_cropped(tmp_path):
    write_inat(tmp_path, ["a/1.jpg"], size=(120, 80))
    dataset = InatAve(tmp_path, do_augmentations=False, imwidth=60, crop=5)
    data, _, _, _ = dataset[0]
    assert data.shape == (6, 50, 50)
    assert torch.equal(data[:3], data[3:])
    # (20 + .5) * 60 / 120 - .5 - 5 and (30 + .5) * 60 / 80 - .5 - 5.
    assert np.abs(bright_spot(data[:3], dataset) - (4.75, 17.375)).max() < 0.1
    # Birds are standardised by ImageNet's colours.
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    assert torch.allclose(dataset.normalize(torch.ones(3, 2, 2))[:, 0, 0], (1 - mean) / std)
    assert (CUB.mean, CUB.std) == (InatAve.mean, InatAve.std)


# ---- CUB ----


@pytest.fixture(params=[False, True], ids=["torch7", "native"])
def cub(request, tmp_path):
    return tmp_path, write_cub(tmp_path, native=request.param)


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_cub_splits_follow_their_lists_whatever_the_prefix(cub, split):
    root, parts = cub
    dataset = CUB(root, **{split: True})
    rows = CUB_SPLITS[split]
    assert dataset.filenames == [CUB_NAMES[i] for i in rows]
    assert dataset.folder == root / "images"
    assert np.allclose(dataset.annotations["keypoints"], parts[rows, :, :2], atol=1e-6)


@pytest.mark.parametrize("crop", [0, 6])
def test_cub_dot_under_its_part_though_the_images_are_no_squares(cub, crop):
    root, parts = cub
    checked = 0
    for split, rows in CUB_SPLITS.items():
        dataset = CUB(root, **{split: True}, imwidth=96, crop=crop)
        for index, i in enumerate(rows):
            data, _, points_norm, place = dataset[index]
            part, side = shown_part(i), 96 - 2 * crop
            assert place == index and data.shape == (3, side, side)
            point = (points_norm[part].numpy() + 1) / 2 * (side - 1)
            assert np.allclose(point, parts[i, part, :2] * 96 - crop, atol=1e-3)
            offset = bright_spot(data, dataset) - point
            # The part stands at s x, the pixel at s (x + 1/2) - 1/2.
            assert np.abs(offset - (96 / np.array(CUB_SIZES[i]) - 1) / 2).max() < 0.12
            assert np.abs(offset).max() < 0.6
            checked += 1
    assert checked == 5


def test_cub_items_tell_which_parts_are_visible(cub):
    root, parts = cub
    dataset = CUB(root, train=True, imwidth=32)
    for index, i in enumerate(CUB_SPLITS["train"]):
        _, visible, points_norm, _ = dataset[index]
        assert visible.shape == (15,) and visible.dtype == torch.bool
        assert points_norm.shape == (15, 2) and points_norm.dtype == torch.float32
        # The writer's rule: two of three parts, another two for each image.
        assert visible.tolist() == [(a + i) % 3 != 0 for a in range(15)]


def test_cub_from_the_command_line(cub, monkeypatch):
    root, _ = cub
    parser = argparse.ArgumentParser()
    add_animal_arguments(parser)
    args = parser.parse_args([])
    assert (args.dataset, args.data_folder, args.imagelist) == ("CUB", None, None)
    assert (args.image_size, args.image_crop) == (96, 0)
    write_text(root / "few.txt", CUB_NAMES[1])
    options = {**image_options(40, 3, "skip"), "imagelist": root / "few.txt"}
    for split, rows in CUB_SPLITS.items():
        dataset = build_animal_dataset(str(root), split, **options)
        rows = [1] if split == "train" else rows
        assert dataset.filenames == [CUB_NAMES[i] for i in rows]
        assert dataset[0][0].shape == (3, 34, 34) and dataset.warper is None and dataset.skip_bad
    # Without a root, either spelling of the folder, the first one first.
    monkeypatch.chdir(root)
    assert "datasets/CUB_200_2011" in complaint(build_animal_dataset, None, "val")
    (root / "datasets").mkdir()
    for name in ("CUB-200-2011", "CUB_200_2011"):
        (root / "datasets" / name).symlink_to(root)
        assert str(build_animal_dataset(None, "val").folder) == f"datasets/{name}/images"


def test_cub_pairs_have_no_parts(cub):
    data, second, third, _ = CUB(cub[0], train=True, pair_image=True, imwidth=32)[1]
    assert data.shape == (6, 32, 32) and int(second) == int(third) == -1


def test_cub_list_replaces_that_of_training_only(cub):
    root, _ = cub
    # As people write them: with a prefix, without one, through another folder named images.
    lines = [PREFIX + CUB_NAMES[4], CUB_NAMES[0], "/old/images/copy/images/" + CUB_NAMES[1]]
    write_text(root / "few.txt", *lines)
    train = CUB(root, train=True, imagelist=root / "few.txt")
    assert train.filenames == [CUB_NAMES[4], CUB_NAMES[0], CUB_NAMES[1]]
    for split in ("val", "test"):
        other = CUB(root, **{split: True}, imagelist=str(root / "few.txt"))
        assert other.filenames == [CUB_NAMES[i] for i in CUB_SPLITS[split]]


@pytest.mark.parametrize("native", [False, True])
def test_cubs_names_may_have_spaces_and_windows_separators(tmp_path, native):
    parts = write_cub(tmp_path, native)
    old, new = CUB_NAMES[1], "001.Black Tern/b 2.jpg"
    (tmp_path / "images" / new).parent.mkdir()
    (tmp_path / "images" / old).rename(tmp_path / "images" / new)
    (tmp_path / "split/train.txt").write_text("C:\\my birds\\images\\001.Black Tern\\b 2.jpg\n")
    if native:
        path = tmp_path / "images.txt"
        path.write_text(path.read_text().replace(old, new.replace("/", "\\")))
    else:
        table = dat_table([new], parts[[1]])
        (tmp_path / "anno/train.dat").write_bytes(torch7(table))
    dataset = CUB(tmp_path, train=True)
    assert dataset.filenames == [new]
    assert np.allclose(dataset.annotations["keypoints"], parts[[1], :, :2], atol=1e-6)


@pytest.mark.parametrize("splits", [{}, {"train": True, "val": True}, {"val": True, "test": True}])
def test_cub_takes_exactly_one_split(tmp_path, splits):
    with pytest.raises(ValueError, match="exactly one"):
        CUB(tmp_path, **splits)


def test_cub_lists_and_images_that_are_wrong(cub):
    root, _ = cub
    split = root / "split/train.txt"
    (root / "images" / CUB_NAMES[1]).unlink()
    message = complaint(CUB, root, train=True)
    assert str(root / "images" / CUB_NAMES[1]) in message and str(split) in message
    assert len(CUB(root, val=True)) == 1
    write_text(split, PREFIX + CUB_NAMES[0], "", PREFIX + CUB_NAMES[2])
    assert f"{split}, line 2" in complaint(CUB, root, train=True)
    split.write_text("")
    assert str(split) in complaint(CUB, root, train=True)
    split.unlink()
    assert str(split) in complaint(CUB, root, train=True)
    message = complaint(CUB, root, train=True, imagelist=root / "gone.txt")
    assert str(root / "gone.txt") in message
    assert str(root / "gone") in complaint(CUB, root / "gone", test=True)


@needs_faces
def test_images_of_cub_as_the_published_loader_gives_them():
    splits = ("train", "val", "test")
    sets = [CUB(FACES / "cub", **{split: True}, imwidth=96) for split in splits]
    assert sum(map(assert_published, sets, (f"CUB/{split}" for split in splits))) == 9
