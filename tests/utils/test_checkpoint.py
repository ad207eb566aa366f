import argparse
import os
import pickle

import pytest
import torch

from utils.checkpoint import load_checkpoint, load_weights, save_checkpoint
from utils.errors import InputError


def content():
    return {
        "opt": argparse.Namespace(model="resnet18", lr_decay_epochs=(1, 2), resume=""),
        "model": torch.nn.Linear(2, 3).state_dict(),
        "epoch": 7,
    }


def test_what_is_saved_is_loaded(tmp_path):
    saved = content()
    save_checkpoint(tmp_path / "c.pth", saved)
    loaded = load_checkpoint(tmp_path / "c.pth", ("opt", "model", "epoch"))
    assert loaded["opt"] == saved["opt"] and loaded["epoch"] == 7
    assert torch.equal(loaded["model"]["weight"], saved["model"]["weight"])
    assert [p.name for p in tmp_path.iterdir()] == ["c.pth"]  # nothing left beside it


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "c.pth"
    save_checkpoint(path, content())
    before = path.read_bytes()

    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(InputError, match="No space left"):
        save_checkpoint(path, content())
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["c.pth"]


class Evil:
    """Makes a file when unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    torch.save({"model": Evil(tmp_path / "ran")}, tmp_path / "evil.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps({"model": Evil(tmp_path / "ran")}))
    for name in ("evil.pth", "plain.pth"):
        with pytest.raises(InputError, match=f"{name}: not a readable checkpoint"):
            load_checkpoint(tmp_path / name, ("model",))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("damage", ["absent", "empty", "cut", "text", "folder"])
def test_damaged_files_are_named(tmp_path, damage):
    path = tmp_path / "c.pth"
    save_checkpoint(path, content())
    whole = path.read_bytes()
    path.unlink()
    if damage == "folder":
        path.mkdir()
    elif damage != "absent":
        text = {"empty": b"", "cut": whole[: len(whole) // 2], "text": b"hello\nthere\n"}
        path.write_bytes(text[damage])
    with pytest.raises(InputError, match=r"c\.pth: ") as caught:
        load_checkpoint(path, ("model",))
    assert "\n" not in str(caught.value)


def test_a_checkpoint_of_another_kind_is_refused(tmp_path):
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({"state_dict": {}}, tmp_path / "other.pth")
    for name in ("list.pth", "other.pth"):
        with pytest.raises(InputError, match="expected a checkpoint with model"):
            load_checkpoint(tmp_path / name, ("model",))


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        ({"weight": torch.zeros(3, 2)}, "bias is missing"),
        ({"weight": torch.zeros(4, 2), "bias": torch.zeros(3)}, r"weight is \(4, 2\)"),
        ({"weight": torch.zeros(3, 2), "bias": torch.zeros(3), "x": torch.zeros(1)}, "x has no"),
        ({"weight": torch.zeros(3, 2), "bias": "no"}, "bias is"),
    ],
)
def test_weights_of_another_architecture_are_named(state, reason):
    with pytest.raises(InputError, match=f"file: holds another architecture.*{reason}"):
        load_weights(torch.nn.Linear(2, 3), state, "file", "--model x")
