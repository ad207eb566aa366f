"""Which images to annotate next: uncertain ones that differ from each other.

Letters: N images, M annotated ones, C channels.
"""

import torch
from torch import Tensor


def suggest(
    features: Tensor,
    uncertainty: Tensor,
    count: int,
    annotated_features: Tensor | None = None,
) -> list[int]:
    """Return which images to annotate next, the most wanted one first.

    Greedy k-centre [Sener & Savarese 2018, arXiv:1708.00489, algorithm 1], with each distance
    weighted by the image's uncertainty [ours: farthest images alone are odd ones, uncertain ones
    alone are much the same]: each pick has the largest uncertainty times distance to the nearest
    image that is annotated or picked. If there is none yet, the most uncertain one is picked.

    Args:
        features: (N, C), one vector an image, such as an encoder's maps averaged over places.
        uncertainty: (N,), not negative, in any unit; if all are 0, distance alone counts.
        count: how many to pick; all N if there are fewer.
        annotated_features: (M, C) of the images that are annotated.

    Returns:
        Places among the N images, each once; of equals the first one.

    Raises:
        ValueError: if shapes don't fit, a number isn't finite, or an uncertainty is negative.
    """
    annotated = features[:0] if annotated_features is None else annotated_features
    _check(features, uncertainty, annotated)
    weights = uncertainty if (uncertainty > 0).any() else torch.ones_like(uncertainty)
    weights = weights.double()
    nearest = torch.full_like(weights, torch.inf)  # (N,) distance to the nearest centre
    for centre in annotated:
        nearest = torch.minimum(nearest, _distances(features, centre))
    left = torch.ones_like(weights, dtype=torch.bool)  # (N,) not picked yet
    picked: list[int] = []
    for _ in range(min(count, len(features))):
        gains = weights if nearest.isinf().all() else weights * nearest  # (N,)
        place = int(gains.masked_fill(~left, -1).argmax())
        picked.append(place)
        left[place] = False
        nearest = torch.minimum(nearest, _distances(features, features[place]))
    return picked


def _distances(features: Tensor, centre: Tensor) -> Tensor:
    """Return each image's Euclidean distance to a centre (C,), (N,) float64, exactly 0 to itself.

    By differences: by products, images that are nearly the same have the distance of rounding.
    """
    mode = "donot_use_mm_for_euclid_dist"
    return torch.cdist(features.float(), centre.float()[None], compute_mode=mode)[:, 0].double()


def _check(features: Tensor, uncertainty: Tensor, annotated: Tensor) -> None:
    """Raise a ValueError unless the tensors of `suggest` fit each other."""
    if features.ndim != 2 or annotated.ndim != 2 or features.shape[1] != annotated.shape[1]:
        raise ValueError(f"features {tuple(features.shape)} and {tuple(annotated.shape)}")
    if uncertainty.shape != features.shape[:1]:
        raise ValueError(f"{tuple(uncertainty.shape)} uncertainties of {len(features)} images")
    if not all(bool(t.isfinite().all()) for t in (features, uncertainty, annotated)):
        raise ValueError("a feature or an uncertainty isn't finite")
    if (uncertainty < 0).any():
        raise ValueError("an uncertainty is negative")
