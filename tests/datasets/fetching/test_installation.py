from dataclasses import replace

import pytest

from datasets.fetching.catalogue import CATALOGUE
from datasets.fetching.installation import find_root, place
from tests.data_loader.layouts import complaint
from tests.datasets.fetching.test_archives import tree


def grow(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"{folder.name}/{name}")
    return folder


@pytest.mark.parametrize(
    ("item", "holds", "root"),
    [
        ("300w", ("Img", "Anno"), "x/y"),  # the shallowest that has all
        ("300w", ("Img", "Nothing"), None),
        ("regressors-bird", ("Img", "Nothing"), "x"),  # the first that holds more than a folder
        ("dve-hourglass-inat", (), "x"),
    ],
)
def test_the_folder_within_the_archive(tmp_path, item, holds, root):
    grow(tmp_path, "x/Img/1", "x/y/Img/1", "x/y/Anno/1", "x/z/w/Img/1", "x/z/w/Anno/1")
    item = replace(CATALOGUE[item], holds=holds)
    if root is None:
        assert "no folder holds all of Img, Nothing" in complaint(find_root, tmp_path, item)
    else:
        assert find_root(tmp_path, item) == tmp_path / root


def test_place_adds_to_a_folder_but_replaces_only_if_told(tmp_path):
    new, old = grow(tmp_path / "new", "a", "b/c"), grow(tmp_path / "old", "b/d", "e")
    assert "old/b exists already" in complaint(place, new, old, overwrite=False)
    assert tree(old) == ["b", "b/d", "e"] and tree(new) == ["a", "b", "b/c"]
    place(new, old, overwrite=True)
    assert tree(old) == ["a", "b", "b/c", "e"]
