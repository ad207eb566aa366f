"""How much the annotated poses of an object vary [spec 14].

Letters: N images, A landmarks.
"""

import numpy as np
from torch import Tensor

LEAST_IMAGES = 3  # that show all landmarks; of fewer nothing is told
DEVIATIONS = 1.5  # of the poses that random views reach to


def pose_factor(points: Tensor, visible: Tensor, rotation: float, scale: float) -> float | None:
    """Return how far random views should go, as a fraction of the given ones; 0.3 to 1.

    Each shape that is seen as a whole is the mean shape under a similarity: Kendall's full
    Procrustes mean, which is the leading eigenvector of the centred shapes as complex numbers.
    The deviations of the angles and of the logarithms of the sizes are what counts, not the places:
    a convolution finds an object anywhere.

    Args:
        points: (N, A, 2), in half sides of the image.
        visible: (N, A), bool.
        rotation: the largest of the views, in degrees.
        scale: their largest factor's logarithm.

    Returns:
        None if too few images show all landmarks, or those lie on one spot.
    """
    whole = points[visible.all(dim=1)].double().numpy()
    shapes = whole[..., 0] + 1j * whole[..., 1]  # (N, A)
    shapes -= shapes.mean(axis=1, keepdims=True)
    sizes = np.linalg.norm(shapes, axis=1)  # (N,)
    if len(shapes) < LEAST_IMAGES or not sizes.all():
        return None
    shapes /= sizes[:, None]
    _, vectors = np.linalg.eigh(shapes.T @ shapes.conj())
    turns = shapes @ vectors[:, -1].conj()  # (N,)
    length = abs((turns / abs(turns)).mean())  # of the mean direction, 1 if all are turned alike
    degrees = np.degrees(np.sqrt(-2 * np.log(length)))
    factor = DEVIATIONS * max(degrees / rotation, np.log(sizes).std() / scale)
    return float(np.clip(factor, 0.3, 1))
