"""A tiny drawn data set."""

from pathlib import Path

import pytest

from datasets.synthetic import generate


@pytest.fixture(scope="session")
def faces(tmp_path_factory) -> Path:
    """The root of a CelebA layout with 20 unlabelled, 10 training and 6 test images."""
    out = tmp_path_factory.mktemp("faces")
    generate(out, images=20, mafl_train=10, mafl_test=6, workers=1)
    return out / "celeba"
