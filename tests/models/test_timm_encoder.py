"""timm's networks as encoders, against the outputs of their own blocks and stages."""

import pytest
import torch
from torch import nn

from models.dense_contrast import DenseEmbedding
from models.encoders import (
    build_encoder,
    build_random_encoder,
    choose_levels,
    encode_dense,
    freeze,
    weights_digest,
)
from models.hypercolumn import hypercolumn
from models.timm_encoder import TimmMaps, build_timm_encoder
from utils.errors import InputError

timm = pytest.importorskip("timm", reason="timm isn't installed")

SIDE = 64
# Small ones of each kind of network that people take: width, depth and heads are cut.
SMALL_VIT = {"embed_dim": 32, "depth": 6, "num_heads": 2, "dynamic_img_size": True}
TRANSFORMERS = {
    "test_vit": {"dynamic_img_size": True},
    "vit_small_patch16_dinov3": SMALL_VIT,
    "vit_small_patch14_reg4_dinov2": SMALL_VIT,
}
SWIN = {"embed_dim": 16, "depths": (1, 1, 2, 1), "num_heads": (1, 2, 4, 8), "img_size": SIDE}
PYRAMIDS = {
    "test_resnet": {},
    "test_convnext": {},
    "test_efficientnet": {},
    "swin_tiny_patch4_window7_224": SWIN,
}


def small(name, options):
    torch.manual_seed(0)
    side = 56 if "patch14" in name else SIDE
    network = timm.create_model(name, num_classes=0, **options)
    return freeze(TimmMaps(network, side)), torch.randn(2, 3, side, side)


def outputs(maps, modules, images):
    """Return what parts of a network put out when it sees images as timm would run it."""
    kept = []
    hooks = [m.register_forward_hook(lambda _, __, out: kept.append(out)) for m in modules]
    maps.network(images)
    for hook in hooks:
        hook.remove()
    return kept


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_a_transformers_maps_are_its_normed_patches_at_quarters_of_its_depth(name):
    maps, images = small(name, TRANSFORMERS[name])
    blocks = list(maps.network.blocks)
    assert len(blocks) == 6
    found = maps(images, (5, 4, 3, 2))
    prefix, patch = maps.network.num_prefix_tokens, maps.network.patch_embed.patch_size[0]
    assert prefix == (1 if name == "test_vit" else 5)  # class token, and four registers
    rows = images.shape[2] // patch
    tokens = outputs(maps, blocks, images)
    # Of 6 blocks, those after which a quarter, a half, three quarters and all have run.
    for m, block in zip(found, (5, 4, 2, 1), strict=True):
        grid = maps.network.norm(tokens[block])[:, prefix:].unflatten(1, (rows, rows))
        torch.testing.assert_close(m, grid.permute(0, 3, 1, 2))
    for layer in (2, 3, 4, 5):
        assert torch.equal(maps(images, (layer,))[0], found[5 - layer])


@pytest.mark.parametrize("name", PYRAMIDS)
def test_a_pyramids_layers_are_its_stages_by_stride(name):
    maps, images = small(name, PYRAMIDS[name])
    stages = [maps.network.get_submodule(info["module"]) for info in maps.network.feature_info]
    kept = outputs(maps, stages, images)
    if name.startswith("swin"):
        kept = [stage.permute(0, 3, 1, 2) for stage in kept]
    for layer in range(6 - len(kept), 6):
        assert kept[layer - 6].shape[2] == SIDE // 2**layer
        torch.testing.assert_close(maps(images, (layer,)), [kept[layer - 6]])
    assert (
        len(maps.places) == len(kept) == (5 if name in ("test_resnet", "test_efficientnet") else 4)
    )


