"""Errors and scores of predicted landmarks [spec 6]. Letters: B images, A landmarks.

Everything is in percent. Coordinates are normalised: x before y, in [-1, 1].
"""

from collections.abc import Sequence

from torch import Tensor

# [spec 6] A point is right within this share of the box's side.
PCK_THRESHOLD = 0.05


def inter_ocular_error(pred: Tensor, gt: Tensor, eyeidxs: Sequence[int]) -> Tensor:
    """Return the mean landmark error as a percentage of each face's eye distance.

    Args:
        pred: (B, A, 2).
        gt: (B, A, 2), in the same frame.
        eyeidxs: indices among the A landmarks of the two eyes.

    Returns:
        A scalar: 100 times the mean over images and landmarks of |pred - gt| / |eye - eye|.
    """
    left, right = eyeidxs
    eye_distance = (gt[:, left] - gt[:, right]).norm(dim=-1)  # (B,)
    error = (pred - gt).norm(dim=-1)  # (B, A)
    return 100 * (error / eye_distance[:, None]).mean()


def calc_pck(
    pred: Tensor, gt: Tensor, visible: Tensor, boxsize: int, truncate: bool = True
) -> Tensor:
    """Return the percentage of correct keypoints, averaged over the parts that can be judged.

    Args:
        pred: (B, A, 2).
        gt: (B, A, 2).
        visible: (B, A), bool.
        boxsize: side in pixels of the box that coordinates are mapped to.
        truncate: cut distances down to whole pixels, as the published numbers do; False gives
            the exact score.

    Returns:
        A scalar. A point counts if both its target coordinates in the box are positive; it is
        right if its distance is below 5 % of the box. NaN if no point of the batch counts.
    """
    pred_box = (pred + 1) / 2 * (boxsize - 1)
    gt_box = (gt + 1) / 2 * (boxsize - 1)
    gt_box = gt_box.masked_fill(~visible.bool().unsqueeze(-1), 0)
    distance = (pred_box - gt_box).norm(dim=-1)  # (B, A)
    if truncate:
        distance = distance.floor()
    valid = (gt_box > 0).all(dim=-1)  # (B, A)
    right = (distance < PCK_THRESHOLD * boxsize) & valid
    judged = valid.any(dim=0)  # (A,)
    share = right.sum(dim=0)[judged] / valid.sum(dim=0)[judged]
    return 100 * share.mean()
