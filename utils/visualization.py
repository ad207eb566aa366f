"""What the two visualization scripts share: their options, and pictures of hypercolumns.

Letters: B pictures, C channels, h and w rows and columns of a map, P principal components.
"""

from pathlib import Path

import numpy as np
import torch
from sklearn.decomposition import PCA
from torch import Tensor, nn
from torch.utils.data import DataLoader

from utils.arguments import add_ignored_arguments
from utils.drawing import heat_picture, rgb_picture, save_picture, sheet, to_picture
from utils.errors import InputError

COMPONENTS = 25  # [SPEC 7]
DRAWN_BATCHES = 4  # [SPEC 7]
SHEET_PICTURES, SHEET_COLUMNS = 24, 6
CONTRAST = (1, 99)  # percentiles of a component that become black and white


def add_visualization_arguments(parser):
    """Declare what to draw, and where to; return the group."""
    group = parser.add_argument_group("pictures")
    group.add_argument(
        "--vis_path",
        type=Path,
        default=Path("Visualization"),
        metavar="DIR",
        help="folder of the pictures; those of an earlier run with the same names are replaced",
    )
    group.add_argument(
        "--vis_keypoints", action="store_true", help="draw predicted and true landmarks"
    )
    group.add_argument(
        "--vis_PCA", action="store_true", help="draw the principal components of the features"
    )
    group.add_argument("--ckpt_path", metavar="FILE", help="checkpoint of the regressor")
    return group


def check_wishes(vis_keypoints: bool, vis_pca: bool, ckpt_path: str | None, random: bool) -> None:
    """Raise an `InputError` if there is nothing to draw, or nothing to draw it with."""
    if not (vis_keypoints or vis_pca):
        raise InputError("nothing to draw: give --vis_keypoints, --vis_PCA or both")
    if vis_keypoints and ckpt_path is None and not random:
        raise InputError("--vis_keypoints needs the regressor: give --ckpt_path FILE")


def principal_maps(features: Tensor, components: int = COMPONENTS) -> np.ndarray:
    """Return the leading principal components of all pixels' features, as maps.

    Args:
        features: (B, C, h, w); the B * h * w pixels are the samples.
        components: P; fewer if there are fewer channels or pixels.

    Returns:
        (B, P, h, w).
    """
    b, c, h, w = features.shape
    pixels = features.permute(0, 2, 3, 1).reshape(-1, c).cpu().numpy()  # (B * h * w, C)
    count = min(components, *pixels.shape)
    solver = "covariance_eigh" if c <= 4096 and len(pixels) > c else "randomized"
    projected = PCA(count, svd_solver=solver, random_state=0).fit_transform(pixels)
    return projected.reshape(b, h, w, count).transpose(0, 3, 1, 2)


def draw_components(images: Tensor, maps: np.ndarray, folder: Path) -> Path:
    """Write the components of a batch; return the contact sheet's path.

    For picture i: ``{i}/orig.png``, ``{i}/{p}.png`` for each component, ``{i}/rgb.png`` with the
    three leading ones as colours, and ``{i}/sheet.png`` with all of them. ``pca_sheet.png`` shows
    the first pictures and their colours.

    Args:
        images: (B, 3, H, W) in [0, 1].
        maps: (B, P, h, w).
        folder: is made.
    """
    side = images.shape[-1]
    # One scale for the batch, so that a colour means the same in all pictures.
    low, high = np.percentile(maps, CONTRAST, axis=(0, 2, 3))  # (P,), (P,)
    overview = []
    for i, (image, components) in enumerate(zip(images, maps, strict=True)):
        original = to_picture(image)
        greys = [heat_picture(m, a, b, side) for m, a, b in zip(components, low, high, strict=True)]
        three = [min(c, len(components) - 1) for c in range(3)]
        rgb = rgb_picture(components[three], low[three], high[three], side)
        save_picture(original, folder / str(i) / "orig.png")
        save_picture(rgb, folder / str(i) / "rgb.png")
        for p, grey in enumerate(greys):
            save_picture(grey, folder / str(i) / f"{p}.png")
        tiles = [original, rgb, *(grey.convert("RGB") for grey in greys)]
        title = f"picture, components 1-3 as RGB, components 1-{len(greys)}"
        save_picture(sheet(tiles, 9, title), folder / str(i) / "sheet.png")
        overview += [original, rgb]
    path = folder / "pca_sheet.png"
    title = "pictures and their three leading components as red, green, blue"
    save_picture(sheet(overview[: 2 * SHEET_PICTURES], 2 * SHEET_COLUMNS, title), path)
    return path


@torch.no_grad()
def draw_first_batch_components(
    loader: DataLoader,
    encoder: nn.Module,
    layer: int,
    use_hypercol: bool,
    device: torch.device,
    folder: Path,
) -> Path:
    """Draw the components of a loader's first batch, however small; see `draw_components`."""
    images = next(iter(loader))[0]  # (B, 3, H, W)
    features = encoder(images.to(device), layer, use_hypercol)  # (B, C, h, w)
    pictures = loader.dataset.dataset.denormalize(images)
    return draw_components(pictures, principal_maps(features), folder)


def add_training_arguments(parser) -> None:
    """Declare the training flags that the published visualization scripts take and ignore."""
    add_ignored_arguments(
        parser,
        print_freq=10,
        tb_freq=500,
        save_freq=5,
        epochs=60,
        learning_rate=0.1,
        lr_decay_epochs="30,40,50",
        lr_decay_rate=0.2,
        momentum=0.9,
        weight_decay=0.0,
        beta1=0.5,
        beta2=0.999,
        crop=0.2,
        restrict_annos=-1,
        repeat=False,
        num_per_epoch=1000,
        model_name="",
        model_path="",
        resume="",
        TPS_aug=False,
        bn=False,
        cosine=False,
        multistep=False,
        adam=False,
        amsgrad=False,
    )
