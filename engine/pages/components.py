"""Images of the principal components of an encoder's features [spec 7].

Letters: B images, C channels, h and w rows and columns of a map, P principal components.
"""

from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.decomposition import PCA
from torch import Tensor

from utils.drawing import render_heatmap, save_png, sheet, to_pil

COMPONENTS = 25  # [spec 7]
CONTRAST = (1, 99)  # percentiles of a component that become black and white
SHEET_IMAGES, SHEET_COLUMNS = 24, 6


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

    For image i: ``{i}/orig.png``, ``{i}/{p}.png`` for each component, ``{i}/rgb.png`` with the
    three leading ones as colours, and ``{i}/sheet.png`` with all of them. ``pca_sheet.png`` shows
    the first images and their colours.

    Args:
        images: (B, 3, H, W) in [0, 1].
        maps: (B, P, h, w).
        folder: is made.
    """
    side = images.shape[-1]
    # One scale for the batch, so that a colour means the same in all images.
    low, high = np.percentile(maps, CONTRAST, axis=(0, 2, 3))  # (P,), (P,)
    overview = []
    for i, (image, components) in enumerate(zip(images, maps, strict=True)):
        original = to_pil(image)
        greys = [
            render_heatmap(m, a, b, side) for m, a, b in zip(components, low, high, strict=True)
        ]
        rgb = Image.merge("RGB", [greys[min(c, len(greys) - 1)] for c in range(3)])
        save_png(original, folder / str(i) / "orig.png")
        save_png(rgb, folder / str(i) / "rgb.png")
        for p, grey in enumerate(greys):
            save_png(grey, folder / str(i) / f"{p}.png")
        tiles = [original, rgb, *(grey.convert("RGB") for grey in greys)]
        title = f"image, components 1-3 as RGB, components 1-{len(greys)}"
        save_png(sheet(tiles, 9, title), folder / str(i) / "sheet.png")
        overview += [original, rgb]
    path = folder / "pca_sheet.png"
    title = "images and their three leading components as red, green, blue"
    save_png(sheet(overview[: 2 * SHEET_IMAGES], 2 * SHEET_COLUMNS, title), path)
    return path