@pytest.mark.parametrize("name", ["timm:test_vit", "timm:test_resnet"])
def test_a_hypercolumn_stacks_the_deepest_maps(name):
    encoder = freeze(build_random_encoder(name, SIDE, seed=0))
    images = torch.randn(2, 3, SIDE, SIDE)
    levels = choose_levels(encoder, 3, use_hypercol=True)
    assert levels == ((5, 4, 3), (48, 48))
    native = encoder(images, levels=levels.numbers)
    assert [m.shape[1] for m in native] == [encoder.feature_channels([k]) for k in (5, 4, 3)]
    column = encode_dense(encoder, images, levels)
    assert column.shape == (2, encoder.feature_channels(levels.numbers), 48, 48)
    assert torch.equal(column, hypercolumn(native, (48, 48)))
    pixels = choose_levels(encoder, 0, use_hypercol=True)
    assert encode_dense(encoder, images, pixels) is images
    assert encoder.feature_channels(pixels.numbers) == 3


def test_a_frame_of_its_own_resamples_the_position_embeddings():
    """The weights keep their shapes at any side: a checkpoint fits every frame."""
    encoders = [build_timm_encoder("timm:test_vit", side) for side in (64, 96)]
    shapes = [{k: v.shape for k, v in e.state_dict().items()} for e in encoders]
    assert shapes[0] == shapes[1]
    assert encoders[1](torch.randn(1, 3, 96, 96), levels=(5,))[0].shape[2:] == (6, 6)


def test_mean_and_standard_deviation_are_the_networks_own():
    assert build_timm_encoder("timm:test_vit", SIDE).mean == (0.5, 0.5, 0.5)
    encoder = build_timm_encoder("timm:test_efficientnet", SIDE)
    assert (encoder.mean, encoder.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def test_the_digest_is_of_the_network_too():
    encoder = build_random_encoder("timm:test_resnet", SIDE, 0)
    digest = weights_digest(encoder)
    encoder.identity = "another network, of the same weights"
    assert weights_digest(encoder) != digest != weights_digest(nn.Sequential(encoder))


@pytest.mark.parametrize("name", ["test_convnext", "test_efficientnet", "test_vit"])
def test_all_that_is_trained_gets_a_gradient(name):
    """DistributedDataParallel waits for the gradient of each parameter that wants one."""
    encoder = build_random_encoder(f"timm:{name}", SIDE, 0)
    embedding = DenseEmbedding(encoder, 8).train()
    vectors = embedding(torch.randn(2, 3, SIDE, SIDE))
    assert vectors.shape == (2, 8, 16, 16)
    vectors[0, 0].sum().backward()
    still = {n for n, p in encoder.named_parameters() if not p.requires_grad}
    without = {n for n, p in encoder.named_parameters() if p.grad is None}
    assert still == without
    assert (not still) == (name == "test_vit")


@pytest.mark.parametrize(
    ("name", "side", "said"),
    [
        ("resnet81", SIDE, r"timm [\d.]+ has no such network; close ones: .*resnet18"),
        ("resnet18.no_such_tag", SIDE, "no such network; close ones: resnet18"),
        ("../x", SIDE, "--model timm:../x: timm .* has no such network$"),
        ("vit_small_patch14_dinov2", 96, "needs an input of a multiple of 14 pixels, got 96"),
        ("test_vit", 24, "needs an input of at least 32 pixels"),
        ("efficientformer_l1", 96, "can't take 96 pixels"),
    ],
)
def test_what_cannot_be_built_is_one_line(name, side, said):
    with pytest.raises(InputError, match=said) as caught:
        build_encoder(f"timm:{name}", side)
    assert "\n" not in str(caught.value)


def test_layers_that_a_network_lacks_are_named():
    encoder = build_timm_encoder("timm:test_convnext", SIDE)
    with pytest.raises(InputError, match="--layer 1: .* has 4 maps, layers 2, 3, 4, 5"):
        choose_levels(encoder, 1, use_hypercol=False)
    with pytest.raises(InputError, match="--layer 5 --use_hypercol: .* has 4 maps"):
        choose_levels(encoder, 5, use_hypercol=True)
