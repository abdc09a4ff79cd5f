"""Geometry against frames whose numbers are known in closed form."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prosect.core.errors import BadInput, ShapeMismatch, TooLittleData
from prosect.core.seeds import Seed
from prosect.decompose.evaluation.circles import circles, dependence, mixture
from prosect.decompose.evaluation.geometry import (
    coherence,
    dimensionality,
    features_per_dimension,
    interference,
    welch_bound,
)
from prosect.decompose.evaluation.polysemantic import clusters_of, concepts_of


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=Seed(seed).child("test").torch(), dtype=torch.float64)


def polygon(n):
    angle = torch.arange(n, dtype=torch.float64) * (2 * math.pi / n)
    return torch.stack([angle.cos(), angle.sin()], dim=1)


GOLDEN = (1 + math.sqrt(5)) / 2
ICOSAHEDRON = torch.tensor(
    [[0, 1, GOLDEN], [0, 1, -GOLDEN], [1, GOLDEN, 0], [1, -GOLDEN, 0], [GOLDEN, 0, 1], [-GOLDEN, 0, 1]],
    dtype=torch.float64,
)
SIMPLEX = torch.eye(5, dtype=torch.float64) - 0.2


@pytest.mark.parametrize(
    ("frame", "width", "cosine"),
    [(polygon(3), 2, 1 / 2), (ICOSAHEDRON, 3, 1 / math.sqrt(5)), (SIMPLEX, 4, 1 / 4)],
)
def test_equiangular_frames_reach_the_welch_bound(frame, width, cosine):
    assert coherence(frame) == pytest.approx(cosine)
    assert welch_bound(len(frame), width) == pytest.approx(cosine)
    assert interference(frame).numpy() == pytest.approx(np.full(len(frame), len(frame) / width - 1))


@given(st.integers(2, 12), st.integers(1, 6), st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_nothing_falls_below_the_bounds(n, width, seed):
    x = normal(n, width, seed=seed)
    assert coherence(x) >= welch_bound(n, width) - 1e-9
    assert float(interference(x).mean()) >= n / width - 1 - 1e-9
    # the shares of dimensions never exceed the dimensions there are
    assert float(dimensionality(x).sum()) <= min(n, width) + 1e-9


def test_right_angles_interfere_with_nothing():
    assert coherence(torch.eye(4)) == 0
    assert interference(3 * torch.eye(4)).tolist() == [0, 0, 0, 0]
    assert welch_bound(4, 4) == welch_bound(3, 4) == 0


def test_shares_of_a_dimension():
    assert dimensionality(polygon(5)).numpy() == pytest.approx(np.full(5, 2 / 5))
    assert dimensionality(torch.tensor([[1.0], [-1.0]])).tolist() == [0.5, 0.5]
    assert dimensionality(torch.eye(3)).tolist() == [1, 1, 1]
    lone = dimensionality(torch.tensor([[1.0, 0.0], [0.0, 0.0]]))
    assert lone.tolist() == [1.0, 0.0]
    assert features_per_dimension(polygon(5)) == pytest.approx(2.5)


def test_random_directions_are_less_coherent_with_more_dimensions():
    # the largest of m = n(n-1)/2 cosines of random directions is about sqrt(2 ln m / width)
    for width in (64, 256):
        found = coherence(normal(100, width))
        assert found == pytest.approx(math.sqrt(2 * math.log(4950) / width), rel=0.25)


def test_geometry_refuses_what_has_no_direction():
    for bad in (torch.zeros(2, 3), torch.zeros(0, 3), torch.ones(1, 3)):
        with pytest.raises(BadInput):
            coherence(bad)
    with pytest.raises(BadInput):
        welch_bound(0, 2)


def ring(n, days=0, seed=0):
    g = Seed(seed).child("ring").torch()
    turn = torch.rand(n, generator=g, dtype=torch.float64) * 2 * math.pi
    if days:
        turn = torch.floor(turn / (2 * math.pi) * days) * (2 * math.pi / days)
    return torch.stack([turn.cos(), turn.sin()], dim=1)


def inside(plane, seed=0):
    """A plane in eight dimensions with a little noise."""
    basis = torch.linalg.qr(normal(8, 8, seed=seed + 9)).Q
    return plane @ basis[:2] + 0.05 * normal(len(plane), 8, seed=seed + 1) + 3


@pytest.mark.parametrize(
    "points", [ring(800), ring(800, days=7), ring(800, days=12)], ids=["ring", "7", "12"]
)
def test_a_circle_is_found(points):
    (first, *others) = circles(inside(points), Seed(1), components=3)
    assert first.circular
    assert first.components == (0, 1)
    assert first.radius < 0.2
    assert not any(plane.circular for plane in others)


def signs(n, seed):
    return torch.sign(normal(n, seed=seed))


@pytest.mark.parametrize(
    "points",
    [
        normal(800, 2, seed=5),
        torch.stack([signs(800, 1), signs(800, 2)], dim=1),  # two independent features that are on or off
        normal(800, 2, seed=6) * torch.tensor([3.0, 1.0]),
        torch.eye(2, dtype=torch.float64)[(normal(800, seed=3) > 0).long()] * normal(800, 1, seed=4).abs(),
    ],
    ids=["Gaussian", "product", "elongated", "exclusive"],
)
def test_what_two_directions_explain_is_no_circle(points):
    assert not any(plane.circular for plane in circles(inside(points), Seed(1), components=3))


def test_gaussian_points_are_called_circles_as_rarely_as_promised():
    found = sum(
        any(p.circular for p in circles(normal(300, 4, seed=s), Seed(s), components=2, draws=39))
        for s in range(60)
    )
    assert found <= 6  # three are expected at most


def test_indices_in_closed_form():
    rows = np.random.default_rng(0).standard_normal((20000, 2))
    assert mixture(rows) == pytest.approx(0.0797, abs=0.01)  # P(|z| < .1)
    assert dependence(rows)[0] < 0.005
    assert mixture(np.stack([np.zeros(100), np.arange(100.0)], axis=1)) == 1.0
    assert dependence(ring(20000).numpy())[0] > 0.3


def test_circles_need_points():
    with pytest.raises(TooLittleData):
        circles(normal(50, 3), Seed(0))
    with pytest.raises(BadInput):
        circles(normal(200, 1), Seed(0))
    with pytest.raises(BadInput):
        circles(normal(200, 5), Seed(0), draws=20)


def sparse(n, features, rate=0.05, seed=0):
    g = Seed(seed).child("sparse").torch()
    return (torch.rand(n, features, generator=g, dtype=torch.float64) < rate).double()


def test_a_neuron_of_its_own_has_one_concept_and_a_pentagon_three_and_a_third():
    s = sparse(40_000, 5)
    assert concepts_of(s, s).numpy() == pytest.approx(np.ones(5), abs=0.01)
    # of a pentagon's directions a neuron sees cos²: (Σ cos²)² / Σ cos⁴ = 2.5² / 1.875
    assert concepts_of(s @ polygon(5), s).numpy() == pytest.approx(np.full(2, 2.5**2 / 1.875), rel=0.05)


def test_many_concepts_are_not_seen_by_chance():
    s = sparse(3000, 200)
    assert float(concepts_of(s, s).max()) < 1.1
    assert concepts_of(normal(3000, 3), s).max() <= 2.5
    assert concepts_of(torch.zeros(3000, 1), s).tolist() == [0.0]
    with pytest.raises(ShapeMismatch):
        concepts_of(s[:10], s)


@pytest.mark.parametrize("k", [1, 2, 4])
def test_clusters_among_what_activates_a_neuron_are_counted(k):
    centres = 8 * torch.linalg.qr(normal(6, 6)).Q[:k]
    x = centres[torch.arange(240) % k] + normal(240, 6, seed=2)
    assert clusters_of(x, Seed(0), most=5, draws=5) == k


def test_clusters_need_positions():
    with pytest.raises(TooLittleData):
        clusters_of(normal(20, 2), Seed(0))
