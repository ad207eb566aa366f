"""Random thin-plate-spline warps of annotated images [spec 6].

Letters: P control points (a 10x10 grid), N points of the image. A warp is ``design @ weights``:
it maps a place of the *result* to the place of the source that is shown there, both as (x, y) in
[-1, 1] with -1 and 1 at the centres of the first and the last pixel.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

GRID_SIDE = 10  # control points in a row
EPSILON = 1e-5  # [spec 6] inside the logarithm of the kernel
NEWTON_STEPS = 12
TOLERANCE = 1e-9  # of a step, in [-1, 1] units


def control_points() -> Tensor:
    """Return the (P, 2) grid over [-1, 1], x running fastest."""
    axis = torch.linspace(-1, 1, GRID_SIDE)
    return torch.cartesian_prod(axis, axis).flip(1)


def design_rows(points: Tensor, controls: Tensor) -> Tensor:
    """Return the (N, P + 3) rows [r^2 log(r^2 + eps) to each control point, 1, x, y]."""
    squared = (points[:, None] - controls[None]).square().sum(dim=-1)  # (N, P)
    kernel = squared * torch.log(squared + EPSILON)
    return torch.cat([kernel, torch.ones_like(points[:, :1]), points], dim=1)


def random_tps_weights(
    nctrlpts: int,
    warpsd_all: float,
    warpsd_subset: float,
    transsd: float,
    scalesd: float,
    rotsd: float,
) -> Tensor:
    """Sample the weights (nctrlpts + 3, 2) of a random warp from torch's generator.

    Args:
        nctrlpts: P.
        warpsd_all: standard deviation of the control points' weights.
        warpsd_subset: that of the random half of them that is sampled anew.
        transsd: of the shift, in [-1, 1] units.
        scalesd: of the scale, around 1.
        rotsd: of the rotation, in degrees.
    """
    bend = warpsd_all * torch.randn(nctrlpts, 2)
    subset = warpsd_subset * torch.randn(nctrlpts, 2)
    bend = torch.where(torch.rand(nctrlpts, 2) > 0.5, bend, subset)
    angle = torch.deg2rad(rotsd * torch.randn(()))
    scale = 1 + scalesd * torch.randn(())
    cos, sin = scale * torch.cos(angle), scale * torch.sin(angle)
    shift = transsd * torch.randn(2)
    affine = torch.stack([shift, torch.stack([cos, -sin]), torch.stack([sin, cos])])
    return torch.cat([bend, affine])


class WarperSingle:
    """Warp one image of H rows and W columns, and its points, at random, then crop.

    For the spreads see `random_tps_weights`.
    """

    def __init__(
        self,
        H: int,  # noqa: N803 (published names)
        W: int,  # noqa: N803
        warpsd_all: float = 0.0005,
        warpsd_subset: float = 0.0,
        transsd: float = 0.02,
        scalesd: float = 0.02,
        rotsd: float = 2,
    ) -> None:
        self.H, self.W = H, W
        self.spread = (warpsd_all, warpsd_subset, transsd, scalesd, rotsd)
        self.controls = control_points()
        pixels = torch.cartesian_prod(*(torch.linspace(-1, 1, n) for n in (H, W))).flip(1)
        self.F = design_rows(pixels, self.controls)  # (H * W, P + 3)

    def __call__(
        self, image: Tensor, keypts: np.ndarray, crop: int = 0
    ) -> tuple[Tensor, np.ndarray]:
        """Return a warped and cropped image and its points.

        Args:
            image: (3, H, W) in 0..255.
            keypts: (N, 2) in pixels, x before y.
            crop: pixels cut off each side of the result.

        Returns:
            The image (3, H - 2 * crop, W - 2 * crop) in 0..255, zero where the warp looks
            outside the source, and the points (N, 2) in pixels of the cropped frame.
        """
        images, points = self.warp(image[None], np.asarray(keypts)[None], self.sample()[None], crop)
        return images[0], points[0]

    def sample(self) -> Tensor:
        """Sample the weights (P + 3, 2) of a warp from torch's generator."""
        return random_tps_weights(len(self.controls), *self.spread)

    def to(self, device: torch.device) -> "WarperSingle":
        """Have images of a device warped; return self."""
        self.F = self.F.to(device)
        return self

    def warp(
        self, images: Tensor, points_px: np.ndarray, weights: Tensor, crop: int
    ) -> tuple[Tensor, np.ndarray]:
        """Warp and crop a batch, each image by weights of its own.

        Args:
            images: (B, 3, H, W) in 0..255.
            points_px: (B, N, 2), x before y.
            weights: (B, P + 3, 2), on the CPU.
            crop: pixels cut off each side of the results.

        Returns:
            Images (B, 3, H - 2 * crop, W - 2 * crop) and points (B, N, 2): see `__call__`.
        """
        rows = self.F.view(self.H, self.W, -1)[crop : self.H - crop, crop : self.W - crop]
        grids = torch.einsum("hwp,bpc->bhwc", rows, weights.to(rows))
        warped = F.grid_sample(images, grids, align_corners=False)
        size = np.array([self.W - 1, self.H - 1])
        points_norm = torch.as_tensor(np.asarray(points_px) * 2.0 / size - 1.0)
        moved = inverse_warp(points_norm, weights, self.controls).numpy()
        return warped, (moved + 1) / 2 * size - crop


def inverse_warp(targets: Tensor, weights: Tensor, controls: Tensor) -> Tensor:
    """Return where the warp shows given places of the source, by Newton's method in float64.

    A place that the warp never shows goes to the nearest edge of the result, as a search over
    its pixels would send it.

    Args:
        targets: (..., N, 2), in [-1, 1].
        weights: (..., P + 3, 2).
        controls: (P, 2).

    Returns:
        (..., N, 2) float64, in [-1, 1].
    """
    # NumPy, since the arrays are so small that the cost is that of the calls.
    coefs, centres, places = (t.double().numpy() for t in (weights, controls, targets))
    bend, affine = coefs[..., :-3, :], coefs[..., -2:, :]
    shift = coefs[..., -3:-2, :]  # (..., 1, 2)
    points = (places - shift) @ np.linalg.inv(affine)  # exact without bending
    for _ in range(NEWTON_STEPS):
        dx, dy = (points[..., None, axis] - centres[:, axis] for axis in (0, 1))  # (..., N, P)
        squared = dx * dx + dy * dy
        log = np.log(squared + EPSILON)
        residual = (squared * log) @ bend + points @ affine + shift - places  # (..., N, 2)
        slope = 2 * (log + squared / (squared + EPSILON))  # (..., N, P)
        # How the shown place changes with the point's x, and with its y: (..., N, 2) each.
        by_x = (slope * dx) @ bend + affine[..., :1, :]
        by_y = (slope * dy) @ bend + affine[..., 1:, :]
        determinant = cross(by_x, by_y)
        step_x, step_y = cross(residual, by_y) / determinant, cross(by_x, residual) / determinant
        points = points - np.stack([step_x, step_y], axis=-1)
        if max(np.abs(step_x).max(initial=0), np.abs(step_y).max(initial=0)) < TOLERANCE:
            break
    return torch.from_numpy(np.clip(points, -1, 1))


def cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the cross products of vectors in the plane, (..., 2) each."""
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]
