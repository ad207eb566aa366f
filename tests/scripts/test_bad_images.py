"""`--on_bad_image` of the scripts: what is left out or replaced, counted, listed, and refused."""

import shutil

import numpy as np
import pytest
import scipy.io
from PIL import Image

from tests.data_loader.layouts import NO_IMAGE, write_aflw, write_text
from tests.scripts.running import assert_same_weights, refused, result_of, succeed
from utils.checkpoint import load_checkpoint

FRAME = ["--image_size", "32", "--image_crop", "0", "--model", "resnet18", "--num_workers", "0"]
RUN = ["--model_path", "runs", "--batch_size", "25"]
SKIP = ["--on_bad_image", "skip"]
PARTS = ("model", "model_ema", "contrast")


# ---- annotated sets ----


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    root = tmp_path_factory.mktemp("aflw")
    write_aflw(root, [(40, 60)] * 100)
    return root


@pytest.fixture
def damaged(whole, tmp_path):
    """A copy with a bad image in each split, and one whose lists never named the two."""
    damaged, shorter = (shutil.copytree(whole, tmp_path / n) for n in ("damaged", "shorter"))
    (damaged / "output/train_5.jpg").write_bytes(b"no image")
    (damaged / "output/test_-7.jpg").unlink()
    for split, bad in (("train", "train_5.jpg"), ("test", "test_-7.jpg")):
        names = (whole / f"aflw_{split}_images.txt").read_text().split()
        kept = [i for i, name in enumerate(names) if name != bad]
        write_text(shorter / f"aflw_{split}_images.txt", *(names[i] for i in kept))
        mat = scipy.io.loadmat(whole / f"aflw_{split}_keypoints.mat")
        rows = {"gt": mat["gt"][kept], "hw": mat["hw"][kept]}
        scipy.io.savemat(shorter / f"aflw_{split}_keypoints.mat", rows)
        (shorter / "output" / bad).unlink()
    return damaged, shorter


def fit(cwd, root, name, *arguments, start=succeed):
    arguments = [*FRAME, *RUN, "--random_network", "--dataset", "AFLW", "--data_folder", root] + [
        *("--layer", 1, "--adam", "--learning_rate", 0.01, "--model_name", name),
        *arguments,
    ]
    return start("eval_face.py", *arguments, cwd=cwd)


@pytest.mark.parametrize(
    "options",
    [
        ["--epochs", "2", "--feature_cache", "disk"],
        ["--epochs", "1", "--restrict_annos", "7", "--TPS_aug"],
    ],
)
def test_scores_are_those_of_lists_without_the_bad_images(damaged, tmp_path, options):
    root, shorter = damaged
    fit(tmp_path, shorter, "shorter", *options)
    done = fit(tmp_path, root, "damaged", *options, *SKIP, "--num_workers", 2)
    results = [result_of(tmp_path / "runs" / name) for name in ("shorter", "damaged")]
    assert results[0] == results[1] and results[0]["images"]["Test"] == 99
    listed = "runs/damaged/bad_images.txt"
    for split in ("training", "test"):
        line = f"1 of 100 {split} images can't be read, left out: listed in {listed}"
        assert line in done.out.splitlines()
    assert (tmp_path / listed).read_text().splitlines() == [
        f"{root}/output/train_5.jpg\t{NO_IMAGE}",
        f"{root}/output/test_-7.jpg\tno such image",
    ]


def test_a_stopped_regressor_goes_on_without_what_went_bad(whole, tmp_path):
    root = shutil.copytree(whole, tmp_path / "aflw")
    fit(tmp_path, root, "a", "--epochs", 1)
    (root / "output/test_3.jpg").write_bytes(b"")
    again = ("--epochs", 2, "--resume", "auto")
    stopped = fit(tmp_path, root, "a", *again, start=refused)
    assert stopped == f"eval_face.py: error: {root}/output/test_3.jpg: {NO_IMAGE}\n"
    done = fit(tmp_path, root, "a", *again, *SKIP)
    assert "1 of 100 test images" in done.out, done.out
    assert len((tmp_path / "runs/a/bad_images.txt").read_text().splitlines()) == 1
    (root / "output/test_4.jpg").unlink()
    over = fit(tmp_path, root, "a", *again, *SKIP, start=refused)
    assert "2 of 100 test images can't be read, where --on_bad_image skip allows 1" in over


