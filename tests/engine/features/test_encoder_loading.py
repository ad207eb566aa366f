"""Encoders from the checkpoints that people have: the weights arrive, or the file is named."""

from argparse import Namespace

import pytest
import torch
import torchvision

from data_loader.image_set import ImageSet
from data_loader.readers.images import FULL_RANGE
from engine.features.encoder_loading import (
    EncoderSettings,
    initialise_encoder,
    load_frozen_encoder,
    load_projection,
    use_colours,
)
from models.encoders import build_encoder, build_random_encoder
from utils.errors import InputError
from utils.log import RunLog


@pytest.fixture(scope="module")
def theirs():
    torch.manual_seed(1)
    return torchvision.models.resnet18().state_dict()


def load(path, content, name="resnet18"):
    torch.save(content, path)
    log = RunLog()
    settings = EncoderSettings(
        options=Namespace(),
        dataset="MAFLAligned",
        model=name,
        trained_model_path=str(path),
        random_network=False,
        layer=2,
        use_hypercol=False,
        projection=None,
        seed=0,
        batch_size=2,
        num_workers=0,
        gpu=None,
        log_path=path,
    )
    encoder = load_frozen_encoder(settings, 64, log)
    return encoder.state_dict(), [line.removeprefix(f"{path}: ") for line in log.kept]


def moco(state, head):
    trunk = {k: v for k, v in state.items() if not k.startswith("fc.")}
    state = {f"module.encoder_q.{k}": v for k, v in {**trunk, **head}.items()}
    state |= {k.replace("_q", "_k"): torch.zeros_like(v) for k, v in state.items()}
    return {"epoch": 200, "state_dict": state | {"module.queue": torch.rand(128, 8)}}


HEAD = "its head (fc) doesn't fit resnet18's and is ignored"
V1 = {"fc.weight": torch.rand(128, 512), "fc.bias": torch.rand(128)}
V2 = {
    f"fc.{i}.{k}": torch.rand(n, 512) for i, n in ((0, 512), (2, 128)) for k in ("weight", "bias")
}


@pytest.mark.parametrize(
    ("wrap", "notices"),
    [
        (lambda s: s, ["the weights without a prefix are taken as resnet18's", HEAD]),
        (
            lambda s: moco(s, V1),
            ["the weights under module.encoder_q. are taken as resnet18's"],
        ),
        (
            lambda s: moco(s, V2),
            ["the weights under module.encoder_q. are taken as resnet18's", HEAD],
        ),
    ],
    ids=["torchvision", "MoCo v1", "MoCo v2"],
)
def test_other_peoples_trunks(tmp_path, theirs, wrap, notices):
    state, found = load(tmp_path / "c.pth", wrap(theirs))
    assert found == notices
    for key, value in theirs.items():
        if not key.startswith("fc."):
            assert torch.equal(state[f"encoder.module.{key}"], value), key
    if HEAD not in found:
        assert torch.equal(state["encoder.module.fc.weight"], V1["fc.weight"])


@pytest.mark.parametrize("prefix", ["encoder.module.", "encoder."])
def test_our_own_with_and_without_data_parallel(tmp_path, prefix):
    own = build_encoder("resnet18", 64).state_dict()
    renamed = {k.replace("encoder.module.", prefix): v for k, v in own.items()}
    state, notices = load(tmp_path / "c.pth", {"model": renamed})
    assert all(torch.equal(state[key], value) for key, value in own.items())
    mapped = ["the weights under encoder. are taken as resnet18's"]
    assert notices == ([] if prefix == "encoder.module." else mapped)


