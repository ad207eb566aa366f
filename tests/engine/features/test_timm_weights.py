"""Weights that people have for networks of timm: they arrive, or the file is named."""

import pytest
import torch
import torchvision

from engine.features.timm_weights import STEM, match_timm_state
from models.encoders import build_random_encoder
from models.timm_encoder import TimmEncoder, TimmMaps
from utils.checkpoint import load_state, load_weights
from utils.errors import InputError

timm = pytest.importorskip("timm", reason="timm isn't installed")
safetensors = pytest.importorskip("safetensors.torch", reason="safetensors isn't installed")

SIDE = 112
VIT = {"embed_dim": 64, "depth": 4, "num_heads": 2}
SWIN = {"embed_dim": 16, "depths": (1, 1, 2, 1), "num_heads": (1, 2, 4, 8)}
DYNAMIC = {"dynamic_img_size": True}
NETWORKS = [
    ("vit_small_patch16_dinov3", VIT, DYNAMIC),
    ("vit_small_patch14_dinov2", VIT, DYNAMIC),
    ("test_convnext", {}, {}),
    ("test_efficientnet", {}, {}),
    ("swin_tiny_patch4_window7_224", SWIN, {"img_size": SIDE}),
]


def encoder_of(name, **options):
    """Return a network of timm as an encoder, with weights unlike those of the file."""
    torch.manual_seed(2)
    maps = TimmMaps(timm.create_model(name, num_classes=0, **options), SIDE)
    return TimmEncoder(maps, name, (0.0,) * 3, (1.0,) * 3, timm.__version__).eval()


def load(encoder, state, path="file"):
    load_weights(encoder, match_timm_state(state, path, encoder, "NAME"), path, "--model NAME")


@pytest.mark.parametrize(("name", "small", "framed"), NETWORKS)
def test_timms_own_files_of_whole_networks(tmp_path, name, small, framed):
    torch.manual_seed(1)
    theirs = timm.create_model(name, num_classes=7, **small).state_dict()
    safetensors.save_file(
        {k: v.contiguous() for k, v in theirs.items()}, tmp_path / "w.safetensors"
    )
    encoder = encoder_of(name, **small, **framed)
    load(encoder, load_state(tmp_path / "w.safetensors"))
    changed = [
        key
        for key, value in encoder.state_dict().items()
        if not torch.equal(value, theirs[key.removeprefix(STEM)])
    ]
    # Swin's last map, of 4x4 pixels, has a window as small, whose biases are resampled.
    table = f"{STEM}layers.3.blocks.0.attn.relative_position_bias_table"
    assert changed == ([table] if name.startswith("swin") else [])


def test_dinov2s_own_names():
    torch.manual_seed(1)
    name = "vit_small_patch14_reg4_dinov2"
    theirs = timm.create_model(name, num_classes=0, **VIT).state_dict()
    published = dict(theirs)
    published["register_tokens"] = published.pop("reg_token")
    place = torch.full((1, 1, 64), 0.5)  # the class token's own, which timm adds to the token
    published["pos_embed"] = torch.cat([place, theirs["pos_embed"]], dim=1)
    published["mask_token"] = torch.zeros(1, 64)
    encoder = encoder_of(name, **VIT, **DYNAMIC)
    load(encoder, published)
    found = {key.removeprefix(STEM): value for key, value in encoder.state_dict().items()}
    assert torch.equal(found["cls_token"], theirs["cls_token"] + place)
    rest = found.keys() - {"cls_token"}
    assert all(torch.equal(found[key], theirs[key]) for key in rest)


def test_a_resnet_takes_torchvisions_weights_and_ours():
    images = torch.randn(1, 3, 64, 64)
    torch.manual_seed(1)
    theirs, encoder = torchvision.models.resnet18().eval(), encoder_of("resnet18")
    load(encoder, theirs.state_dict())
    x = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(images))))
    for layer, stage in enumerate((theirs.layer1, theirs.layer2, theirs.layer3, theirs.layer4), 2):
        x = stage(x)
        torch.testing.assert_close(encoder(images, levels=(layer,)), [x])
    ours = build_random_encoder("resnet18", 64, 5).eval()
    load(encoder, ours.state_dict())
    torch.testing.assert_close(encoder(images, levels=(4,)), ours(images, levels=(4,)))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: {"other": torch.zeros(1)}, "conv1.0.weight is missing"),
        (lambda s: {**s, "extra.weight": torch.zeros(1)}, "network.extra.weight has no place"),
        (lambda s: {**s, "bn1.weight": torch.zeros(1)}, r"bn1.weight is \(1,\), expected"),
    ],
)
def test_what_does_not_fit_is_named(change, said):
    encoder = encoder_of("test_resnet")
    state = {k.removeprefix(STEM): v for k, v in encoder.state_dict().items()}
    with pytest.raises(InputError, match=f"^file: .*{said}"):
        load(encoder, change(state))


def test_weights_that_timm_cannot_convert_are_named():
    encoder = encoder_of("test_vit", **DYNAMIC)
    state = {"patch_embed.proj.weight": torch.zeros(1)}
    with pytest.raises(InputError, match="^file: holds another architecture than --model NAME"):
        load(encoder, state)
