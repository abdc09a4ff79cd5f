"""Numbers keep their value when they become words."""

import math
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prosect.core.proportions import share
from prosect.core.records import Measured
from prosect.report.words import chance, count, estimate, number, percent, plural, share_words, short

calm = settings(deadline=None)  # a busy machine is no failure
DIGITS = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹−", "-0123456789-")


def value_of(words):
    return float(words.translate(DIGITS).replace(",", "").replace("·10", "e"))


@calm
@given(st.floats(allow_nan=False, allow_infinity=False, min_value=-1e30, max_value=1e30))
def test_a_number_in_words_is_that_number_to_two_digits(x):
    words = number(x)
    assert "-" not in words and len(words) <= 12
    if abs(x) > 1e-300:
        assert value_of(words) == pytest.approx(x, rel=0.051)


@calm
@given(st.floats(1e-12, 1.0))
def test_a_p_value_is_never_rounded_to_nothing(p):
    assert value_of(chance(p)) == pytest.approx(p, rel=0.06, abs=0.005 if p > 0.1 else 0)


@calm
@given(st.floats(-1e3, 1e3), st.floats(1e-4, 1e3), st.floats(0, 1))
def test_estimate_and_ends_have_the_same_decimals(low, width, at):
    m = Measured(estimate=low + at * width, low=low, high=low + width, n=9)
    found = re.fullmatch(r"(−?[\d,]+(?:\.\d+)?) \[(−?[\d,]+(?:\.\d+)?), (−?[\d,]+(?:\.\d+)?)\]", estimate(m))
    parts = found.groups()
    assert len({len(p.partition(".")[2]) for p in parts}) == 1
    values = [value_of(p) for p in parts]
    assert values[1] <= values[0] <= values[2]
    assert values[1] == pytest.approx(low, abs=width / 10 + 1e-9)


def test_what_is_missing_is_said():
    assert estimate(None) == "not measured"
    assert estimate(Measured(estimate=None, note="one unit")) == "one unit"
    assert estimate(Measured(estimate=0.5, n=1)) == "0.50"
    assert estimate(Measured(estimate=0.5, low=0.2, n=1)) == "0.50 [0.20, ∞]"
    assert number(math.nan) == "not finite" and number(None) == "–" and number(True) == "yes"


def test_shares():
    assert share_words(share(61, 256)) == "24 %, interval 19 to 30"
    assert share_words(share(0, 120)) == "0 %, interval 0 to 3"
    assert share_words(share(0, 0)) == "nothing to count"
    assert percent(0.004) == "0.4" and percent(0.996) == "99.6" and percent(1.0) == "100"


def test_counting():
    assert count(1, "claim") == "1 claim" and count(2048, "claim") == "2,048 claims"
    assert plural("cluster of near-duplicate files") == "clusters of near-duplicate files"
    assert short(0.1) == "0.1" and short(-0.05) == "−0.05"