@pytest.mark.parametrize(
    ("content", "name", "said"),
    [
        ({"epoch": 1}, "resnet18", "holds no encoder for --model resnet18: no conv1.weight; found"),
        ([1], "resnet18", "expected a checkpoint; found list"),
        ({"model": [1]}, "resnet18", "model is list, not dict"),
        (None, "resnet34", "layer1.2.conv1.weight is missing"),
        (None, "resnet50", "layer1.0.conv1.weight is .64, 64, 3, 3., expected .64, 64, 1, 1."),
        (None, "hourglass", "conv1.bias is missing"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, theirs, content, name, said):
    path = tmp_path / "c.pth"
    with pytest.raises(InputError, match=said) as caught:
        load(path, theirs if content is None else content, name)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


def projection_of(encoder, rows=8):
    head = torch.nn.Linear(960, rows).state_dict()
    return {"model": encoder.state_dict(), "head": head}


def test_a_projection_is_its_encoders_whatever_the_vector_head(tmp_path):
    """A file without a head that fits leaves it to the seed, and no map depends on it."""
    encoder, path = build_random_encoder("resnet18", 64, 0), tmp_path / "p.pth"
    content = projection_of(encoder)
    torch.save(content, path)
    encoder.encoder.module.fc.weight.data += 1
    projected = load_projection(str(path), encoder, "e.pth")
    assert projected.encoder is encoder
    assert torch.equal(projected.head.weight, content["head"]["weight"])
    encoder.encoder.module.bn1.running_var[3] += 1
    with pytest.raises(InputError, match="p.pth: projects the .* another encoder than e.pth"):
        load_projection(str(path), encoder, "e.pth")


@pytest.mark.parametrize(
    ("head", "said"),
    [
        ({}, "its head has 0 channels, expected 1 to 4096"),
        ({"weight": torch.rand(0, 960), "bias": torch.rand(0)}, "its head has 0 channels"),
        ({"weight": torch.rand(1).expand(10**9, 960)}, "its head has 1000000000 channels"),
        ({"weight": torch.rand(8, 64), "bias": torch.rand(8)}, "weight is .8, 64., expected .8, 9"),
        ({"weight": torch.rand(8, 960)}, "bias is missing"),
        ({"weight": torch.full((8, 960), torch.nan), "bias": torch.rand(8)}, "isn't finite"),
    ],
)
def test_heads_that_are_no_projection_are_named(tmp_path, head, said):
    encoder, path = build_random_encoder("resnet18", 64, 0), tmp_path / "p.pth"
    torch.save(projection_of(encoder) | {"head": head}, path)
    with pytest.raises(InputError, match=said) as caught:
        load_projection(str(path), encoder, "e.pth")
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


COLOURS = {"mean": (0.1, 0.2, 0.3), "std": (0.5, 0.6, 0.7)}


def test_images_are_standardised_as_the_checkpoint_notes_unless_they_were_measured(tmp_path):
    paths = tmp_path / "noted.pth", tmp_path / "plain.pth"
    torch.save({"colours": COLOURS | {"levels": [7, 4095]}}, paths[0])
    torch.save({}, paths[1])
    encoder, dataset, measured = torch.nn.Linear(1, 1), ImageSet(32, 0), ImageSet(32, 0)
    own = (0.5, 0.5, 0.5), (0.2, 0.2, 0.2)
    measured.standardise_by(*own)
    for path in (None, str(paths[1])):
        use_colours(encoder, dataset, noted_in=path)
        assert (dataset.mean, dataset.std) == (ImageSet.mean, ImageSet.std)
    use_colours(encoder, measured, dataset, noted_in=str(paths[0]))
    assert dataset.noted_colours() == {"colours": COLOURS | {"levels": (7, 4095)}}
    assert (measured.mean, measured.std, measured.levels) == (*own, FULL_RANGE)


@pytest.mark.parametrize(
    "colours",
    [3, {}, {"mean": [0, 0, 0]}, {**COLOURS, "std": [1, 1]}, {**COLOURS, "std": [1, 1, 0]}]
    + [{**COLOURS, "mean": [0, 0, float("nan")]}, {**COLOURS, "mean": "abc"}]
    + [
        COLOURS | {"levels": levels} for levels in (5, [5], [9, 5], [-1, 5], [0, 65536], ["a", "b"])
    ],
)
def test_noted_colours_that_are_none_name_the_file(tmp_path, colours):
    path = tmp_path / "noted.pth"
    torch.save({"colours": colours}, path)
    with pytest.raises(InputError, match="its colours are no mean"):
        use_colours(build_random_encoder("resnet18", 32, 0), ImageSet(32, 0), noted_in=str(path))


def test_a_network_that_no_file_of_this_size_holds_is_not_built(tmp_path, monkeypatch):
    pytest.importorskip("timm")
    torch.save({"model": {"a": torch.zeros(3)}}, tmp_path / "c.pth")
    monkeypatch.setattr("engine.features.encoder_loading.build_random_encoder", None)
    model = "timm:wide_resnet101_2"
    with pytest.raises(InputError, match=f"c.pth: too small for --model {model}, of 124,8"):
        initialise_encoder(model, 64, 0, str(tmp_path / "c.pth"), RunLog())
