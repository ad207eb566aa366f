"""What a data set yields for one image, by name; a `DataLoader` stacks each field over a batch.

Letters: A landmarks; S the side of the square that an image becomes, W that of the network input.
"""

from collections.abc import Callable, Sized
from typing import Any, NamedTuple

from torch import Tensor
from torch.utils.data import Dataset


class AnnotatedItem(NamedTuple):
    """One annotated image.

    Args:
        image: (3, W, W), float32, normalised.
        points_px: (A, 2), float32, x before y, in pixels of the network input.
        visible: (A,), bool; False where a landmark isn't annotated, whose point means nothing.
        points_norm: (A, 2), float32, the same points in [-1, 1].
        index: of the image in its data set.
    """

    image: Tensor
    points_px: Tensor
    visible: Tensor
    points_norm: Tensor
    index: int  # type: ignore[assignment]  # shadows tuple's method


class PairItem(NamedTuple):
    """Two views of one unlabelled image.

    Args:
        views: (6, W, W), float32, normalised; the two views stacked on channels.
        index: of the image in its data set.
    """

    views: Tensor
    index: int  # type: ignore[assignment]  # shadows tuple's method


class SquareItem(NamedTuple):
    """One unlabelled image whose views are made elsewhere.

    Args:
        image: (3, S, S), uint8.
        seed: int64 scalar, of the views.
        index: of the image in its data set.
    """

    image: Tensor
    seed: Tensor
    index: int  # type: ignore[assignment]  # shadows tuple's method


class SubstitutedItem(NamedTuple):
    """An item that may be another image's, because the one asked for can't be read.

    Args:
        item: the item.
        substituted: (2,), int64: the index asked for, and how many images from there on can't be
            read.
    """

    item: PairItem | SquareItem
    substituted: Tensor


class Items(Dataset):
    """The items that one method of a data set makes, for a `DataLoader`.

    Args:
        dataset: gives the length.
        make: an index to its item, such as ``dataset.pair_item``.
    """

    def __init__(self, dataset: Sized, make: Callable[[int], Any]) -> None:
        self.dataset, self.make = dataset, make

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        return self.make(index)
