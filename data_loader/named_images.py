"""Images in files that have names: read one by one, as a square or a pair of views [spec 6].

Letters: N images; S the side of a square (``imwidth``), W that of the network input, S - 2 * crop.
"""

import hashlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from data_loader.image_set import ImageSet, spread
from data_loader.items import PairItem, SquareItem
from data_loader.readers.annotation_files import check_images, replace_backslashes
from data_loader.readers.image_names import find_images, resolve_listed
from data_loader.readers.images import check_size, has_pages, image_size, oriented_size, value_range
from utils.errors import ImageError, InputError

INSPECTED = 8  # images, spread over a data set, that are looked at when it is opened
HEADERS = 1000  # that are read when one's own images are opened, at most


class NamedImages(ImageSet):
    """Image files as (data, -1, -1, index); ``data`` is two views (6, W, W), or one.

    Subclasses say in `read` which files there are.

    Args:
        root: the data set's folder.
        train: its training split, else its test split.
        pair_image: two views of an image, for contrastive training.
        imwidth: as `crop`, `smallest_scale` and `skip_bad`, see `ImageSet`.
        do_augmentations: the views are random.

    Attributes:
        annotations: what belongs to the images: arrays of N rows.

    Raises:
        InputError: if a file of the data set is absent or doesn't fit.
    """

    split_name = ""  # "train" or "test" if a subclass says nothing
    image_cache: Any = None  # an `ImageCache`, see `image_cache.cache_images`

    def __init__(
        self,
        root: str | Path,
        train: bool = True,
        pair_image: bool = True,
        imwidth: int = 100,
        crop: int = 15,
        do_augmentations: bool = True,
        smallest_scale: float = 0.2,
        skip_bad: bool = False,
    ) -> None:
        super().__init__(imwidth, crop, smallest_scale if do_augmentations else None, skip_bad)
        if not Path(root).is_dir():
            raise InputError(f"{root}: no such folder; --data_folder names the benchmark's root")
        self.pair_image = pair_image
        self.split_name = self.split_name or ("train" if train else "test")
        self.filenames: Sequence[str]
        self.folder, self.filenames, self.annotations = self.read(Path(root), train)
        if not len(self.filenames):
            raise InputError(f"{root}: the lists name no image for {type(self).__name__}")
        self._inspect_some_files()

    def read(self, root: Path, train: bool) -> tuple[Path, Sequence[str], dict[str, np.ndarray]]:
        """Return the folder of the images, their N names in it, and `annotations`."""
        raise NotImplementedError

    def check_listed(self, folder: Path, filenames: list[str], source: Path) -> list[str]:
        """Replace Windows' separators in names; unless bad images are skipped, all must exist."""
        filenames = replace_backslashes(folder, filenames)
        if not self.skip_bad:
            check_images(folder, filenames, source)
        return filenames

    def _inspect_some_files(self) -> None:
        """Check the size of some images, and note what else is worth a line."""
        for index in spread(len(self), INSPECTED):
            with suppress(ImageError):  # said when the image is needed
                check_size(self.path(index), self.size(index), self.expected_size(index))
        self.notices += notices_on(self.path, len(self), self.oriented)

    def __str__(self) -> str:
        return f"{type(self).__name__} {self.split_name}"

    def __len__(self) -> int:
        return len(self.filenames)

    def path(self, index: int) -> Path:
        """Return where an image lies."""
        return self.folder / self.filenames[index]

    def size(self, index: int) -> tuple[int, int]:
        """Return an image's width and height by its file's header."""
        path = self.path(index)
        return oriented_size(path)[0] if self.oriented else image_size(path)

    def open(self, index: int) -> Image.Image:
        """Return an image as it is in its file, or raise an `ImageError` if it can't be read."""
        return self.open_file(self.path(index), None, index)

    def pixels(self, index: int) -> np.ndarray:
        """Return an image's square (S, S, 3), from the image cache if there is one."""
        if self.image_cache is None:
            return np.asarray(self.square(self.open(index), index))
        if index in self.image_cache.bad:
            raise ImageError(f"{self.path(index)}: {self.image_cache.bad[index]}")
        return self.image_cache.images[index]

    def read_square(self, index: int) -> Image.Image:
        """Return an image's square (S, S), from the image cache if there is one."""
        return Image.fromarray(self.pixels(index))

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor, int]:
        nothing, image = torch.tensor(-1), self.read_square(index)
        data = self.make_pair(image, index).views if self.pair_image else self.view(image)
        return data, nothing, nothing, index

    def pair_item(self, index: int) -> PairItem:
        """Return two views of an image."""
        return self.make_pair(self.read_square(index), index)

    def square_item(self, index: int) -> SquareItem:
        """Return an image's square."""
        return self.make_square(self.pixels(index), index)

    def digested(self, facts: object) -> object:
        """Return what `digest` hashes beside names and annotations: the facts that are given."""
        return facts

    def digest(
        self,
        facts: object = None,
        places: Sequence[int] | None = None,
        describe_file: Callable[[Path], bytes] = lambda path: b"",
    ) -> str:
        """Return a hash of images' names and annotations, and of what else is given.

        Args:
            facts: anything whose `repr` is to be hashed.
            places: of the images; all if None.
            describe_file: what to hash of an image's file, given its path.
        """
        chosen = list(range(len(self.filenames)) if places is None else places)
        digest = hashlib.sha256(repr(self.digested(facts)).encode())
        if self.levels != ImageSet.levels:
            digest.update(repr(self.levels).encode())
        for name, rows in sorted(self.annotations.items()):
            digest.update(f"{name} {rows.dtype} {len(chosen)} {rows.shape[1:]}\0".encode())
            digest.update(np.ascontiguousarray(rows[chosen]).tobytes())
        for place in chosen:
            filename = self.filenames[place]
            described = describe_file(self.folder / filename)
            digest.update(f"{filename!r} {len(described)}\0".encode() + described)
        return digest.hexdigest()

    def select(self, indices: Sequence[int]) -> None:
        """Keep the images at these places, in this order, repeats included."""
        self.image_cache = None  # which holds the others too, in their old order
        self.filenames = [self.filenames[i] for i in indices]
        chosen = np.asarray(indices, dtype=np.int64)
        self.annotations = {name: rows[chosen] for name, rows in self.annotations.items()}


