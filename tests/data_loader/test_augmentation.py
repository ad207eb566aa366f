"""The random pipeline: what each step draws, and what it does to a picture."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from data_loader import augmentation
from data_loader.augmentation import JPEGNoise, PCANoise, random_view


def noise(side=20, seed=0) -> Image.Image:
    values = np.random.RandomState(seed).randint(0, 256, (side, side, 3), dtype=np.uint8)
    return Image.fromarray(values)


@pytest.fixture
def draws(monkeypatch):
    """Note the sides of all resizes and the qualities of all JPEGs."""
    noted = {"sides": [], "qualities": [], "format": []}
    resize, save = augmentation.resize_square, Image.Image.save

    def noting_resize(image, side):
        noted["sides"].append(side)
        return resize(image, side)

    def noting_save(self, file, **options):
        noted["qualities"].append(options["quality"])
        noted["format"].append(options["format"])
        return save(self, file, **options)

    monkeypatch.setattr(augmentation, "resize_square", noting_resize)
    monkeypatch.setattr(Image.Image, "save", noting_save)
    return noted


def test_jpeg_noise_is_a_resize_a_compression_and_a_resize_back(draws):
    image = noise()
    torch.manual_seed(3)
    for _ in range(5):
        found = JPEGNoise()(image)
        side, back = draws["sides"][-2:]
        buffer = io.BytesIO()
        larger = image.resize((side, side), Image.Resampling.BILINEAR)
        larger.save(buffer, format="JPEG", quality=draws["qualities"][-1])
        wanted = Image.open(buffer).convert("RGB").resize((20, 20), Image.Resampling.BILINEAR)
        assert back == 20 and np.array_equal(np.asarray(found), np.asarray(wanted))
    assert set(draws["format"]) == {"JPEG"}


def test_jpeg_noise_draws_sizes_and_qualities_as_published(draws):
    image, count = noise(), 3000
    torch.manual_seed(0)
    for _ in range(count):
        JPEGNoise()(image)
    sides, qualities = np.array(draws["sides"][0::2]), np.array(draws["qualities"])
    # max(int(.8 * 20), int(20 (1 + n / 2))): 16 if n < -.3, for int() cuts; else its floor.
    assert sides.min() == 16
    normal = torch.distributions.Normal(0, 1)
    for least in (17, 20, 25, 30, 40):
        share = 1 - normal.cdf(torch.tensor((least / 20 - 1) * 2)).item()
        spread = (share * (1 - share) / count) ** 0.5
        assert abs((sides >= least).mean() - share) < 4 * spread
    # Uniform over the 69 qualities 30..98.
    assert qualities.min() == 30 and qualities.max() == 98
    counts = np.bincount(qualities - 30, minlength=69)
    chi_square = ((counts - count / 69) ** 2 / (count / 69)).sum()
    assert 30 < chi_square < 115  # 68 +- 4 standard deviations of 11.7


def test_pca_noise_is_alexnets_sum_over_components(monkeypatch):
    values = [0.2175, 0.0188, 0.0045]
    vectors = [
        [-0.5675, 0.7192, 0.4009],
        [-0.5808, -0.0045, -0.8140],
        [-0.5836, -0.6948, 0.4203],
    ]
    normal = torch.tensor([1.5, -0.5, 2.0])
    monkeypatch.setattr(torch, "randn", lambda *_: normal.clone())
    image = torch.rand(3, 4, 5, generator=torch.Generator().manual_seed(0))
    found = PCANoise()(image)
    for c in range(3):
        shift = sum(vectors[c][j] * 0.1 * normal[j].item() * values[j] for j in range(3))
        assert torch.allclose(found[c], image[c] + shift, atol=1e-7)
    # Component by component: the weight of the second one goes by the second column.
    normal = torch.tensor([0.0, 1.0, 0.0])
    shift = PCANoise()(torch.zeros(3, 1, 1)).flatten()
    wanted = torch.tensor([0.7192, -0.0045, -0.6948]) * 0.1 * 0.0188
    assert torch.allclose(shift, wanted, atol=1e-9)


def test_pca_noise_has_the_published_spread_over_draws():
    torch.manual_seed(0)
    shifts = torch.stack([PCANoise()(torch.zeros(3, 1, 1)).flatten() for _ in range(4000)])
    # Var = sum_j (vec[c, j] * .1 * val_j)^2, nearly all from the first component.
    wanted = [0.01241, 0.01263, 0.01276]
    assert np.allclose(shifts.std(dim=0), wanted, rtol=0.05)
    assert shifts.mean(dim=0).abs().max() < 4 * 0.0127 / 4000**0.5


# ---- the whole pipeline ----


def test_same_seed_same_view_and_another_draw_another():
    view, image = random_view(24, 0.2), noise(24)
    torch.manual_seed(5)
    first, second = view(image), view(image)
    torch.manual_seed(5)
    again = view(image)
    assert first.shape == (3, 24, 24) and first.dtype == torch.float32
    assert torch.equal(first, again)
    assert (first - second).abs().mean() > 0.02


def test_views_leave_the_picture_as_it_is():
    image = noise(24)
    before = np.asarray(image).copy()
    torch.manual_seed(0)
    random_view(24, 0.2)(image)
    assert np.array_equal(np.asarray(image), before)


@pytest.fixture
def geometry_only(monkeypatch):
    monkeypatch.setattr(augmentation, "JITTER", 0)
    monkeypatch.setattr(augmentation, "PCA_ALPHA", 0)
    monkeypatch.setattr(augmentation.JPEGNoise, "__call__", lambda self, image: image)


def ramps(side) -> Image.Image:
    """Return a picture whose red grows with x and green with y, 2 a pixel."""
    y, x = np.mgrid[:side, :side]
    return Image.fromarray(np.stack([2 * x, 2 * y, 0 * x], axis=2).astype(np.uint8))


def steps(view) -> tuple[float, float]:
    """Return by how many pixels of the picture the view advances a pixel, along x and y."""
    inner = view[:, 8:-8, 8:-8] * 255 / 2
    across = (inner[0, :, -1] - inner[0, :, 0]).mean() / (inner.shape[2] - 1)
    down = (inner[1, -1] - inner[1, 0]).mean() / (inner.shape[1] - 1)
    return across.item(), down.item()


@pytest.mark.parametrize("smallest", [0.2, 0.7])
def test_crops_keep_at_least_the_smallest_scale_and_are_not_flipped(geometry_only, smallest):
    side, image = 64, ramps(64)
    torch.manual_seed(1)
    view = random_view(side, smallest)
    found = np.array([steps(view(image)) for _ in range(300)])
    # The share of the picture's width that a view shows is its step.
    assert found.min() > 0 and found.max() < 1.03  # a flip's step would be negative
    areas = found.prod(axis=1)
    assert smallest - 0.04 < areas.min() < smallest + 0.05
    assert areas.max() > 0.9
    assert abs(np.log(found[:, 0] / found[:, 1])).max() < np.log(4 / 3) + 0.06
    assert abs(np.log(found[:, 0] / found[:, 1])).max() > 0.2


def test_the_result_has_the_asked_side_and_is_bilinear(geometry_only):
    torch.manual_seed(0)
    assert random_view(32, 0.2)(noise(64)).shape == (3, 32, 32)
    # Of the whole picture, a view is the picture: nothing else than the crop moves pixels.
    whole = random_view(64, 1.0)
    views = torch.stack([whole(ramps(64)) for _ in range(20)])
    exact = torch.from_numpy(np.asarray(ramps(64)).copy()).permute(2, 0, 1) / 255
    assert torch.isclose(views, exact, atol=1e-6).all(dim=3).all(dim=2).all(dim=1).any()
    crop = next(t for t in whole.transforms if hasattr(t, "ratio"))
    assert crop.interpolation.name == "BILINEAR" and crop.scale == (1.0, 1.0)


def test_jitter_spreads_brightness_by_two_fifths(monkeypatch):
    monkeypatch.setattr(augmentation, "PCA_ALPHA", 0)
    grey = Image.new("RGB", (16, 16), (100, 100, 100))
    view = random_view(16, 0.2)
    torch.manual_seed(0)
    # On an even grey, contrast and saturation change nothing: brightness is what is left.
    levels = np.array([view(grey).mean().item() * 255 for _ in range(400)])
    assert 58 <= levels.min() < 64 and 136 < levels.max() <= 142
    assert abs(levels.mean() - 100) < 4 * 23.1 / 400**0.5


def test_jitter_changes_contrast_and_saturation_but_no_hue(monkeypatch):
    monkeypatch.setattr(augmentation, "PCA_ALPHA", 0)
    jitter = next(t for t in random_view(16, 0.2).transforms if hasattr(t, "saturation"))
    assert jitter.brightness == jitter.contrast == jitter.saturation == (0.6, 1.4)
    assert jitter.hue is None


def test_pca_noise_comes_after_the_jitter_on_values_that_may_leave_0_to_1(monkeypatch):
    monkeypatch.setattr(augmentation, "PCA_ALPHA", 5.0)
    torch.manual_seed(0)
    black = Image.new("RGB", (16, 16))
    views = torch.stack([random_view(16, 0.2)(black) for _ in range(8)])
    assert views.min() < -0.05 and views.max() > 0.05
    assert torch.allclose(views.std(dim=(2, 3)), torch.zeros(8, 3), atol=1e-6)  # one colour a view
