"""An annotated data set and predictions for it as the records of a page.

Letters: N images, A landmarks.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from data_loader.geometry import denormalize_points
from data_loader.keypoints import Keypoints
from data_loader.landmark_dataset import LandmarkDataset
from engine.pages.page import PageRecord


def dataset_records(
    dataset: LandmarkDataset, predicted: Tensor, confidence: Tensor
) -> Iterator[PageRecord]:
    """Yield each image with what was found in it.

    One's own images are shown where the network looked, in their own pixels; a benchmark's as the
    network saw them, as its points may belong to no window of the file.

    Args:
        dataset: N images.
        predicted: (N, A, 2) in [-1, 1].
        confidence: (N, A) in [0, 1], or NaN.
    """
    several = isinstance(dataset, Keypoints) and len(set(dataset.filenames)) < len(dataset)
    side, crop = dataset.side, dataset.crop
    for index in range(len(dataset)):
        image: Path | Image.Image
        if isinstance(dataset, Keypoints):
            width, height = dataset.annotations["sizes"][index].tolist()
            image, truth = dataset.path(index), dataset.annotations["keypoints"][index]
            points = dataset.to_original(predicted[index], index)
            window = dataset.framing.window((width, height), dataset.box(index))
        else:
            square, points_px = dataset.base_item(index)
            image, truth = square.crop((crop, crop, crop + side, crop + side)), points_px - crop
            points = denormalize_points(predicted[index].numpy(), side)
            width, height, window = side, side, None
        yield PageRecord(
            name=dataset.filenames[index],
            image=image,
            points=points,
            confidence=confidence[index].numpy(),
            truth=np.where(dataset.visible(index).numpy()[:, None], truth, np.nan),
            size=(width, height),
            label=str(dataset.annotations["ids"][index]) if several else "",
            window=window,
            levels=dataset.levels,
        )
