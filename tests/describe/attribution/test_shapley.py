"""Shapley values against their definition, their axioms and the closed form of a linear function."""

from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nets_of_attribution import itself, last_logit, numbers, opened, perceptron, tokens
from prosect.core.errors import BadInput, UnknownName
from prosect.describe.attribution import Shapley, attribute


def second(output, batch):
    return output[:, 1]


def by_definition(function, x, background):
    """Mean marginal contribution over every order of the features, one row, nothing shared with the code."""
    d = len(x)

    def v(known):
        mixed = background.clone()
        mixed[:, list(known)] = x[list(known)]
        return float(function(mixed).double().mean())

    out, orders = np.zeros(d), list(permutations(range(d)))
    for order in orders:
        for at, i in enumerate(order):
            out[i] += v(order[: at + 1]) - v(order[:at])
    return out / len(orders)


def test_enumeration_is_the_mean_over_every_order():
    model, x, background = (
        perceptron(width=5),
        numbers(3, 5, dtype=torch.float32),
        numbers(4, 5, 1, torch.float32),
    )
    got = attribute(model, x, second, "shapley", background=background, sanity=None)
    with torch.no_grad():
        for row in range(3):
            expected = by_definition(lambda p: model.module(p)[:, 1], x[row], background)
            assert np.allclose(got.values[row], expected, atol=1e-6)
    assert got.errors is None and "exact for 3 of 3 rows" in got.notes


@pytest.mark.parametrize("how", ["exact", "permutation", "kernel"])
def test_values_add_up_to_f_minus_its_mean_over_the_background(how):
    model, x, background = perceptron(), numbers(4, 6, dtype=torch.float32), numbers(7, 6, 1, torch.float32)
    got = attribute(model, x, second, Shapley(how), background=background, sanity=None)
    with torch.no_grad():
        f, mean = model.module(x)[:, 1].double(), model.module(background)[:, 1].double().mean()
    assert np.allclose(got.values.sum(axis=1), (f - mean).numpy(), atol=1e-6)
    assert got.completeness.max() < 1e-9
    assert np.abs(got.values).max() > 0.1


@pytest.mark.parametrize("how", ["exact", "permutation", "kernel"])
def test_a_linear_function_gets_weight_times_distance_from_the_mean(how):
    w = torch.tensor([1.0, -2.0, 0.0, 0.5, 3.0], dtype=torch.float64)
    x, background = numbers(3, 5), numbers(9, 5, seed=1)
    model = opened(lambda p: p.double() @ w - 1.0, 5)
    got = attribute(model, x, itself, Shapley(how, pairs=40), background=background, sanity=None)
    assert np.allclose(got.values, (w * (x - background.mean(dim=0))).numpy(), atol=1e-9)
    if got.errors is not None:
        assert got.errors.max() < 1e-9  # every sample says the same


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000))
def test_axioms(seed):
    """Symmetric players get the same, dummies nothing, and a sum of games the sum of values."""
    c = numbers(1, 4, seed)[0]
    first = lambda p: torch.tanh(c[0] * (p[:, 0] + p[:, 1])) * (1 + p[:, 2].square())  # noqa: E731
    second = lambda p: torch.cos(c[1] * p[:, 2] + c[2] * p[:, 0] * p[:, 1])  # noqa: E731
    x = numbers(1, 4, seed + 1)
    x[:, 1] = x[:, 0]
    background = numbers(3, 4, seed + 2)
    background[:, 1] = background[:, 0]

    def values(function):
        return attribute(
            opened(function, 4), x, itself, "shapley", background=background, sanity=None
        ).values[0]

    a, b = values(first), values(second)
    # features 0 and 1 have the same values everywhere and enter alike
    assert a[0] == pytest.approx(a[1]) and b[0] == pytest.approx(b[1])
    assert a[3] == b[3] == 0.0
    assert np.allclose(values(lambda p: 2 * first(p) - second(p)), 2 * a - b)


def test_an_interaction_is_shared_equally():
    model = opened(lambda p: p[:, 0] * p[:, 1] * p[:, 2], 4)
    got = attribute(model, torch.full((1, 4), 2.0), itself, "shapley", baseline="zero", sanity=None)
    assert np.allclose(got.values, [[8 / 3, 8 / 3, 8 / 3, 0]])


@pytest.mark.parametrize("how", ["permutation", "kernel"])
def test_sampled_values_miss_the_exact_ones_by_as_much_as_they_say(how):
    model, x = perceptron(width=8), numbers(30, 8, dtype=torch.float32)
    run = {"baseline": "zero", "sanity": None}
    exact = attribute(model, x, second, "shapley", **run)
    got = attribute(model, x, second, Shapley(how, pairs=60), **run)
    z = (got.values - exact.values) / got.errors
    assert 0.8 < np.sqrt((z**2).mean()) < 1.25
    assert abs(z.mean()) < 0.25
    other = attribute(model, x, second, Shapley(how, pairs=60), seed=1, **run)
    assert not np.allclose(got.values, other.values)
    more = attribute(model, x, second, Shapley(how, pairs=600), **run)
    assert more.errors.mean() < 0.45 * got.errors.mean()


def test_more_than_twelve_features_are_sampled_and_groups_make_them_few():
    model, x = perceptron(width=14), numbers(2, 14, dtype=torch.float32)
    got = attribute(model, x, second, "shapley", baseline="zero", sanity=None)
    assert "permutation for 2 of 2 rows" in got.notes and (got.errors > 0).all()
    pairs = torch.arange(14) // 2
    few = attribute(model, x, second, "shapley", baseline="zero", groups=pairs, sanity=None)
    assert few.values.shape == (2, 7) and few.errors is None
    with pytest.raises(BadInput, match="14 features to enumerate"):
        attribute(model, x, second, Shapley("exact"), baseline="zero", sanity=None)


def test_padding_does_not_play():
    model, ids = tokens()
    whole = attribute(model, ids, last_logit, "shapley", baseline=0, sanity=None)
    alone = attribute(model, [ids[1]], last_logit, "shapley", baseline=0, sanity=None)
    assert np.allclose(whole.values[1, :3], alone.values[0], atol=1e-5)
    assert (whole.values[1, 3:] == 0).all()


def test_what_cannot_be_is_refused_in_words():
    with pytest.raises(UnknownName, match="tree"):
        Shapley("tree")
    with pytest.raises(BadInput, match="standard error"):
        Shapley("kernel", pairs=1)
    x = numbers(1, 9, dtype=torch.float32)
    with pytest.raises(BadInput, match="undetermined"):
        attribute(perceptron(width=9), x, second, Shapley("kernel", pairs=5), sanity=None)
