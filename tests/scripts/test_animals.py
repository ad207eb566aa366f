"""The bird scripts on a CUB that the tests write: 3 training images, 1 for validation, 1 test."""

import pytest
from PIL import Image

from tests.data_loader.layouts import write_cub
from tests.scripts.running import logged, refused, result_of, succeed
from utils.checkpoint import load_checkpoint

FRAME = ["--image_size", "64", "--model", "resnet18", "--num_workers", "0", "--random_network"]
FRAME += ["--data_folder", "cub", "--layer", "1", "--use_hypercol"]


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    cwd = tmp_path_factory.mktemp("birds")
    write_cub(cwd / "cub")
    done = succeed(
        *("eval_animal.py", *FRAME, "--adam", "--learning_rate", 0.01, "--epochs", 2),
        *("--model_path", "runs", "--model_name", "cub"),
        cwd=cwd,
    )
    return cwd, done


def test_birds_are_scored_by_pck_and_picked_on_the_validation_set(evaluated):
    cwd, done = evaluated
    keys = ("opt", "epoch", "regressor", "best_val_pck", "best_test_pck", "optimizer")
    best = load_checkpoint(cwd / "runs/cub/resnet18.pth", keys)
    epochs = logged(cwd / "runs/cub")
    assert {"PCK", "Val_PCK", "Test_PCK", "Test_PCK_exact", "train_loss"} <= set(epochs[0])
    picked = max(epochs, key=lambda e: e["Val_PCK"])
    assert best["best_val_pck"] == picked["Val_PCK"]
    assert best["best_test_pck"] == picked["Test_PCK"]
    assert "3 training, 1 Val, 1 Test images" in done.out
    assert "picked on the Val set;" in done.out
    # Distances are cut down to whole pixels for the published score.
    assert all(e["Test_PCK"] >= e["Test_PCK_exact"] for e in epochs)


def test_vis_animal_draws_parts_and_components(evaluated):
    cwd, _ = evaluated
    arguments = [*FRAME, "--batch_size", 8, "--ckpt_path", "runs/cub/ckpt_epoch_2.pth"]
    arguments += ["--vis_path", "images", "--vis_keypoints", "--vis_PCA"]
    done = succeed("vis_animal.py", *arguments, cwd=cwd)
    names = {p.name for p in (cwd / "images").iterdir()}
    drawn = {f"{i}_{kind}.png" for i in range(1) for kind in ("pred", "gt")}
    folders = {"0"}
    assert names == drawn | folders | {"contact_sheet.png", "pca_sheet.png"}
    assert Image.open(cwd / "images/0_pred.png").size == (256, 256)
    last = result_of(cwd / "runs/cub")["last"]["Test"]
    found = f"PCK {last['PCK']:.2f} % (as published), {last['PCK_exact']:.2f} % (exact)"
    assert f"1 test images: {found}" in done.out


def test_vis_animal_writes_a_page_once(evaluated):
    cwd, _ = evaluated
    arguments = [*FRAME, "--ckpt_path", "runs/cub/ckpt_epoch_2.pth", "--page", "page"]
    done = succeed("vis_animal.py", *arguments, cwd=cwd)
    assert "page of 1 images: page/index.html" in done.out
    assert not (cwd / "Visualization").exists()
    assert Image.open(cwd / "page/images/000/0.jpg").size == (64, 64)
    assert "page: holds a page already" in refused("vis_animal.py", *arguments, cwd=cwd)


def test_a_split_without_a_visible_part_is_refused_before_the_fit(tmp_path):
    write_cub(tmp_path / "cub", native=True)
    names = (tmp_path / "cub/images.txt").read_text().split("\n")
    (bird,) = (line.split()[0] for line in names if line.endswith("a_4.jpg"))  # of val.txt
    parts = tmp_path / "cub/parts/part_locs.txt"
    lines = [line.split() for line in parts.read_text().splitlines()]
    lines = [[*words[:4], "0"] if words[0] == bird else words for words in lines]
    parts.write_text("".join(" ".join(words) + "\n" for words in lines))
    fit = [*FRAME, "--epochs", 1, "--model_path", "runs", "--model_name", "a"]
    said = refused("eval_animal.py", *fit, cwd=tmp_path)
    assert "Val: none of its 1 images can be judged" in said
    assert not list(tmp_path.glob("runs/a/*.pth"))
