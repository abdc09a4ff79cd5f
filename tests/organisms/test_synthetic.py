"""Synthetic activations: what is drawn against what was asked for, in closed form."""

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal, norm

from prosect.core.errors import BadInput
from prosect.core.seeds import Seed
from prosect.organisms.synthetic import LARGE, SITE, World, plant

SMALL = World(features=120, width=24, trees=4, branching=2, depth=2, rank=3, loading=0.35, least=0.01)


def firing(stream):
    """(rows, features): what fires."""
    parts = []
    for _, indices, values in stream.labelled():
        on = torch.zeros(len(indices), stream.features)
        parts.append(on.scatter_add_(1, indices, (values > 0).float()))
    return torch.cat(parts).double().numpy()


@pytest.fixture(scope="module")
def drawn():
    planted = plant(SMALL, Seed(3))
    stream = planted.stream(60_000)
    return planted, stream, firing(stream)


def test_a_row_is_the_sum_of_what_fires():
    planted = plant(SMALL, Seed(1))
    for x, indices, values in planted.stream(9000).labelled():
        strengths = torch.zeros(len(indices), 120).scatter_add_(1, indices, values)
        assert (strengths @ planted.directions - x[SITE]).abs().max() < 1e-4
        assert strengths.min() >= 0
    assert torch.allclose(planted.directions.norm(dim=1), torch.ones(120))


def test_every_feature_fires_as_often_as_the_closed_form_says(drawn):
    planted, stream, on = drawn
    error = np.sqrt(planted.rates * (1 - planted.rates) / len(stream))
    assert np.abs((on.mean(axis=0) - planted.rates) / error).max() < 4.5
    assert on.sum(axis=1).mean() == pytest.approx(planted.active, rel=0.02)


def test_rates_follow_the_power_law_between_its_ends():
    flat = plant(World(features=200, width=8, trees=0, exponent=1.0))
    assert flat.rates[0] == pytest.approx(0.4)
    assert flat.rates[-1] == pytest.approx(5e-4)
    # rates are affine in 1 / rank
    rank = 1 / np.arange(1, 201)
    assert np.abs(np.polyval(np.polyfit(rank, flat.rates, 1), rank) - flat.rates).max() < 1e-12
    assert np.all(plant(World(features=9, width=4, trees=0, most=0.1, least=0.1)).rates == 0.1)


def test_the_large_world_is_about_as_sparse_as_the_published_one():
    planted = plant(LARGE)
    assert LARGE.in_trees == 128 * (1 + 4 + 16 + 64)
    assert 28 < planted.active < 34
    assert World().in_trees / World().features == pytest.approx(LARGE.in_trees / LARGE.features)


def test_children_fire_only_with_their_parent_and_alone(drawn):
    planted, _, on = drawn
    children = np.flatnonzero(planted.parents >= 0)
    assert len(children) == 4 * (2 + 4)
    assert np.all(on[:, children] <= on[:, planted.parents[children]])
    for parent in np.unique(planted.parents[children]):
        assert on[:, planted.parents == parent].sum(axis=1).max() == 1
    # each with the probability that is written down
    given = np.array([on[on[:, planted.parents[c]] > 0, c].mean() for c in children])
    n = on[:, planted.parents[children]].sum(axis=0)
    error = np.sqrt(planted.given[children] * (1 - planted.given[children]) / n)
    assert np.abs(given - planted.given[children]).max() < (4.5 * error.max())


def test_siblings_are_independent_where_they_may_be():
    free = plant(World(features=30, width=8, trees=6, branching=2, depth=1, exclusive=False, rank=0), Seed(2))
    on = firing(free.stream(40_000))
    for parent in range(6):
        a, b = np.flatnonzero(free.parents == parent)
        rows = on[on[:, parent] > 0]
        both = (rows[:, a] * rows[:, b]).mean()
        assert both == pytest.approx(free.given[a] * free.given[b], abs=4.5 * np.sqrt(0.25 / len(rows)))
        assert both > 0


