"""Averages over units are the statistics they claim to be, and differences are paired."""

import numpy as np
import pytest

from prosect.core.errors import TooLittleData
from prosect.core.intervals import Correlation
from prosect.core.seeds import Seed
from prosect.describe.averages import Averages, Wanted


def test_means_however_they_come_in():
    rng = np.random.default_rng(0)
    value, unit = rng.random(300), rng.integers(0, 40, 300)
    whole, parts = Averages(), Averages()
    whole.add("x", value, unit)
    for at in range(0, 300, 70):
        parts.add("x", value[at : at + 70], unit[at : at + 70])
    a = whole.measure({"x": Wanted(("x",))}, Seed(0))["x"]
    b = parts.measure({"x": Wanted(("x",))}, Seed(0))["x"]
    assert a.estimate == pytest.approx(value.mean())
    assert (b.low, b.high) == pytest.approx((a.low, a.high))
    assert a.low < a.estimate < a.high
    assert a.n == 40


def test_differences_are_paired():
    """Two quantities that vary much between units and differ by almost the same in each."""
    rng = np.random.default_rng(1)
    level, unit = 10 * rng.standard_normal(50), np.arange(50)
    sums = Averages()
    sums.add("a", level + 1.0 + 0.01 * rng.standard_normal(50), unit)
    sums.add("b", level, unit)
    found = sums.measure({"a": Wanted(("a",)), "less": Wanted(("a",), ("b",))}, Seed(0))
    assert found["a"].high - found["a"].low > 3
    assert found["less"].high - found["less"].low < 0.05
    assert found["less"].estimate == pytest.approx(1.0, abs=0.01)


def test_correlations_are_numpy_s():
    rng = np.random.default_rng(2)
    x = rng.standard_normal(200)
    y = 0.5 * x + rng.standard_normal(200)
    sums = Averages(Correlation())
    sums.add_pairs("r", x[:90], y[:90], np.arange(90))
    sums.add_pairs("r", x[90:], y[90:], np.arange(90, 200))
    found = sums.measure({"r": Wanted(("r",))}, Seed(0))["r"]
    assert found.estimate == pytest.approx(np.corrcoef(x, y)[0, 1])


def test_a_mean_of_several_quantities():
    sums = Averages()
    for name, level in (("a", 1.0), ("b", 3.0)):
        sums.add(name, np.full(10, level), np.arange(10))
    assert sums.measure({"both": Wanted(("a", "b"))}, Seed(0))["both"].estimate == pytest.approx(2.0)


def test_what_was_not_measured_has_no_estimate():
    sums = Averages()
    sums.add("x", np.ones(3), np.arange(3))
    sums.add("empty", np.ones(0), np.zeros(0, dtype=int))
    found = sums.measure({"empty": Wanted(("empty",)), "absent": Wanted(("absent",))}, Seed(0))
    assert found["empty"].estimate is None
    assert found["absent"].note == "nothing was measured"
    with pytest.raises(TooLittleData):
        Averages().measure({"x": Wanted(("x",))}, Seed(0))
