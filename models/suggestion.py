"""Which images to annotate next: ones that many others look like, and none that is annotated does.

Letters: N images, M annotated ones, D numbers that say what an image looks like.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

TIE = 1e-4  # relative: of two that only have each other, each gains as much but for rounding


def suggest(looks: Tensor, count: int, annotated: Iterable[Tensor] = ()) -> list[int]:
    """Return which images to annotate next, the most wanted one first.

    Greedy k-medoids, that is facility location [Nemhauser et al. 1978]: each pick is the image
    that most lowers the sum of all images' distances to the nearest one that is annotated or
    picked. Typical images come first, as few annotations need [Hacohen et al. 2022,
    arXiv:2202.02794]; what is odd comes late, unlike in k-centre, which begins with it. It takes
    N^2 D products, N^2 numbers, and N^2 sums a pick.

    Args:
        looks: (N, D), such as an encoder's deepest map.
        count: how many to pick; all N if there are fewer.
        annotated: (M, D) of the images that are annotated, in parts.

    Returns:
        Places among the N images, each once; of equal ones the first.
    """
    if not len(looks):
        return []
    # Near the origin, distances by products lose less to rounding.
    origin = looks.mean(dim=0)
    looks = looks - origin
    distances = torch.cdist(looks, looks).fill_diagonal_(0)  # (N, N)
    nearest = torch.full_like(distances[0], torch.inf)  # (N,)
    for part in annotated:
        if len(part):
            nearest = torch.minimum(nearest, torch.cdist(looks, part - origin).amin(dim=1))
    # Beyond all others it doesn't matter how far, and there may be none annotated yet.
    nearest = nearest.clamp(max=float(distances.max()))
    left = torch.ones_like(nearest, dtype=torch.bool)  # (N,) not picked yet
    picked: list[int] = []
    for _ in range(min(count, len(looks))):
        lowered = (nearest[:, None] - distances).clamp(min=0)  # (N, N)
        gains = lowered.sum(dim=0, dtype=torch.float64)
        gains = gains.masked_fill(~left, -1)
        place = int((gains >= gains.max() * (1 - TIE)).int().argmax())
        picked.append(place)
        left[place] = False
        nearest = torch.minimum(nearest, distances[place])
    return picked
