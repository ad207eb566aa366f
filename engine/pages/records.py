"""An annotated data set and predictions for it as the records of a page.

Letters: N images, A landmarks.
"""

from collections.abc import Iterator

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
    for index in range(len(dataset)):
        points = predicted[index].numpy()
        if isinstance(dataset, Keypoints):
            record = _own_record(dataset, index, points)
        else:
            record = _benchmark_record(dataset, index, points)
        missing = ~dataset.visible(index).numpy()  # (A,)
        truth = np.array(record.truth, dtype=np.float64)
        truth[missing] = np.nan
        yield record._replace(
            confidence=confidence[index].numpy(),
            truth=truth,
            label=str(dataset.annotations["ids"][index]) if several else "",
        )


def _own_record(dataset: Keypoints, index: int, predicted: np.ndarray) -> PageRecord:
    width, height = dataset.annotations["sizes"][index].tolist()
    return PageRecord(
        name=dataset.filenames[index],
        image=dataset.path(index),
        points=dataset.to_original(predicted, index),
        confidence=np.empty(0),
        truth=np.asarray(dataset.annotations["keypoints"][index], dtype=np.float64),
        width=width,
        height=height,
        window=dataset.framing.window((width, height), dataset.box(index)),
    )


def _benchmark_record(dataset: LandmarkDataset, index: int, predicted: np.ndarray) -> PageRecord:
    square, points_px = dataset.base_item(index)
    side, crop = dataset.side, dataset.crop
    image: Image.Image = square.crop((crop, crop, crop + side, crop + side))
    return PageRecord(
        name=dataset.filenames[index],
        image=image,
        points=denormalize_points(predicted, side),
        confidence=np.empty(0),
        truth=np.asarray(points_px) - crop,
        width=side,
        height=side,
    )
