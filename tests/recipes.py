"""Inputs of the golden numbers [spec 10], and where the shared material lies."""

import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

GOLDEN = Path(__file__).parent / "golden"
ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"
FACES = SHARED / "data" / "faces"

needs_faces = pytest.mark.skipif(
    not FACES.is_dir(), reason="the photographs of ../shared/data/faces aren't here"
)


def golden(name: str):
    """Return the arrays of a golden file."""
    return np.load(GOLDEN / name, allow_pickle=False)


def fill(state: dict, seed: int = 1) -> dict:
    """Return a state dict with the recipe's weights, which depend on each key's name."""
    filled = {}
    for key, value in state.items():
        random = np.random.RandomState((zlib.crc32(key.encode()) + seed) % 2**32)
        shape = tuple(value.shape)
        if key.endswith("num_batches_tracked"):
            filled[key] = torch.zeros_like(value)
            continue
        if key.endswith("running_var"):
            array = random.uniform(0.5, 1.5, shape)
        elif key.endswith("running_mean"):
            array = 0.1 * random.randn(*shape)
        elif len(shape) == 4:
            array = random.randn(*shape) * np.sqrt(2.0 / (shape[0] * shape[2] * shape[3]))
        elif len(shape) == 2:
            array = 0.02 * random.randn(*shape)
        elif len(shape) == 1 and key.endswith("weight"):
            array = random.uniform(0.5, 1.5, shape)
        else:
            array = 0.1 * random.randn(*shape)
        filled[key] = torch.tensor(array, dtype=value.dtype)
    return filled


def arr(seed: int, *shape: int) -> torch.Tensor:
    """Return the recipe's random input."""
    return torch.tensor(np.random.RandomState(seed).randn(*shape), dtype=torch.float32)


def sub(tensor, count: int = 4096) -> np.ndarray:
    """Return every n-th element of a flattened tensor, as the golden files keep them."""
    flat = torch.as_tensor(tensor).detach().flatten()
    return flat[:: max(1, flat.numel() // count)].numpy()


def relative(a, b) -> float:
    """Return |a - b| / |b|."""
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    assert a.shape == b.shape
    return float(np.linalg.norm(a - b) / max(np.linalg.norm(b), 1e-12))
