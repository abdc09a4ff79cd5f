"""Probes over one site and several, against accuracies that have a closed form."""

import numpy as np
import pytest
import torch

from prosect.core.errors import ShapeMismatch, TooLittleData
from prosect.core.seeds import Seed
from prosect.describe.probes.layers import Rows, compare, told_by_words
from prosect.describe.probes.linear import LinearProbe, fit_probe

WIDTH, UNITS, EACH, WORDS = 6, 120, 40, 12


def rows(part, make, seed=0):
    """Rows of a part: ``make(draw)`` gives sites and labels; words are drawn apart from both unless it says."""
    draw = Seed(seed).child(part).numpy()
    n = UNITS * EACH
    x, y, *rest = make(draw, n)
    words = rest[0] if rest else draw.integers(0, WORDS, n)
    sites = {s: torch.from_numpy(v).float() for s, v in x.items()}
    return Rows(sites, y, words, np.repeat(np.arange(UNITS), EACH))


def both(make, seed=0):
    return compare(rows("fit", make, seed), rows("held", make, seed), WORDS, Seed(seed))


def halves(draw, n):
    """The concept is the sign of a sum whose terms are directions of two sites, equally large."""
    x = {s: draw.normal(size=(n, WIDTH)) for s in ("one", "two")}
    u = np.array([0.6, 0.8, 0, 0, 0, 0])
    return x, x["one"] @ u + x["two"] @ u[::-1] > 0


def test_a_concept_half_in_each_of_two_sites_needs_both():
    """Of a sum a + b of two normal terms, the sign of a alone tells the sign in 3/4 of all cases."""
    found = both(halves)
    for site in found.alone.values():
        assert site.accuracy.low < 0.75 < site.accuracy.high
        assert abs(site.accuracy.estimate - 0.75) < 0.02
    assert found.together.accuracy.estimate > 0.97
    assert found.gain.low > 0.2
    assert found.gain.estimate == pytest.approx(
        found.together.accuracy.estimate - found.alone[found.best].accuracy.estimate
    )


@pytest.mark.parametrize("share", [0.2, 0.6])
def test_accuracy_is_the_arc_that_is_told(share):
    """a + b with b of length tan(angle) of a: the sign of a is right in 1 − angle/π of all cases."""
    angle = share * np.pi / 2

    def make(draw, n):
        x = draw.normal(size=(n, WIDTH))
        other = draw.normal(size=n)
        return {"one": x}, np.cos(angle) * x[:, 0] + np.sin(angle) * other > 0

    found = both(make)
    assert found.alone["one"].accuracy.estimate == pytest.approx(1 - angle / np.pi, abs=0.02)
    assert found.alone["one"].accuracy == found.together.accuracy


def test_a_site_that_says_nothing_adds_nothing():
    def make(draw, n):
        x = draw.normal(size=(n, WIDTH))
        return {"one": x, "noise": draw.normal(size=(n, WIDTH))}, x[:, 0] + 0.5 * draw.normal(size=n) > 0

    found = both(make)
    assert found.best == "one"
    assert abs(found.gain.estimate) < 0.01 and found.gain.low <= 0
    assert found.alone["noise"].accuracy.low < 0.51


def words_alone(draw, n):
    """One number for each word, and a concept of the words: nothing else is there."""
    words = draw.integers(0, WORDS, n)
    return {"one": np.eye(WORDS)[words]}, words % 2 == 0, words


def beyond_words(draw, n):
    """A direction that has nothing to do with the words."""
    words = draw.integers(0, WORDS, n)
    extra = draw.normal(size=n)
    return {"one": np.concatenate([draw.normal(size=(n, WIDTH)), extra[:, None]], axis=1)}, extra > 0, words


def test_selectivity_is_zero_where_words_are_read_and_high_where_they_are_not():
    table = both(words_alone)
    assert table.alone["one"].accuracy.estimate == 1.0 == table.words.estimate
    assert table.alone["one"].control.estimate > 0.99
    assert abs(table.alone["one"].selectivity.estimate) < 0.01
    found = both(beyond_words)
    assert found.alone["one"].accuracy.estimate > 0.97
    assert found.words.estimate < 0.56
    assert found.alone["one"].selectivity.low > 0.3


def test_the_control_task_is_the_same_for_every_row_of_a_word():
    found = both(halves, seed=3)
    assert found.control_labels.shape == (WORDS,) and found.control_labels.dtype == bool
    again = both(halves, seed=3)
    assert (found.control_labels == again.control_labels).all()
    assert found.gain == again.gain


def test_intervals_are_over_units():
    assert both(halves).together.accuracy.n == UNITS


def test_a_concept_that_is_not_there_is_not_read():
    """Labels drawn anew: the interval of every accuracy holds one half."""

    def make(draw, n):
        return {"one": draw.normal(size=(n, WIDTH))}, draw.random(n) < 0.5

    found = both(make)
    assert found.alone["one"].accuracy.low < 0.5 < found.alone["one"].accuracy.high


def test_the_table_of_words_is_what_is_frequent():
    words = np.array([0, 0, 0, 1, 1, 2])
    y = np.array([True, True, False, False, False, True])
    assert told_by_words(y, words, 4).tolist() == [True, False, True, False]


def test_the_fit_is_a_librarys():
    """scikit-learn's pipeline of scaling and logistic regression at the penalty that was chosen."""
    from sklearn.linear_model import LogisticRegression

    made = rows("fit", beyond_words)
    probe = fit_probe(made.x, made.y, made.units, ["one"], Seed(0))
    x = made.x["one"].double().numpy()
    scaled = (x - x.mean(0)) / x.std(0, ddof=1)
    best = min(
        np.abs(
            LogisticRegression(C=1 / (r * len(x)), tol=1e-8).fit(scaled, made.y).coef_[0] / x.std(0, ddof=1)
            - probe.weights.numpy()
        ).max()
        for r in (0.003, 0.03, 0.3)
    )
    assert best < 1e-4


def test_a_number_that_never_changes_has_no_weight():
    made = rows("fit", lambda d, n: ({"one": np.c_[d.normal(size=n), np.full(n, 7.0)]}, d.random(n) < 0.5))
    probe = fit_probe(made.x, made.y, made.units, ["one"], Seed(0))
    assert probe.weights[1] == 0 and np.isfinite(probe.bias)


def test_what_cannot_be_asked_is_refused():
    made = rows("fit", halves)
    with pytest.raises(TooLittleData, match="nowhere"):
        fit_probe(made.x, np.zeros(len(made.y), bool), made.units, ["one"], Seed(0))
    with pytest.raises(TooLittleData, match="independent units"):
        fit_probe(made.x, made.y, np.zeros(len(made.y), int), ["one"], Seed(0))
    with pytest.raises(ShapeMismatch, match="labels"):
        Rows(made.x, made.y[:-1], made.words, made.units)
    with pytest.raises(ShapeMismatch, match="numbers from one"):
        LinearProbe(("one",), torch.zeros(3), 0.0).says({"one": torch.zeros(2, WIDTH)})
    with pytest.raises(TooLittleData, match="judge"):
        compare(made, made.some(made.units == 0), WORDS, Seed(0))
