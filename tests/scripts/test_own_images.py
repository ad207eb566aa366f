"""One's own images in the scripts: pre-training on a folder."""

import numpy as np
import pytest
from PIL import Image

from tests.scripts.running import FRAME, run_inside
from utils.checkpoint import load_checkpoint

TRAIN = [*FRAME, "--image_size", "40", "--batch_size", "4", "--model_path", "runs", "--epochs", "1"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Eight dark images of several sizes at several depths."""
    root = tmp_path_factory.mktemp("own")
    for number in range(8):
        pixels = np.random.RandomState(number).randint(0, 60, (50 + number, 70, 3))
        path = root / f"day{number % 3}" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels.astype(np.uint8)).save(path)
    return root


@pytest.mark.parametrize(
    ("script", "more"), [("train_dense.py", ["--places", 16]), ("train_moco.py", ["--nce_k", 8])]
)
def test_a_folder_is_pretrained_on(folder, tmp_path, script, more):
    own = ["--dataset", "Folder", "--data_folder", folder, "--fit", "pad", "--colours", "measured"]
    done = run_inside(script, *TRAIN, *own, *more, "--model_name", "own", cwd=tmp_path)
    assert done.status == 0, done.err
    assert "8 images of Folder, 32 px" in done.out
    noted = load_checkpoint(tmp_path / "runs/own/current.pth", ("colours",))["colours"]
    assert 0.05 < noted["mean"][0] < 0.12  # about 30 of 255, and a little black above and below


def test_published_data_sets_cant_be_framed_otherwise(faces, tmp_path):
    more = ["--data_folder", faces, "--fit", "crop", "--model_name", "own"]
    done = run_inside("train_dense.py", *TRAIN, *more, cwd=tmp_path)
    assert done.status == 2 and "error: --fit crop: only of --dataset Folder" in done.err
    assert not (tmp_path / "runs").exists()
