"""Principal directions in a stream against all vectors at once, and what collapsing removes."""

import pytest
import torch
from hypothesis import given, strategies as st

from mechunlearn.unlearning.collapse.subspace import OVERSAMPLING, Directions, Stream, collapse

LIKE = torch.zeros((), dtype=torch.float64)


def vectors(count: int, width: int, seed: int, decay: float = 0.6, offset: float = 3.0) -> torch.Tensor:
    """Vectors about a mean far from zero, whose spread falls by `decay` from direction to direction."""
    generator = torch.Generator().manual_seed(seed)
    turn = torch.linalg.qr(torch.randn(width, width, generator=generator, dtype=torch.float64)).Q
    spread = decay ** torch.arange(width, dtype=torch.float64)
    centre = offset * torch.randn(width, generator=generator, dtype=torch.float64)
    return centre + torch.randn(count, width, generator=generator, dtype=torch.float64) * spread @ turn.T


def stream(data: torch.Tensor, count: int, passes: int = 1, pieces: int = 5, centred: bool = True) -> Directions:
    passing = Stream(data.shape[1], count, data.new_zeros(()), centred=centred)
    for _ in range(passes):
        passing.reset()
        for piece in data.tensor_split(pieces):
            passing.add(piece)
        found = passing.directions()
    return found


def at_once(data: torch.Tensor, count: int, centred: bool = True) -> tuple[torch.Tensor, torch.Tensor]:
    moved = data - data.mean(0) if centred else data
    _, values, right = torch.linalg.svd(moved, full_matrices=False)
    return right[:count].T, values[:count] / len(data) ** 0.5


def overlap(one: torch.Tensor, other: torch.Tensor) -> float:
    """The smallest cosine of a principal angle between two subspaces: 1 where they agree."""
    return float(torch.linalg.svdvals(one.T @ other).min())


@given(st.integers(0, 10_000), st.integers(2, 12), st.integers(1, 6), st.integers(1, 7), st.booleans())
def test_narrow_vectors_are_decomposed_exactly(seed, width, count, pieces, centred):
    count = min(count, width)
    data = vectors(60, width, seed)
    found = stream(data, count, pieces=pieces, centred=centred)
    basis, values = at_once(data, count, centred)
    assert overlap(found.components, basis) == pytest.approx(1, abs=1e-6)
    torch.testing.assert_close(found.values, values, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(found.mean, data.mean(0) / data.mean(0).norm())


@pytest.mark.parametrize("centred", [True, False])
def test_wide_vectors_are_sketched_and_agree_with_the_covariance(centred):
    count, width = 4, 4 * (4 + OVERSAMPLING) + 1
    data = vectors(400, width, seed=3, decay=0.7)
    assert Stream(width, count, LIKE).basis is not None
    basis, values = at_once(data, count, centred)
    once, often = (stream(data, count, passes=passes, centred=centred) for passes in (1, 3))
    assert overlap(once.components, basis) > 0.98
    assert overlap(often.components, basis) == pytest.approx(1, abs=1e-4)
    torch.testing.assert_close(often.values, values, rtol=1e-3, atol=0)
    identity = torch.eye(count, dtype=torch.float64)
    torch.testing.assert_close(often.components.T @ often.components, identity)


def test_a_mean_far_from_zero_costs_no_precision_in_single():
    data = vectors(500, 8, seed=1, offset=1e3)
    found = stream(data.float(), 3)
    basis, values = at_once(data, 3)
    assert overlap(found.components.double(), basis) > 1 - 1e-4
    torch.testing.assert_close(found.values.double(), values, rtol=1e-3, atol=0)


def test_the_memory_of_a_stream_does_not_grow():
    passing = Stream(200, 4, LIKE)
    sizes = []
    for seed in range(3):
        passing.add(vectors(50, 200, seed))
        sizes.append(sum(tensor.numel() for tensor in passing.state().values()))
    assert len(set(sizes)) == 1
    assert sizes[0] < 200 * 200


def test_a_restored_stream_goes_on_bit_for_bit():
    data = vectors(90, 60, 0)
    one, other = Stream(60, 3, LIKE), Stream(60, 3, LIKE, seed=9)
    one.add(data[:50])
    held = {name: tensor.clone() for name, tensor in one.state().items()}
    one.add(data[50:])
    other.restore(held)
    other.add(data[50:])
    assert torch.equal(one.directions().components, other.directions().components)


@given(st.integers(0, 10_000), st.integers(2, 8), st.booleans())
def test_hard_collapse_leaves_nothing_along_the_basis(seed, count, mean):
    data = vectors(50, 12, seed)
    found = stream(data, count)
    left = collapse(found, "hard", mean=mean)(data)
    assert float((left @ found.components).abs().max()) < 1e-9
    if mean:
        assert float((left @ found.mean).abs().max()) < 1e-9
    again = collapse(found, "hard", mean=mean)(left)
    torch.testing.assert_close(again, left)


def test_the_published_order_leaves_a_residue_along_the_mean():
    data = vectors(50, 12, 0)
    found = stream(data, 4)
    left = collapse(found, "hard", sequential=True)(data)
    by_hand = data - torch.outer(data @ found.mean, found.mean)
    for column in found.components.T:
        by_hand = by_hand - torch.outer(by_hand @ column, column)
    torch.testing.assert_close(left, by_hand)
    assert float((left @ found.components).abs().max()) < 1e-9
    assert float((left @ found.mean).abs().max()) > 1e-3


@pytest.mark.parametrize(("kind", "power"), [("soft", 1), ("quadratic", 2)])
def test_soft_collapse_shrinks_by_the_singular_values(kind, power):
    data = vectors(50, 12, 0)
    found = stream(data, 5, centred=False)
    left = collapse(found, kind)(data)
    expected = (data @ found.components) * (found.values[-1] / found.values) ** power
    torch.testing.assert_close(left @ found.components, expected)
    rest = data - data @ found.components @ found.components.T
    torch.testing.assert_close(left - left @ found.components @ found.components.T, rest)
