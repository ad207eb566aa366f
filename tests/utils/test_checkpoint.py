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


def test_code_is_named(tmp_path):
    torch.save({"model": Evil(tmp_path / "ran")}, tmp_path / "evil.pth")
    with pytest.raises(InputError, match=r"it would call (posix|nt|os)\.mkdir\)$"):
        load_checkpoint(tmp_path / "evil.pth", ("model",))


def test_a_flipped_bit_is_found(tmp_path):
    path = tmp_path / "c.pth"
    save_checkpoint(path, {"model": {"w": torch.zeros(1000)}})
    damaged = bytearray(path.read_bytes())
    damaged[damaged.index(bytes(4000)) + 2000] ^= 4
    path.write_bytes(damaged)
    with pytest.raises(InputError, match="checksum of .* differs"):
        load_checkpoint(path, ("model",))


@pytest.mark.parametrize(
    ("key", "value"),
    [("opt", {}), ("epoch", "3"), ("epoch", None), ("model", [1]), ("optimizer", torch.ones(2))],
)
def test_entries_of_another_kind_are_named(tmp_path, key, value):
    save_checkpoint(tmp_path / "c.pth", {**content(), key: value})
    assert load_checkpoint(tmp_path / "c.pth", ())
    with pytest.raises(InputError, match=rf"c\.pth: {key} is {type(value).__name__}, not"):
        load_checkpoint(tmp_path / "c.pth", (key,))


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (
            {"weight": torch.full((3, 2), torch.nan), "bias": torch.zeros(3)},
            "weight holds a number",
        ),
        ({"weight": torch.zeros(3, 2), "bias": torch.tensor([1, torch.inf, 2])}, "isn't finite"),
        (
            {"weight": torch.zeros(3, 2).to_sparse(), "bias": torch.zeros(3)},
            "doesn't fit --model x",
        ),
        ({"weight": torch.zeros(3, 2, device="meta"), "bias": torch.zeros(3)}, "doesn't fit"),
        ({1: torch.zeros(3, 2), "bias": torch.zeros(3)}, "no names"),
        ({"weight": torch.zeros(3, 2), "bias": torch.zeros(3), "a\nb": 1}, "no names"),
    ],
)
def test_weights_that_are_none(state, reason):
    with pytest.raises(InputError, match=f"^file: .*{reason}") as caught:
        load_weights(torch.nn.Linear(2, 3), state, "file", "--model x")
    assert "\n" not in str(caught.value)


def test_the_found_keys_stay_on_one_line(tmp_path):
    save_checkpoint(tmp_path / "c.pth", {"a\nb\x1b[31m": 1, "x" * 10**5: 2})
    with pytest.raises(InputError, match="expected a checkpoint with model") as caught:
        load_checkpoint(tmp_path / "c.pth", ("model",))
    assert str(caught.value).isprintable() and len(str(caught.value)) < 1000
