"""Comparison of items and batches, field by field."""

import torch


def leaves(parts) -> list[torch.Tensor]:
    """Return what tuples and lists hold, at any depth."""
    if not isinstance(parts, tuple | list):
        return [torch.as_tensor(parts)]
    return [leaf for part in parts for leaf in leaves(part)]


def same(batches, others) -> bool:
    """Tell whether batches, of which there are some, hold the same numbers."""
    assert len(batches) == len(others) > 0
    return all(torch.equal(a, b) for a, b in zip(leaves(batches), leaves(others), strict=True))
