"""How good predictions on one's own images are, in the pixels of these.

Letters: N instances, A named points.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from data_loader.keypoints import Keypoints
from utils.files import write_text
from utils.log import RunLog

PCK_FRACTION = 0.1  # of the diagonal, within which a point is right


def to_original(dataset: Keypoints, predicted: Tensor) -> np.ndarray:
    """Return predictions (N, A, 2) in [-1, 1] in the pixels of their images."""
    return np.stack([dataset.to_original(p, i) for i, p in enumerate(predicted.numpy())])


def diagonals(dataset: Keypoints) -> np.ndarray:
    """Return the diagonal of each instance's box, or of its image where it has none, (N,)."""
    boxes, sizes = dataset.annotations["boxes"], dataset.annotations["sizes"]
    spans = np.where(np.isnan(boxes[:, :2]), sizes, boxes[:, 2:] - boxes[:, :2])
    return np.linalg.norm(spans, axis=1)


def score_split(dataset: Keypoints, predicted_orig: np.ndarray) -> dict[str, float]:
    """Return the scores of predictions (N, A, 2) in the pixels of their images.

    ``error_px`` is the mean distance over the annotated points, ``median_px`` their median,
    ``PCK_0.1`` the percentage of them within a tenth of the `diagonals`.
    """
    visible = dataset.annotations["visible"]  # (N, A)
    distances = np.linalg.norm(predicted_orig - dataset.annotations["keypoints"], axis=-1)
    right = distances <= PCK_FRACTION * diagonals(dataset)[:, None]
    return {
        "error_px": float(distances[visible].mean()),
        "median_px": float(np.median(distances[visible])),
        f"PCK_{PCK_FRACTION}": float(100 * right[visible].mean()),
    }


def score_splits(
    held_out: Mapping[str, Keypoints], predicted: Mapping[str, Tensor], folder: Path, log: RunLog
) -> dict[str, object]:
    """Score the predictions of a run; return what ``result.json`` holds of it.

    Args:
        held_out: split to its images.
        predicted: split to the predictions (N, A, 2) for them, in [-1, 1].
        folder: of the run.
        log: receives a line.
    """
    scores = {
        split: score_split(dataset, to_original(dataset, predicted[split]))
        for split, dataset in held_out.items()
    }
    log.line(in_words(scores))
    return {"scores": scores}


def in_words(scores: Mapping[str, Mapping[str, float]]) -> str:
    """Return each split's scores as one line."""
    return "; ".join(
        f"{split} error {s['error_px']:.2f} px (median {s['median_px']:.2f}), PCK "
        f"{s[f'PCK_{PCK_FRACTION}']:.1f} % within {PCK_FRACTION} of the diagonal"
        for split, s in scores.items()
    )


def sum_up_folds(folder: Path, results: Sequence[Any]) -> None:
    """Write ``result.json`` of all folds, given what the run of each one returned.

    Scores are means over the folds.
    """
    scores = [result["scores"] for result in results]
    means = {
        split: {name: float(np.mean([s[split][name] for s in scores])) for name in values}
        for split, values in scores[0].items()
    }
    print(f"mean of {len(scores)} folds: {in_words(means)}")
    summary = {"dataset": results[0]["dataset"], "scores": means, "folds": scores}
    write_text(folder / "result.json", json.dumps(summary, indent=1) + "\n")
