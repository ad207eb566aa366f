"""Names in little memory behave as a list of them does."""

import os
import pickle

import pytest

from data_loader.names import Names

LISTED = ["a.jpg", "", "b/ü 1.png", "日本.jpg", os.fsdecode(b"\xff\x80.jpg")]


@pytest.mark.parametrize("block", [1, 2, 5, 4096])
def test_they_are_read_as_a_list_is(monkeypatch, block):
    monkeypatch.setattr("data_loader.names.JOINED", block)
    names = Names(iter(LISTED))
    assert len(names) == 5 and list(names) == LISTED
    assert [names[place] for place in range(-5, 5)] == LISTED * 2
    assert "日本.jpg" in names and names.index("b/ü 1.png") == 2
    for place in (5, -6):
        with pytest.raises(IndexError):
            names[place]
    assert not Names([]) and list(pickle.loads(pickle.dumps(names))) == LISTED


def test_they_take_a_fraction_of_a_list():
    names = Names(f"folder/{number:06d}.jpg" for number in range(10_000))
    size = sum(len(joined) + ends.itemsize * len(ends) for _, joined, ends in names._blocks)
    assert size <= 10_000 * (8 + 4) and len(names._blocks) == 3  # "folder/00", at least, is common
