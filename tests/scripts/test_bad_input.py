"""Damaged files end every script with status 2, one line that names them, and nothing written."""

import shutil
import struct

import pytest
import torch
from PIL import Image

from models.encoders import build_encoder
from tests.data_loader.layouts import write_cub
from tests.fuzz.test_hostile import objects
from tests.fuzz.test_parsers import stand
from tests.scripts.running import FRAME, refused, succeed
from utils.checkpoint import save_checkpoint

IMAGES, LANDMARKS = "Img/img_align_celeba_hq", "Anno/list_landmarks_align_celeba.txt"
TRAIN = ["--model_path", "runs", "--model_name", "x", "--epochs", "1", "--batch_size", "4"]
SCRIPTS = {
    "train_moco.py": [*FRAME, *TRAIN, "--nce_k", "8"],
    "eval_face.py": [*FRAME, *TRAIN, "--layer", "1", "--random_network"],
    "vis_face.py": [*FRAME, "--layer", "1", "--random_network", "--vis_keypoints"],
}


@pytest.fixture
def root(faces, tmp_path):
    shutil.copytree(faces, tmp_path / "faces")
    return tmp_path / "faces"


def complaint(script, tmp_path, *arguments) -> str:
    """Return the line that a script ends with; check that it is one and that nothing was made."""
    (tmp_path / "log_tmp").unlink(missing_ok=True)  # to which every run adds
    before = stand(tmp_path)
    said = refused(script, *arguments, cwd=tmp_path)
    assert said.isascii()
    after = stand(tmp_path)
    made = [path for path in after if path not in before and path.is_file()]
    # A run may have begun when the first batch holds the damaged image.
    assert not [path for path in made if path.suffix in (".pth", ".png")], made
    assert all(after.get(path) == held for path, held in before.items() if path.is_file())
    return said


def bomb() -> bytes:
    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + header + bytes(4)


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("damage", ["absent", "empty", "text", "cut", "bomb"])
def test_damaged_images(root, tmp_path, script, damage):
    paths = list((root / IMAGES).iterdir())
    workers = 0
    if damage == "cut":  # a single one that training and fitting need, or is tested on
        listed = "training.txt" if script == "eval_face.py" else "testing.txt"
        workers, names = 1, (root / "MAFL" / listed).read_text().split()
        paths = [root / IMAGES / names[3]] if script != "train_moco.py" else paths
    for path in paths:
        content = {"empty": b"", "text": b"no image\n" * 9, "bomb": bomb()}
        path.write_bytes(content.get(damage, path.read_bytes()[:400]))
        if damage == "absent":
            path.unlink()
    flags = [*SCRIPTS[script], "--data_folder", root, "--num_workers", workers]
    message = complaint(script, tmp_path, *flags)
    assert any(str(path) in message for path in paths)


@pytest.mark.parametrize("script", ["eval_face.py", "vis_face.py"])
@pytest.mark.parametrize("damage", ["absent", "word", "binary"])
def test_damaged_annotations(root, tmp_path, script, damage):
    path = root / LANDMARKS
    lines = path.read_text().splitlines()
    lines[-1] = lines[-1][:-1] + {"word": "x", "binary": "\0"}.get(damage, "")
    path.write_text("\n".join(lines))
    if damage == "absent":
        path.unlink()
    message = complaint(script, tmp_path, *SCRIPTS[script], "--data_folder", root)
    assert str(path) in message


def test_odd_images_and_editors_are_fine(root, tmp_path):
    kinds = ["CMYK", "L", "1", "P", "RGB", "RGBA", "I;16"]
    for kind, path in zip(kinds, sorted((root / IMAGES).iterdir()), strict=False):
        image = Image.open(path)
        image = image.convert("L").convert(kind) if kind == "I;16" else image.convert(kind)
        image.save(path, format="JPEG" if kind == "CMYK" else "PNG")
    for name in (LANDMARKS, "MAFL/training.txt", "MAFL/testing.txt"):
        content = (root / name).read_bytes().replace(b"\n", b"\r\n")
        (root / name).write_bytes(b"\xef\xbb\xbf" + content)
    succeed("eval_face.py", *SCRIPTS["eval_face.py"], "--data_folder", root, cwd=tmp_path)


@pytest.mark.parametrize("damage", ["cut", "flipped", "other", "code"])
def test_damaged_checkpoints(faces, tmp_path, damage):
    name = "resnet34" if damage == "other" else "resnet18"
    path = tmp_path / "c.pth"
    save_checkpoint(path, {"model": build_encoder(name, 64).state_dict()})
    content = bytearray(path.read_bytes())
    if damage == "cut":
        del content[len(content) // 2 :]
    elif damage == "flipped":
        content[len(content) // 2] ^= 1
    path.write_bytes(content)
    if damage == "code":
        torch.save({"model": objects(tmp_path / "canary")["os.system"]}, path)
    checkpoint = ["--trained_model_path", path, "--data_folder", faces]
    for script in ("eval_face.py", "vis_face.py"):
        arguments = [a for a in SCRIPTS[script] if a not in ("--random_network", "--vis_keypoints")]
        drawn = ["--vis_PCA"] if script == "vis_face.py" else []
        assert str(path) in complaint(script, tmp_path, *arguments, *drawn, *checkpoint)


@pytest.mark.parametrize("damage", ["cut", "code"])
def test_damaged_checkpoints_to_resume(faces, tmp_path, damage):
    path = tmp_path / "c.pth"
    torch.save({"model": objects(tmp_path / "canary")["os.system"]}, path)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:500])
    for script in ("train_moco.py", "eval_face.py"):
        resumed = [*SCRIPTS[script], "--resume", path, "--data_folder", faces]
        assert str(path) in complaint(script, tmp_path, *resumed)


@pytest.mark.parametrize("damage", ["cut", "random", "images"])
def test_damaged_birds(tmp_path, damage):
    write_cub(tmp_path / "cub")
    path = tmp_path / "cub/anno/train.dat"
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:900])
    elif damage == "random":
        path.write_bytes(bytes(range(256)))
    else:
        path = tmp_path / "cub/images"
        for image in path.rglob("*.jpg"):
            image.write_bytes(image.read_bytes()[:60])
    frame = ["--image_size", "64", "--model", "resnet18", "--num_workers", "0"]
    frame += ["--random_network", "--layer", "1", "--data_folder", tmp_path / "cub"]
    assert str(path) in complaint("eval_animal.py", tmp_path, *frame, *TRAIN)
    assert "cub/" in complaint("vis_animal.py", tmp_path, *frame, "--vis_keypoints")
