import argparse
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


@pytest.mark.parametrize("damage", ["absent", "empty", "cut", "text", "flipped", "folder"])
def test_damaged_files_are_named(tmp_path, damage):
    path = tmp_path / "c.pth"
    save_checkpoint(path, {**content(), "queue": torch.zeros(1000)})
    whole = path.read_bytes()
    path.unlink()
    if damage == "folder":
        path.mkdir()
    elif damage != "absent":
        text = {"empty": b"", "cut": whole[: len(whole) // 2], "text": b"hello\nthere\n"}
        text["flipped"] = whole.replace(bytes(4000), bytes(2000) + b"\4" + bytes(1999))
        path.write_bytes(text[damage])
    said = "checksum of .* differs" if damage == "flipped" else ""
    with pytest.raises(InputError, match=rf"c\.pth: .*{said}") as caught:
        load_checkpoint(path, ("model",))
    assert "\n" not in str(caught.value)


def test_a_checkpoint_of_another_kind_is_refused(tmp_path):
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({"state_dict": {}}, tmp_path / "other.pth")
    for name in ("list.pth", "other.pth"):
        with pytest.raises(InputError, match="expected a checkpoint with model"):
            load_checkpoint(tmp_path / name, ("model",))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"bias": None}, "another architecture than --model x: bias is missing"),
        ({"weight": torch.zeros(4, 2)}, r"another architecture .*weight is \(4, 2\), expected \(3"),
        ({"x": torch.zeros(1)}, "another architecture .*x has no"),
        ({"bias": "no"}, "another architecture .*bias is"),
        ({"weight": torch.full((3, 2), torch.nan)}, "weight holds a number that isn't finite"),
        ({"bias": torch.tensor([1, torch.inf, 2])}, "bias holds a number that isn't finite"),
        ({"weight": torch.zeros(3, 2).to_sparse()}, "doesn't fit --model x"),
        ({"weight": torch.zeros(3, 2, device="meta")}, "doesn't fit --model x"),
        ({1: torch.zeros(3, 2)}, "no names"),
        ({"a\nb": 1}, "no names"),
    ],
)
def test_weights_that_do_not_fit_are_named_in_one_line(changes, said):
    state = {"weight": torch.zeros(3, 2), "bias": torch.zeros(3), **changes}
    state = {key: value for key, value in state.items() if value is not None}
    with pytest.raises(InputError, match=f"^file: .*{said}") as caught:
        load_weights(torch.nn.Linear(2, 3), state, "file", "--model x")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [("opt", {}), ("epoch", "3"), ("epoch", None), ("model", [1]), ("optimizer", torch.ones(2))],
)
def test_entries_of_another_kind_are_named(tmp_path, key, value):
    save_checkpoint(tmp_path / "c.pth", {**content(), key: value})
    assert load_checkpoint(tmp_path / "c.pth", ())
    with pytest.raises(InputError, match=rf"c\.pth: {key} is {type(value).__name__}, not"):
        load_checkpoint(tmp_path / "c.pth", (key,))


def test_the_found_keys_stay_on_one_line(tmp_path):
    save_checkpoint(tmp_path / "c.pth", {"a\nb\x1b[31m": 1, "x" * 10**5: 2})
    with pytest.raises(InputError, match="expected a checkpoint with model") as caught:
        load_checkpoint(tmp_path / "c.pth", ("model",))
    assert str(caught.value).isprintable() and len(str(caught.value)) < 1000


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_nobody_is_advised_to_load_a_pickle_without_guard(tmp_path, protocol):
    (tmp_path / "c.pth").write_bytes(pickle.dumps({"model": {}}, protocol=protocol))
    with pytest.raises(InputError, match=r"c\.pth: not a readable checkpoint \(") as caught:
        load_checkpoint(tmp_path / "c.pth", ())
    assert "weights_only" not in str(caught.value) and "False" not in str(caught.value)
