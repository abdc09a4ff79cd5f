"""Corrections for many tests and exact shares, against their definitions and SciPy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from prosect.core.families import benjamini_hochberg, draws_needed, holm
from prosect.core.proportions import clopper_pearson, rank_p, share

PS = st.lists(st.floats(0, 1), min_size=1, max_size=30)


@given(PS, st.floats(0.001, 0.2))
def test_holm_rejects_what_stepping_down_rejects(ps, alpha):
    order = np.argsort(ps, kind="stable")
    rejected = set()
    for i, index in enumerate(order):
        if ps[index] > alpha / (len(ps) - i):
            break
        rejected.add(int(index))
    adjusted = holm(ps)
    assert {i for i in range(len(ps)) if adjusted[i] <= alpha * (1 - 1e-12)} <= rejected
    assert rejected <= {i for i in range(len(ps)) if adjusted[i] <= alpha * (1 + 1e-9)}


@given(PS)
def test_benjamini_hochberg_is_scipys(ps):
    assert benjamini_hochberg(ps) == pytest.approx(stats.false_discovery_control(ps, method="bh"))


@given(PS, st.integers(0, 40))
def test_tests_that_were_registered_and_not_run_count(ps, extra):
    padded = holm([*ps, *([1.0] * extra)])[: len(ps)]
    assert holm(ps, len(ps) + extra) == pytest.approx(padded)
    padded_q = benjamini_hochberg([*ps, *([1.0] * extra)])[: len(ps)]
    assert benjamini_hochberg(ps, len(ps) + extra) == pytest.approx(padded_q)


def test_no_tests_are_no_trouble():
    assert len(holm([])) == 0
    assert len(benjamini_hochberg([])) == 0


@given(st.integers(1, 400), st.floats(0.001, 0.1))
def test_enough_draws_reach_the_corrected_threshold(tests, alpha):
    assert 1 / (draws_needed(tests, alpha) + 1) < alpha / tests


@given(st.integers(0, 60), st.integers(0, 60))
def test_clopper_pearson_is_scipys(successes, failures):
    trials = successes + failures
    low, high = clopper_pearson(successes, trials)
    if trials == 0:
        assert (low, high) == (0.0, 1.0)
        return
    exact = stats.binomtest(successes, trials).proportion_ci(0.95, method="exact")
    assert (low, high) == pytest.approx((exact.low, exact.high), abs=1e-9)


def test_a_share_of_nothing_is_unknown():
    assert share(0, 0).estimate is None
    assert share(3, 4).estimate == 0.75


def test_rank_p_is_uniform_among_equals():
    rng = np.random.default_rng(0)
    ps = [rank_p(rng.normal(), rng.normal(size=99)) for _ in range(500)]
    assert stats.kstest(ps, "uniform").pvalue > 1e-3
    assert rank_p(5.0, np.zeros(99)) == 0.01
