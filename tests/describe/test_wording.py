"""Tokens as people read them."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prosect.describe.wording import LONGEST_TOKEN, listing, quoted, significant, visible


@given(st.text(max_size=30))
def test_nothing_invisible_is_left(text):
    shown = visible(text)
    assert all(unicodedata.category(c)[0] not in "CZ" for c in shown)
    assert "\n" not in shown


@given(st.text(max_size=12), st.text(max_size=12))
def test_different_tokens_look_different(a, b):
    assert (visible(a) == visible(b)) == (a == b)


def test_signs_are_used_and_escaped():
    assert visible(" a\tb\n") == "·a→b⏎"
    assert visible("·") == "\\u00b7"
    assert visible("\u202eevil") == "\\u202eevil"
    assert quoted("`") == "`\\``"
    assert quoted("") == "the empty token"
    assert len(quoted("x" * 100)) == LONGEST_TOKEN + 2


def test_lists_are_cut_and_counted():
    assert listing(["a"], 3) == "`a`"
    assert listing(["a", "b", "c"], 3) == "`a`, `b` or `c`"
    assert listing(list("abcdefghijkl"), 3) == "`a`, `b`, `c` and 9 more"


@pytest.mark.parametrize("value", [0.0, 1.5, -1234567.89, 1e-300])
def test_significant_digits(value):
    assert significant(value) == pytest.approx(value, rel=1e-5)