def test_images_are_drawn_of_what_can_be_read(damaged, tmp_path):
    root, _ = damaged
    options = [*FRAME, "--random_network", "--dataset", "AFLW", "--data_folder", root]
    options += ["--layer", 1, "--vis_keypoints", "--vis_path", "drawn"]
    assert "test_-7.jpg: no such image" in refused("vis_face.py", *options, cwd=tmp_path)
    assert not (tmp_path / "drawn").exists()
    done = succeed("vis_face.py", *options, *SKIP, cwd=tmp_path)
    assert "99 test images: error" in done.out
    line = "1 of 100 test images can't be read, left out: listed in drawn/bad_images.txt"
    assert line in done.out.splitlines()
    assert "test_-7.jpg\tno such image" in (tmp_path / "drawn/bad_images.txt").read_text()


# ---- pre-training ----


@pytest.fixture
def birds(tmp_path):
    root, random = tmp_path / "birds", np.random.RandomState(0)
    (root / "a").mkdir(parents=True)
    for i in range(100):
        image = Image.fromarray(random.randint(256, size=(20, 24, 3), dtype=np.uint8))
        image.save(root / f"a/{i:02d}.jpg")
    write_text(root / "list.txt", *(f"a/{i:02d}.jpg" for i in range(100)))
    return root


def train(cwd, root, name, *arguments, start=succeed):
    data = ["--dataset", "InatAve", "--data_folder", root, "--imagelist", root / "list.txt"]
    arguments = [*FRAME, *RUN, *data, "--nce_k", 50, "--model_name", name, *arguments]
    return start("train_moco.py", *arguments, cwd=cwd)


def assert_same_ends(cwd, *names):
    first, *others = (load_checkpoint(cwd / f"runs/{n}/current.pth", PARTS) for n in names)
    for other in others:
        assert_same_weights(first, other)


def test_a_stopped_pretraining_goes_on_with_the_next_images(birds, tmp_path):
    train(tmp_path, birds, "a", "--epochs", 1)
    for name in ("b", "c"):
        shutil.copytree(tmp_path / "runs/a", tmp_path / "runs" / name)
    bad, absent = birds / "a/31.jpg", birds / "a/77.jpg"
    bad.write_bytes(bad.read_bytes()[:-40])
    again = ("--epochs", 2, "--resume", "auto")
    stopped = train(tmp_path, birds, "a", *again, start=refused)
    message = f"{bad}: unreadable image (image file is truncated"
    assert message in stopped
    assert not (tmp_path / "runs/a/bad_images.txt").exists()

    count = "1 of 100 images can't be read so far, replaced: listed in runs/a/bad_images.txt"
    done = train(tmp_path, birds, "a", *again, *SKIP)
    assert done.out.count(message) == 1 and done.out.splitlines().count(count) == 1
    (line,) = (tmp_path / "runs/a/bad_images.txt").read_text().splitlines()
    assert line.startswith(f"{bad}\tunreadable image (image file is truncated")

    # The same with readers and a cache, and with a list that names the next one twice.
    options = ("--num_workers", 2, "--image_cache")
    done = train(tmp_path, birds, "b", *again, *SKIP, *options)
    assert "built 100 images (1 can't be read)" in done.out, done.out
    assert (tmp_path / "runs/b/bad_images.txt").read_text().splitlines() == [line]
    names = (birds / "list.txt").read_text()
    (birds / "list.txt").write_text(names.replace("a/31.jpg", "a/32.jpg"))
    train(tmp_path, birds, "c", *again)
    assert_same_ends(tmp_path, "a", "b", "c")

    (birds / "list.txt").write_text(names)
    absent.unlink()
    over = train(tmp_path, birds, "a", "--epochs", 3, "--resume", "auto", *SKIP, start=refused)
    assert "2 of 100 images can't be read, where --on_bad_image skip allows 1" in over
    listed = (tmp_path / "runs/a/bad_images.txt").read_text().splitlines()
    assert listed == [line, f"{absent}\tno such image"]
