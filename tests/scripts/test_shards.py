"""Pre-training on shards: resumed to the same bits, and what doesn't go with them."""

import pytest
import torch

from tests.data_loader.shard_files import write_shards
from tests.scripts.running import FRAME, assert_same_tensors, refused, succeed, tensors_of
from utils.checkpoint import load_checkpoint

MOCO = [*FRAME, "--batch_size", "4", "--nce_k", "20", "--cosine", "--epochs", "2"]
MOCO += ["--dataset", "InatAve", "--model_path", "runs"]


def moco(cwd, name, *arguments, data="birds-{000..002}.tar", start=succeed):
    where = ("--data_folder", data, "--model_name", name)
    return start("train_moco.py", *MOCO, *where, *arguments, cwd=cwd)


@pytest.fixture(scope="module")
def birds(tmp_path_factory):
    """A folder with shards, and a run on them."""
    cwd = tmp_path_factory.mktemp("birds")
    write_shards(cwd, [4, 2, 5])
    done = moco(cwd, "whole", "--save_freq", "1")
    assert "11 images of InatAve" in done.out and "epoch 2/2" in done.out
    return cwd


def test_a_resumed_run_ends_in_the_same_bits(birds):
    moco(birds, "resumed", "--resume", "runs/whole/ckpt_epoch_1.pth", "--num_workers", "2")
    ends = (tensors_of(birds / f"runs/{name}/current.pth") for name in ("whole", "resumed"))
    assert_same_tensors(*ends)


def test_an_epoch_goes_on_with_the_same_shards_only(birds):
    content = load_checkpoint(birds / "runs/whole/ckpt_epoch_1.pth", ())
    content["progress"] |= {"steps": 1, "images": 4}
    torch.save(content, birds / "within.pth")
    done = moco(birds, "within", "--resume", "within.pth", "--print_freq", "1")
    assert "step 2/3" in done.out and "epoch 2/2" in done.out
    fewer = {"data": "birds-{001..002}.tar"}
    done = moco(birds, "other", "--resume", "within.pth", **fewer, start=refused)
    assert "is within an epoch of 11 images in 3 shards" in done
    assert "not of 7 images in 2 shards" in done and not (birds / "runs/other").exists()
    # Between epochs, they may change.
    between = ("--resume", "runs/whole/ckpt_epoch_1.pth")
    done = moco(birds, "fewer", *between, "--override", **fewer)
    assert "7 images of InatAve" in done.out, done.out


def test_device_views_come_from_shards_too(birds):
    done = moco(birds, "device", "--augment", "device", "--epochs", "1")
    assert "epoch 1/1" in done.out, done.out


@pytest.mark.parametrize(
    ("arguments", "data", "complaint"),
    [
        (["--image_cache"], "birds-000.tar", "--image_cache doesn't go with shards"),
        (["--imagelist", "x.txt"], "birds-000.tar", "--imagelist doesn't go with shards"),
        ([], "birds-{000..003}.tar", "birds-003.tar: no such shard"),
        ([], "pipe:touch ran.tar", "shards are files"),
    ],
)
def test_mistakes_are_named(birds, arguments, data, complaint):
    assert complaint in moco(birds, "wrong", *arguments, data=data, start=refused)
    assert not (birds / "runs/wrong").exists() and not (birds / "ran.tar").exists()
