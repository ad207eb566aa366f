"""Which images to annotate next: against a literal version, and what is asked of the picks."""

import pytest
import torch

from models.suggestion import suggest


def literal(features, uncertainty, count, annotated=()) -> list[int]:
    """Return the same picks by loops over numbers."""

    def distance(a, b) -> float:
        return sum((x - y) ** 2 for x, y in zip(a, b, strict=True)) ** 0.5

    centres, picked = [list(row) for row in annotated], []
    while len(picked) < min(count, len(features)):
        best, best_gain = None, -1.0
        for place, (row, doubt) in enumerate(zip(features, uncertainty, strict=True)):
            if place in picked:
                continue
            gain = doubt * min((distance(row, centre) for centre in centres), default=1.0)
            if gain > best_gain:
                best, best_gain = place, gain
        picked.append(best)
        centres.append(features[best])
    return picked


@pytest.mark.parametrize("annotated", [0, 1, 7])
@pytest.mark.parametrize("seed", range(5))
def test_against_a_literal_version(seed, annotated):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(40, 6, generator=generator)
    uncertainty = torch.rand(40, generator=generator)
    known = torch.randn(annotated, 6, generator=generator)
    picks = suggest(features, uncertainty, 15, known)
    assert picks == literal(features.tolist(), uncertainty.tolist(), 15, known.tolist())


def test_of_two_groups_each_gives_one():
    """Three alike that are very uncertain, three alike that are less so."""
    features = torch.tensor([[0.0], [0.1], [0.2], [10], [10.1], [10.2]])
    uncertainty = torch.tensor([0.8, 0.9, 0.7, 0.3, 0.2, 0.1])
    assert suggest(features, uncertainty, 2) == [1, 3]
    assert suggest(features, uncertainty, 1, torch.tensor([[0.0]])) == [3]


def test_equal_images_are_picked_last_and_once():
    features = torch.tensor([[1.0, 1], [1, 1], [1, 1], [2, 2]])
    assert suggest(features, torch.tensor([1.0, 3, 2, 1]), 10) == [1, 3, 0, 2]


def test_without_uncertainty_distance_counts():
    features = torch.tensor([[0.0], [1], [5], [9]])
    assert suggest(features, torch.zeros(4), 3) == [0, 3, 2]
    assert suggest(features, torch.tensor([0.0, 0, 1, 0]), 3) == [2, 0, 1]


def test_units_dont_matter():
    features, uncertainty = torch.randn(30, 4), torch.rand(30)
    assert suggest(features, uncertainty, 9) == suggest(features * 8, uncertainty * 4, 9)


def test_nearly_equal_images_far_from_zero_have_their_distance():
    features = torch.full((3, 512), 1000.0)
    features[1, 0] += 0.125
    features[2, 0] += 0.5
    assert suggest(features, torch.ones(3), 3) == [0, 2, 1]


def test_nothing_to_pick():
    assert suggest(torch.zeros(0, 3), torch.zeros(0), 5) == []
    assert suggest(torch.zeros(4, 3), torch.ones(4), 0) == []


@pytest.mark.parametrize(
    "features, uncertainty, annotated",
    [
        (torch.zeros(4, 3), torch.zeros(3), None),
        (torch.zeros(4), torch.zeros(4), None),
        (torch.zeros(4, 3), torch.zeros(4), torch.zeros(2, 2)),
        (torch.full((4, 3), torch.nan), torch.zeros(4), None),
        (torch.zeros(4, 3), torch.full((4,), torch.inf), None),
        (torch.zeros(4, 3), torch.full((4,), -1.0), None),
    ],
)
def test_what_doesnt_fit(features, uncertainty, annotated):
    with pytest.raises(ValueError):
        suggest(features, uncertainty, 2, annotated)
