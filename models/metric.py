"""Errors and scores of predicted landmarks, in percent [spec 6]. Letters: B images, A landmarks.

In all functions ``pred`` and ``gt`` are (B, A, 2), the predicted and the true points, x before y in
[-1, 1]; ``visible`` is (B, A), bool, the annotated ones; ``eyeidxs`` are the indices among the A
landmarks of the two eyes.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

PCK_THRESHOLD = 0.05  # [spec 6] a point is right within this fraction of the box's side


def inter_ocular_error(
    pred: Tensor, gt: Tensor, eyeidxs: Sequence[int], visible: Tensor | None = None
) -> Tensor:
    """Return the mean landmark error as a percentage of each face's eye distance.

    It is 100 times the mean of |pred - gt| / |eye - eye| over the landmarks that
    `inter_ocular_points` selects; NaN if there are none.
    """
    left, right = eyeidxs
    judged = inter_ocular_points(gt, eyeidxs, visible)  # (B, A)
    eye_distance = (gt[:, left] - gt[:, right]).norm(dim=-1)  # (B,)
    error = (pred - gt).norm(dim=-1) / eye_distance[:, None]  # (B, A)
    return 100 * (error.masked_fill(~judged, 0).sum() / judged.sum())


def inter_ocular_points(gt: Tensor, eyeidxs: Sequence[int], visible: Tensor | None) -> Tensor:
    """Return which landmarks the inter-ocular error runs over, (B, A) bool.

    These are the visible ones, or all, of faces whose eyes are both visible and at different
    places: without an eye distance nothing can be normalised.
    """
    left, right = eyeidxs
    if visible is None:
        visible = torch.ones(gt.shape[:-1], dtype=torch.bool, device=gt.device)
    has_distance = (gt[:, left] != gt[:, right]).any(dim=-1)  # (B,)
    return visible & (has_distance & visible[:, left] & visible[:, right])[:, None]


def side_error(pred: Tensor, gt: Tensor, visible: Tensor) -> Tensor:
    """Return the mean distance of visible points as a percentage of the network input's side.

    It is NaN if no point is visible.
    """
    distance = (pred - gt).norm(dim=-1).masked_fill(~visible, 0)  # (B, A), the side is 2
    return 100 * distance.sum() / (2 * visible.sum())


def calc_pck(
    pred: Tensor, gt: Tensor, visible: Tensor, boxsize: int, truncate: bool = True
) -> Tensor:
    """Return the percentage of correct keypoints, averaged over the parts that can be judged.

    A point counts if both its target coordinates in the box are positive; it is right if its
    distance is below 5 % of the box. NaN if no point of the batch counts.

    Args:
        pred: predicted points.
        gt: true points.
        visible: the annotated ones.
        boxsize: side in pixels of the box that coordinates are mapped to.
        truncate: cut distances down to whole pixels, as the published numbers do; False gives
            the exact score.
    """
    pred_box = (pred + 1) / 2 * (boxsize - 1)
    gt_box = (gt + 1) / 2 * (boxsize - 1)
    gt_box = gt_box.masked_fill(~visible.bool().unsqueeze(-1), 0)
    distance = (pred_box - gt_box).norm(dim=-1)  # (B, A)
    if truncate:
        distance = distance.floor()
    valid = pck_points(gt, visible)  # (B, A)
    right = (distance < PCK_THRESHOLD * boxsize) & valid
    judged = valid.any(dim=0)  # (A,)
    fraction = right.sum(dim=0)[judged] / valid.sum(dim=0)[judged]
    return 100 * fraction.mean()


def pck_points(gt: Tensor, visible: Tensor) -> Tensor:
    """Return which points (B, A) the PCK runs over: visible, with both coordinates above -1."""
    return visible.bool() & ((gt + 1) > 0).all(dim=-1)