def test_pairs_fire_together_as_the_copula_says(drawn):
    planted, stream, on = drawn
    free = planted.free
    correlation = planted.factors @ planted.factors.T
    bar = norm.isf(planted.rates[free])
    frequent = range(12)
    strong = 0
    for i in frequent:
        for j in range(i):
            r = correlation[i, j]
            expected = multivariate_normal([0, 0], [[1, r], [r, 1]]).cdf(-bar[[i, j]])
            error = np.sqrt(expected * (1 - expected) / len(stream))
            assert (on[:, free[i]] * on[:, free[j]]).mean() == pytest.approx(expected, abs=4.5 * error)
            strong += abs(expected - planted.rates[free[i]] * planted.rates[free[j]]) > 6 * error
    assert strong > 20  # most of these pairs are far from independent


def test_without_a_rank_all_roots_are_independent():
    planted = plant(World(features=12, width=4, trees=0, rank=0, least=0.1), Seed(5))
    on = firing(planted.stream(30_000))
    correlation = np.corrcoef(on.T) - np.eye(12)
    assert np.abs(correlation).max() < 5 / np.sqrt(len(on))


def test_rows_repeat_and_parts_share_nothing():
    planted = plant(SMALL, Seed(3))

    def rows(stream):
        return torch.cat([block[SITE] for block in stream.blocks()])

    a, again = planted.stream(10_000), plant(SMALL, Seed(3)).stream(10_000)
    assert torch.equal(rows(a), rows(again))
    assert a.digest == again.digest
    other = planted.stream(10_000, "validate.0")
    assert other.digest != a.digest
    assert not torch.equal(rows(other), rows(a))
    more = planted.stream(20_000)
    assert torch.equal(rows(more)[: a.block], rows(a)[: a.block])  # asking for more changes nothing before it
    mixed = planted.stream(20_000).shuffled(Seed(1), epochs=2)
    assert len(mixed) == 40_000
    assert mixed.digest != more.digest
    both = rows(mixed)
    assert torch.equal(both.sort(dim=0).values[::2], rows(more).sort(dim=0).values)


def test_noise_has_the_spread_that_was_asked_for():
    world = World(features=4, width=50, trees=0, rank=0, most=0.01, least=0.01, noise=0.3)
    planted = plant(world)
    quiet = torch.cat([x[SITE][(v > 0).sum(dim=1) == 0] for x, _, v in planted.stream(4000).labelled()])
    assert quiet.std().item() == pytest.approx(0.3, rel=0.01)


def test_the_truth_is_machine_readable():
    planted = plant(SMALL)
    truth = planted.truth()
    (features,) = truth.features
    assert features.site == SITE
    assert features.directions.shape == (120, 24)
    assert np.array_equal(features.frequency, planted.rates)
    assert truth.labels["parent"].shape == (120,)
    assert truth.quantities["active"] == pytest.approx(planted.active)


@pytest.mark.parametrize(
    "bad",
    [
        {"features": 0},
        {"most": 0.7},
        {"least": 0.0},
        {"trees": 100},
        {"exponent": 0.0},
        {"noise": -1.0},
        {"alone": 1.0},
        {"rank": -1},
    ],
)
def test_worlds_that_cannot_be_are_refused(bad):
    with pytest.raises(BadInput):
        World(**bad)


def test_streams_need_rows():
    with pytest.raises(BadInput):
        plant(SMALL).stream(0)


def test_parents_fire_alone_as_often_as_asked():
    planted = plant(World(features=100, width=8, trees=2, branching=3, depth=2, rank=0, alone=0.3), Seed(1))
    for parent in np.unique(planted.parents[planted.parents >= 0]):
        assert planted.given[planted.parents == parent].sum() <= 0.7 + 1e-12
    on = firing(planted.stream(30_000))
    root = on[on[:, 0] > 0]
    without = (root[:, planted.parents == 0].sum(axis=1) == 0).mean()
    expected = 1 - planted.given[planted.parents == 0].sum()
    assert without == pytest.approx(expected, abs=4.5 * np.sqrt(0.25 / len(root)))