class UnlabelledImages(NamedImages):
    """Images without annotation: all below a folder, or those of a list.

    Args:
        root: holds the images, at any depth; hidden files and folders, and macOS's, are ignored.
        train: unused, there is one split.
        pair_image: see `NamedImages`, also for the rest.
        imagelist: a file with one path a line, see `resolve_listed`.
    """

    def __init__(
        self,
        root: str | Path,
        train: bool = True,
        pair_image: bool = True,
        imwidth: int = 224,
        crop: int = 0,
        do_augmentations: bool = True,
        imagelist: str | Path | None = None,
        **options: Any,
    ) -> None:
        self.imagelist = imagelist
        if imagelist is not None and not Path(root).is_dir():
            root = Path(imagelist).parent  # a list of absolute paths needs no root
        super().__init__(root, train, pair_image, imwidth, crop, do_augmentations, **options)

    def read(self, root: Path, train: bool) -> tuple[Path, Sequence[str], dict[str, np.ndarray]]:
        """Find the images of the list, or all below the folder."""
        if self.imagelist is not None:
            return root, resolve_listed(Path(self.imagelist), root, self.skip_bad), {}
        filenames, notices = find_images(root, own=self.oriented)
        self.notices += notices
        return root, filenames, {}


def notices_on(path: Callable[[int], Path], total: int, own: bool) -> list[str]:
    """Return lines on images that are nearly black, and on one's own TIFF files of several pages.

    ``path`` says where an image lies, by its number below ``total``; some are looked at.
    """
    lines = []
    for place in spread(total, INSPECTED):
        with suppress(ImageError):  # said when the image is needed
            found = value_range(path(place), oriented=own)
            if found is not None and 0 < found[1] < 2**12:
                lines.append(
                    f"{path(place)}: its 16-bit values stay below 12 bits: nearly black, as the "
                    "upper 8 bits count, unless the encoder was trained with --colours measured"
                )
                break
    paths = {path(place) for place in spread(total, HEADERS if own else 0)}
    if several := sorted(filter(has_pages, paths)):
        lines.append(f"of {len(several):,} TIFF files the first page is read: {several[0]}")
    return lines
