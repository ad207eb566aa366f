import threading

import pytest
import torch

from models.encoders import (
    RESNETS,
    build_encoder,
    build_random_encoder,
    choose_levels,
    encode,
    encode_dense,
    freeze,
    weights_digest,
)
from models.hypercolumn import hypercolumn
from models.keypoint_prediction import IntermediateKeypointPredictor
from models.parallel import keep_autocast


@pytest.mark.parametrize("name", [*RESNETS, "hourglass"])
@pytest.mark.parametrize("use_hypercol", [False, True])
def test_what_flags_ask_for_is_the_published_call_in_maps(name, use_hypercol):
    with torch.device("meta"):
        encoder, images = freeze(build_encoder(name, 64)), torch.empty(1, 3, 64, 64)
        for layer in range(6):
            levels = choose_levels(encoder, layer, use_hypercol)
            published = encoder(images, layer, use_hypercol, (48, 48))
            assert encode_dense(encoder, images, levels).shape == published.shape
            assert encoder.feature_channels(levels.numbers) == published.shape[1]
            assert (levels.shape is None) == (not use_hypercol or layer == 0 or name == "hourglass")


@pytest.mark.parametrize("layer", [1, 2, 3, 4, 5])
def test_native_maps_make_the_same_landmarks_as_the_dense_hypercolumn(layer):
    encoder = freeze(build_encoder("resnet18", 64))
    images = torch.randn(2, 3, 64, 64)
    levels = choose_levels(encoder, layer, use_hypercol=True)
    channels = encoder.feature_channels(levels.numbers)
    regressor = IntermediateKeypointPredictor(channels, 3, 4, 1.0, levels.shape)
    native = encode(encoder, images, levels.numbers)
    assert len(native) == layer
    dense = encoder(images, layer, True)
    torch.testing.assert_close(regressor(native)[0], regressor(dense)[0], rtol=1e-4, atol=1e-5)


def test_maps_are_the_published_layers_and_the_stem():
    encoder = build_random_encoder("resnet18", 64, seed=0).eval()
    images, resnet = torch.randn(2, 3, 64, 64), encoder.encoder.module
    *maps, stem = encoder(images, levels=encoder.levels)
    assert torch.equal(stem, resnet.bn1(resnet.conv1(images)).relu())
    assert encoder.feature_channels(encoder.levels) == 960 + 64 + 64
    for layer, found in zip((5, 4, 3, 2, 1), maps, strict=True):
        assert torch.equal(found, encoder(images, layer))
        (alone,) = encoder(images, levels=(layer,))
        assert torch.equal(found, alone)
    for layer in (5, 6, 7):  # there are no more than five in the published hypercolumn
        assert torch.equal(encoder(images, layer, True), hypercolumn(maps, (48, 48)))


def test_layer_zero_is_the_pixels():
    images = torch.randn(2, 3, 64, 64)
    encoder = freeze(build_encoder("resnet18", 64))
    assert encoder(images, 0, True) is encoder(images, -1) is images
    for use_hypercol in (False, True):
        levels = choose_levels(encoder, 0, use_hypercol)
        assert levels.shape is None and encode(encoder, images, levels.numbers) == [images]


def test_virtual_gpus_normalise_each_share_of_a_batch_by_itself():
    encoder = build_encoder("resnet18", 32).train()
    images = torch.randn(6, 3, 32, 32)
    expected = torch.cat([encoder(share) for share in images.chunk(3)])
    whole = encoder(images)
    encoder.encoder.virtual_gpus = 3
    torch.testing.assert_close(encoder(images), expected)
    assert not torch.allclose(whole, expected, atol=1e-3)


@pytest.mark.parametrize(("name", "side"), [("resnet18", 31), ("hourglass", 100)])
def test_inputs_a_network_cannot_take_are_refused(name, side):
    with pytest.raises(ValueError, match="pixels"):
        build_encoder(name, side)


def test_a_random_encoder_belongs_to_its_seed_and_leaves_the_generator_alone():
    before = torch.get_rng_state()
    digests = [weights_digest(build_random_encoder("resnet18", 64, seed)) for seed in (0, 0, 1)]
    assert digests[0] == digests[1] != digests[2]
    assert torch.equal(before, torch.get_rng_state())


def test_regressor_starts_as_published():
    regressor = IntermediateKeypointPredictor(6, 3, 4)
    assert torch.equal(regressor.descriptors, regressor.inner_conv.weight)
    linears = torch.cat([linear.weight for linear in regressor.linear])
    assert torch.equal(regressor.reg_conv.weight.flatten(1), linears)
    names = [name for name, _ in regressor.named_parameters()]
    assert names[:3] == ["descriptors", "inner_conv.weight", "reg_conv.weight"]
    pred, _ = regressor(torch.randn(2, 6, 8, 8))
    pred.sum().backward()
    without = [n for n, p in regressor.named_parameters() if p.grad is None]
    assert without == ["descriptors", "linear.0.weight", "linear.1.weight", "linear.2.weight"]


def test_each_landmark_depends_on_its_own_virtual_points_alone():
    regressor = IntermediateKeypointPredictor(6, 3, 4)
    features = torch.randn(1, 6, 8, 8)
    before = regressor(features)[0]
    with torch.no_grad():
        regressor.inner_conv.weight[4:8] += 1  # of the second landmark
    changed = (regressor(features)[0] != before).any(dim=-1)[0]
    assert changed.tolist() == [False, True, False]


def test_threads_compute_in_the_callers_precision():
    """As DataParallel's, which know that autocast is enabled but not for which type."""
    found = []

    def note():
        found.append((torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")))

    with torch.autocast("cpu", dtype=torch.float16):
        kept = keep_autocast(note, "cpu")
        thread = threading.Thread(target=kept)
        thread.start()
        thread.join()
    assert found == [(True, torch.float16)]


def test_the_same_numbers_under_another_name_are_another_network():
    named = [torch.nn.ModuleDict({name: torch.nn.Linear(2, 2)}) for name in ("a", "b")]
    named[1].load_state_dict({f"b.{k}": v for k, v in named[0]["a"].state_dict().items()})
    assert weights_digest(named[0]) != weights_digest(named[1])
