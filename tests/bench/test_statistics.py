"""Means over few seeds: against scipy, by coverage, and by trying every sign."""

import itertools

import numpy as np
import pytest
from scipy.stats import ttest_1samp, ttest_ind

from prosect.bench.statistics import EXACT, over_seeds, paired
from prosect.core.seeds import Seed


def test_one_organism_is_students_interval():
    x = [0.3, 0.5, 0.4, 0.8]
    low, high = ttest_1samp(x, 0.0).confidence_interval(0.95)
    found = over_seeds({"a": x})
    assert (found.estimate, found.low, found.high) == pytest.approx((np.mean(x), low, high))


def test_two_organisms_are_welchs():
    # the mean of two means has the interval of half a difference, with one sample's sign turned
    a, b = [0.3, 0.5, 0.4, 0.8], [0.1, 0.9, 0.2]
    low, high = ttest_ind(a, [-v for v in b], equal_var=False).confidence_interval(0.95)
    found = over_seeds({"a": a, "b": b})
    assert (found.low, found.high) == pytest.approx((low / 2, high / 2))


def test_the_interval_holds_the_truth_as_often_as_it_says():
    rng, held = np.random.default_rng(0), 0
    for _ in range(1000):
        scores = {"a": rng.normal(0.2, 0.1, 3).tolist(), "b": rng.normal(0.6, 0.3, 3).tolist()}
        found = over_seeds(scores)
        held += found.low <= 0.4 <= found.high
    assert 0.94 <= held / 1000 <= 0.985


def test_bounds_agreement_and_single_seeds():
    assert over_seeds({"a": [0.9, 1.0, 1.0]}, 0.0, 1.0).high == 1.0
    agreed = over_seeds({"a": [1.0, 1.0], "b": [1.0, 1.0]}, 0.0, 1.0)
    assert agreed.method == EXACT and agreed.high == 1.0
    assert agreed.low == pytest.approx(1 - (1 - 0.025 ** (1 / 4)))
    assert over_seeds({"a": [0.5]}).low is None and over_seeds({}).estimate is None


def test_sign_flips_by_hand():
    ours, theirs = {"a": [0.9, 0.8, 0.7]}, {"a": [0.5, 0.5, 0.6]}
    d = np.array([0.4, 0.3, 0.1])
    every = [abs(d @ s) for s in itertools.product((1, -1), repeat=3)]
    found, p = paired(ours, theirs, Seed(0))
    assert found.estimate == pytest.approx(d.mean())
    assert p == pytest.approx(np.mean([v >= d.sum() - 1e-12 for v in every]))
    assert paired(ours, ours, Seed(0))[1] == 1.0


def test_many_pairs_are_flipped_at_random_and_p_is_right_under_the_null():
    small = 0
    for i in range(200):
        rng = np.random.default_rng(i)
        _, p = paired({"a": rng.normal(size=14).tolist()}, {"a": rng.normal(size=14).tolist()}, Seed(i))
        small += p <= 0.1
    assert 8 <= small <= 34
