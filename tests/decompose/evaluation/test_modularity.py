"""Modularity of layered networks: against hand-made ones, what rewiring keeps, and two tasks that were kept apart."""

import numpy as np
import pytest

from prosect.core.errors import BadInput, ShapeMismatch, TooLittleData
from prosect.core.seeds import Seed
from prosect.decompose.evaluation.modularity import modularity, rewired, strongest
from prosect.organisms.intrinsic import placed


def halves(rng, n=8):
    """Two networks side by side, nothing between them."""
    mask = np.kron(np.eye(2), np.ones((n // 2, n // 2)))
    return [mask * rng.uniform(0.5, 1.5, (n, n)) * (rng.random((n, n)) < 0.8) for _ in range(2)]


def test_two_networks_side_by_side_have_the_q_of_two_halves():
    weights = [np.kron(np.eye(2), np.ones((3, 3)))] * 2
    found = modularity(weights, Seed(0), draws=20)
    assert found.q == pytest.approx(0.5)  # 1 minus the sum of squared shares
    assert {len(c) for c in found.communities} == {9}
    assert found.p == pytest.approx(1 / 21) and found.excess > 0.1


def test_given_groups_are_as_newman_defines_it():
    rng = Seed(1).numpy()
    w = np.abs(rng.standard_normal((4, 5)))
    groups = [np.array([0, 0, 1, 1, 1]), np.array([0, 1, 1, 0])]
    same = groups[1][:, None] == groups[0]
    label = np.concatenate(groups)
    strength = np.concatenate([w.sum(axis=0), w.sum(axis=1)])
    share = [strength[label == g].sum() / (2 * w.sum()) for g in (0, 1)]
    expected = w[same].sum() / w.sum() - np.square(share).sum()
    found = modularity([w], Seed(0), groups=groups, draws=1)
    assert found.q == pytest.approx(expected)


def test_rewiring_keeps_degrees_and_weights_and_forgets_the_rest():
    w = halves(Seed(2).numpy())[0]
    other = rewired(w, Seed(3))
    assert np.array_equal((w > 0).sum(axis=0), (other > 0).sum(axis=0))
    assert np.array_equal((w > 0).sum(axis=1), (other > 0).sum(axis=1))
    assert np.array_equal(np.sort(w[w > 0]), np.sort(other[other > 0]))
    assert ((other > 0) & (np.kron(np.eye(2), np.ones((4, 4))) == 0)).sum() > 0.25 * (w > 0).sum()
    assert np.array_equal(other, rewired(w, Seed(3)))


def test_random_networks_are_no_more_modular_than_rewired_ones():
    rng = Seed(4).numpy()
    p = [
        modularity([(rng.random((8, 8)) < 0.4) * rng.random((8, 8)) for _ in range(2)], Seed(i), draws=19).p
        for i in range(20)
    ]
    assert np.mean(np.array(p) <= 0.05) <= 0.2 and np.mean(p) > 0.3


def test_two_tasks_are_separate_where_connections_were_short_and_less_so_in_the_twin():
    edges = int(placed.network(0)[1].quantities["edges"])
    found = {}
    for near in (True, False):
        module = placed.trained(near, 0)
        weights = [w.detach().double().numpy() for w in module.matrices()]
        found[near] = modularity(weights, Seed(0), edges=edges, groups=placed.sides(module, 0), draws=39)
    assert found[True].q > 0.42 and found[True].p <= 1 / 39
    assert abs(found[True].null.mean()) < 0.1
    assert found[True].q > found[False].q + 0.05


def test_bad_input_is_named():
    with pytest.raises(ShapeMismatch, match="reads 5"):
        modularity([np.ones((4, 3)), np.ones((2, 5))], Seed(0))
    with pytest.raises(ShapeMismatch, match="inputs first"):
        modularity([np.ones((2, 3))], Seed(0), groups=[np.zeros(2, dtype=int)] * 2)
    with pytest.raises(TooLittleData):
        modularity([np.zeros((2, 3))], Seed(0))
    with pytest.raises(BadInput, match="1 to 6"):
        strongest([np.ones((2, 3))], 7)
