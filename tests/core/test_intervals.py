"""The statistics every verdict rests on, against NumPy, SciPy, finite differences and simulation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from prosect.core.errors import NotFinite, ShapeMismatch
from prosect.core.intervals import EXACT, Correlation, Mean, Resamples, moments
from prosect.core.seeds import Seed


def _data(seed: int, units: int = 40, per: int = 30):
    rng = np.random.default_rng(seed)
    unit = np.repeat(np.arange(units), per)
    x = rng.gamma(2.0, size=units * per) + rng.normal(size=units)[unit]
    y = 0.6 * x + rng.normal(size=units * per)
    return x, y, unit, units


def test_correlation_is_numpys():
    x, y, unit, units = _data(0)
    sums = moments(x, y, unit, units).sum(axis=0)
    assert Correlation().value(sums) == pytest.approx(np.corrcoef(x, y)[0, 1], abs=1e-12)


@pytest.mark.parametrize("statistic", [Correlation(), Mean()])
def test_gradients_are_the_finite_differences(statistic):
    x, y, unit, units = _data(1)
    sums = moments(x, y, unit, units).sum(axis=0)
    sums = sums if statistic.k == 6 else sums[:2]
    gradient = statistic.gradient(sums)
    for k in range(statistic.k):
        step = np.zeros(statistic.k)
        step[k] = 1e-5 * abs(sums[k])
        numeric = (statistic.value(sums + step) - statistic.value(sums - step)) / (2 * step[k])
        assert gradient[k] == pytest.approx(numeric, rel=1e-4, abs=1e-9)


def test_a_constant_correlates_with_nothing():
    x, _, unit, units = _data(2)
    sums = moments(x, np.full_like(x, 3.0), unit, units)
    assert Correlation().value(sums.sum(axis=0)) == 0.0
    assert np.all(Correlation().gradient(sums.sum(axis=0)) == 0.0)


def test_the_interval_of_a_normal_mean_is_students():
    values = np.random.default_rng(3).normal(5.0, 2.0, size=60)
    sums = np.stack([np.ones(60), values], axis=1)
    found = Resamples(60, 20_000, Seed(0)).measure([sums], Mean()).measured
    low, high = stats.t.interval(0.95, 59, loc=values.mean(), scale=values.std(ddof=1) / np.sqrt(60))
    assert found.estimate == pytest.approx(values.mean())
    assert found.low == pytest.approx(low, abs=0.12 * (high - low))
    assert found.high == pytest.approx(high, abs=0.12 * (high - low))


def test_p_values_of_a_true_null_are_uniform():
    rng = np.random.default_rng(4)
    ps = []
    for i in range(400):
        sums = np.stack([np.ones(50), rng.normal(1.0, 1.0, size=50)], axis=1)
        ps.append(Resamples(50, 199, Seed(i)).measure([sums], Mean(), margin=1.0).p)
    assert stats.kstest(ps, "uniform").pvalue > 1e-3


def test_intervals_of_skewed_clusters_cover():
    """Exponential cluster totals, 40 of them: percentile intervals cover about .91 here, these .95."""
    rng = np.random.default_rng(5)
    hits = 0
    for i in range(400):
        counts = rng.integers(5, 60, size=40).astype(float)
        totals = counts * rng.exponential(1.0, size=40)
        found = Resamples(40, 799, Seed(i)).measure([np.stack([counts, totals], axis=1)], Mean()).measured
        hits += found.low <= 1.0 <= found.high
    assert 0.915 <= hits / 400 <= 0.98  # .95 ± 3 standard errors of 400 tries, and what skewness costs


def test_pairing_makes_a_difference_sharper_than_its_parts():
    x, y, unit, units = _data(6)
    rng = np.random.default_rng(7)
    near = moments(x, y + 0.01 * rng.normal(size=len(y)), unit, units)
    own = moments(x, y, unit, units)
    draws = Resamples(units, 2000, Seed(1))
    alone = draws.measure([own], Correlation()).measured
    gap = draws.measure([own, near], Correlation(), weights=[1.0, -1.0]).measured
    assert (gap.high - gap.low) < 0.1 * (alone.high - alone.low)
    assert gap.low <= gap.estimate <= gap.high


def test_units_that_all_agree_get_an_honest_interval():
    sums = np.stack([np.ones(30), np.ones(30)], axis=1)
    result = Resamples(30, 999, Seed(0)).measure([sums], Mean(low=0.0, high=1.0), margin=0.5)
    assert result.measured.method == EXACT
    assert result.measured.low == pytest.approx(0.025 ** (1 / 30))
    assert result.measured.high == 1.0
    assert result.p == pytest.approx(1 / 1000)
    losing = Resamples(30, 999, Seed(0)).measure([sums * [1, 0]], Mean(low=0.0, high=1.0), margin=0.5)
    assert losing.p == 1.0


def test_many_units_are_grouped_without_moving_the_estimate():
    values = np.random.default_rng(8).exponential(size=5000)
    sums = np.stack([np.ones(5000), values], axis=1)
    found = Resamples(5000, 999, Seed(0)).measure([sums], Mean()).measured
    error = values.std() / np.sqrt(5000)
    assert found.estimate == pytest.approx(values.mean())
    assert found.n == 5000
    assert (found.high - found.low) == pytest.approx(2 * 1.96 * error, rel=0.15)


def test_one_unit_gives_no_interval():
    found = Resamples(1, 99, Seed(0)).measure([np.array([[3.0, 6.0]])], Mean())
    assert found.measured.estimate == 2.0
    assert found.measured.low is None
    assert found.p is None


def test_bad_sums_are_refused():
    draws = Resamples(5, 99, Seed(0))
    with pytest.raises(ShapeMismatch, match=r"\(5, 2\)"):
        draws.measure([np.zeros((4, 2))], Mean())
    with pytest.raises(NotFinite):
        draws.measure([np.full((5, 2), np.nan)], Mean())
    with pytest.raises(ShapeMismatch, match="one weight"):
        draws.measure([np.zeros((5, 2))], Mean(), weights=[1.0, -1.0])


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), scale=st.floats(0.01, 100), shift=st.floats(-5, 5))
def test_a_correlation_ignores_units_of_measurement(seed, scale, shift):
    x, y, unit, units = _data(seed, units=12, per=10)
    draws = Resamples(units, 99, Seed(seed))
    one = draws.measure([moments(x, y, unit, units)], Correlation()).measured
    two = draws.measure([moments(scale * x + shift, y, unit, units)], Correlation()).measured
    assert one.estimate == pytest.approx(two.estimate, abs=1e-6)
    assert one.low == pytest.approx(two.low, abs=1e-3)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000))
def test_the_order_of_units_does_not_matter_to_the_estimate_and_seed_fixes_the_rest(seed):
    x, y, unit, units = _data(seed, units=15, per=8)
    sums = moments(x, y, unit, units)
    a = Resamples(units, 199, Seed(seed)).measure([sums], Correlation())
    b = Resamples(units, 199, Seed(seed)).measure([sums], Correlation())
    c = Resamples(units, 199, Seed(seed)).measure([sums[::-1]], Correlation())
    assert a == b
    assert a.measured.estimate == pytest.approx(c.measured.estimate)
