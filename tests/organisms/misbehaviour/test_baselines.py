"""Scores that look from outside: areas as scikit-learn gives them, intervals that cover, planted differences found."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from prosect.core.errors import BadInput
from prosect.organisms.misbehaviour.baselines import (
    auroc,
    from_inputs,
    labelled,
    pair_novelty,
    pairs,
    place_novelty,
    places,
    word_novelty,
    words,
)


def test_the_area_is_scikit_learns_ties_included():
    rng = np.random.default_rng(0)
    labels = rng.random(200) < 0.4
    for scores in (rng.normal(size=200) + labels, rng.integers(3, size=200) + labels, np.zeros(200)):
        assert auroc(scores, labels).value == pytest.approx(roc_auc_score(labels, scores))


def test_the_interval_covers_the_true_area():
    rng = np.random.default_rng(1)
    truth = 0.7602499389065233  # of two normals one standard deviation apart: Φ(1 / √2)
    labels = np.arange(120) < 60
    found = [auroc(rng.normal(size=120) + labels, labels) for _ in range(400)]
    covered = np.mean([a.low <= truth <= a.high for a in found])
    assert 0.92 <= covered <= 0.985


def test_a_perfect_ranking_still_has_an_interval():
    labels = np.arange(40) < 20
    found = auroc(labels.astype(float), labels)
    assert found.value == found.high == 1.0 and 0.8 < found.low < 0.95
    assert auroc(-labels.astype(float), labels).low == 0.0


def test_one_sort_of_label_is_refused():
    with pytest.raises(BadInput, match="some of both"):
        auroc(np.arange(3.0), np.ones(3, dtype=bool))


def test_novelty_by_hand():
    trusted = np.array([[0, 1], [0, 1], [0, 2]])
    ids = np.array([[0, 1], [2, 1]])
    p = np.array([3.5, 2.5, 1.5]) / 7.5
    assert word_novelty(trusted, ids, 3) == pytest.approx([-np.log(p[0] * p[1]), -np.log(p[2] * p[1])])
    first, second = np.array([3.5, 0.5, 0.5]) / 4.5, np.array([0.5, 2.5, 1.5]) / 4.5
    expected = [-np.log(first[0] * second[1]), -np.log(first[2] * second[1])]
    assert place_novelty(trusted, ids, 3) == pytest.approx(expected)
    after = [2.5 / 4.5, 1 / 3]  # 1 after 0; 1 after 2, which had nothing after it
    assert pair_novelty(trusted, ids, 3) == pytest.approx(-np.log(after))


def test_a_labelled_regression_finds_what_its_columns_hold_and_nothing_else():
    rng = np.random.default_rng(2)
    ids = rng.integers(4, size=(3000, 5))
    cases = {
        "word": (ids == 3).sum(axis=1) > 1,
        "place": ids[:, 2] == 1,
        "neighbours": (ids[:, :-1] * 4 + ids[:, 1:] == 6).any(axis=1),
    }
    areas = {
        (case, f.__name__): auroc(labelled(f(ids[:2000], 4), on[:2000], f(ids[2000:], 4)), on[2000:]).value
        for case, on in cases.items()
        for f in (words, places, pairs)
    }
    assert areas["word", "words"] > 0.95 and areas["place", "places"] > 0.95
    assert areas["neighbours", "pairs"] > 0.95
    assert areas["neighbours", "words"] < 0.85 and areas["place", "words"] < 0.85


def test_a_trigger_in_plain_sight_is_told_by_every_score_from_inputs():
    rng = np.random.default_rng(3)
    trusted, train, test = (rng.integers(4, size=(600, 6)) for _ in range(3))
    known, truth = (np.arange(600) % 2 == 0 for _ in range(2))
    train[known, 3], test[truth, 3] = 4, 4
    found = from_inputs(trusted, train, known, test, truth, 5)
    assert len(found) == 6 and all(a.low > 0.95 for a in found.values())
