"""Options and fixtures of all tests."""

import random
import signal

import pytest
import torch

from datasets.synthetic import generate


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="run the tests that take minutes too")
    parser.addoption(
        "--fuzz",
        type=int,
        metavar="N",
        help="damage the files of each parser in N random ways instead of always the same 40",
    )
    parser.addoption(
        "--fuzz_seed",
        type=int,
        default=random.randrange(10**6),
        metavar="S",
        help="of --fuzz, to repeat what failed",
    )


def pytest_configure():
    # A shell's job in the background ignores it, and so would the tests and what they start.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_report_header(config):
    if config.getoption("--fuzz"):
        examples, seed = config.getoption("--fuzz"), config.getoption("--fuzz_seed")
        return f"fuzz: {examples} examples a parser, --fuzz_seed {seed} repeats them"
    return None


def pytest_collection_modifyitems(config, items):
    for item in items:
        if "slow" in item.keywords and not config.getoption("--slow"):
            item.add_marker(pytest.mark.skip(reason="takes minutes: run with --slow"))
        if "cuda" in item.keywords and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="no GPU is visible to PyTorch"))


@pytest.fixture(autouse=True)
def fixed_seed():
    """Start every test from the same random state."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def faces(tmp_path_factory):
    """The root of a drawn CelebA layout with 20 unlabelled, 10 training and 6 test images."""
    out = tmp_path_factory.mktemp("faces")
    return generate(out, images=20, mafl_train=10, mafl_test=6, workers=1)[0]


@pytest.fixture
def one_thread():
    """Keep torch's threads from waiting for each other on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
