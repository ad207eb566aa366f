"""What a data set yields for one image, by name; a `DataLoader` stacks each field over a batch.

Letters: A landmarks; S the side of the square that an image becomes, W that of the network input.
``index`` is that of the image in its data set; the name shadows tuple's method.
"""

from collections.abc import Callable, Sized
from typing import Any, NamedTuple

from torch import Tensor
from torch.utils.data import Dataset


class AnnotatedItem(NamedTuple):
    """One annotated image."""

    image: Tensor  # (3, W, W), float32, normalised
    points_px: Tensor  # (A, 2), float32, x before y, in pixels of the network input
    visible: Tensor  # (A,), bool; False where no landmark is annotated: the point means nothing
    points_norm: Tensor  # (A, 2), float32, the same points in [-1, 1]
    index: int  # type: ignore[assignment]


class PairItem(NamedTuple):
    """Two views of one unlabelled image."""

    views: Tensor  # (6, W, W), float32, normalised; the two views stacked on channels
    index: int  # type: ignore[assignment]
    bad: int = 0  # so many images from this one on can't be read, and the next one is shown


class SquareItem(NamedTuple):
    """One unlabelled image whose views are made elsewhere."""

    image: Tensor  # (3, S, S), uint8
    seed: Tensor  # int64 scalar, of the views
    index: int  # type: ignore[assignment]
    bad: int = 0  # as of `PairItem`


class Items(Dataset):
    """The items that one method of a data set makes, such as ``dataset.pair_item``."""

    def __init__(self, dataset: Sized, make: Callable[[int], Any]) -> None:
        self.dataset, self.make = dataset, make

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        return self.make(index)
