"""Which images to annotate next: against a literal version, and what is asked of the picks."""

import pytest
import torch

from models.suggestion import suggest


def literal(looks, count, annotated=()) -> list[int]:
    """Return the same picks by loops over numbers."""

    def distance(a, b) -> float:
        return sum((x - y) ** 2 for x, y in zip(a, b, strict=True)) ** 0.5

    far = max(distance(a, b) for a in looks for b in looks)  # of an image while there is no centre

    def cost(centres) -> float:
        return sum(min([distance(row, c) for c in centres], default=far) for row in looks)

    centres, picked = [list(row) for row in annotated], []
    while len(picked) < min(count, len(looks)):
        rest = [place for place in range(len(looks)) if place not in picked]
        gains = [cost(centres) - cost([*centres, looks[place]]) for place in rest]
        equal = [p for p, gain in zip(rest, gains, strict=True) if gain > max(gains) * 0.9999]
        picked.append(equal[0])
        centres.append(looks[picked[-1]])
    return picked


@pytest.mark.parametrize("annotated", [0, 1, 7])
@pytest.mark.parametrize("seed", range(5))
def test_against_a_literal_version(seed, annotated):
    generator = torch.Generator().manual_seed(seed)
    looks = torch.randn(30, 6, generator=generator)
    known = torch.randn(annotated, 6, generator=generator)
    picks = suggest(looks, 12, known.split(3))
    assert picks == literal(looks.tolist(), 12, known.tolist())


def test_equal_images_are_picked_once_and_last():
    looks = torch.tensor([[1.0, 1], [1, 1], [1, 1], [2, 2]])
    assert suggest(looks, 10) == [0, 3, 1, 2]
    assert suggest(looks, 1, [looks[:1]]) == [3]


def test_nearly_equal_images_far_from_zero_have_their_distance():
    looks = torch.full((4, 512), 1000.0)
    looks[1, 0] += 0.125
    looks[2:, 0] += 0.5
    assert suggest(looks, 1, [looks[:1]]) == [2]


def test_nothing_to_pick():
    assert suggest(torch.zeros(0, 3), 5) == []
    assert suggest(torch.zeros(4, 3), 0) == []
    assert suggest(torch.eye(3), 1, [torch.zeros(0, 3)]) == suggest(torch.eye(3), 1)
