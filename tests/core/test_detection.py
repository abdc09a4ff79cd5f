"""Ranks by counting pairs, distances by SciPy and by hand, and what neither can be asked of."""

import numpy as np
import pytest
from scipy.spatial.distance import mahalanobis

from prosect.core.detection import distances, roc_area
from prosect.core.errors import BadInput, NotFinite, TooLittleData


def test_the_area_by_counting_pairs_ties_as_halves():
    rng = np.random.default_rng(1)
    label = rng.random(60) < 0.4
    for score in (rng.integers(0, 6, 60).astype(float), rng.normal(size=60) + label, np.zeros(60)):
        pairs = [(a > b) + 0.5 * (a == b) for a in score[label] for b in score[~label]]
        assert roc_area(score, label) == pytest.approx(np.mean(pairs))
        assert roc_area(-score, label) == pytest.approx(1 - np.mean(pairs))


def test_what_has_no_area():
    for label in (np.ones(3, dtype=bool), np.zeros(3, dtype=bool)):
        with pytest.raises(BadInput, match="some of both"):
            roc_area(np.arange(3.0), label)
    with pytest.raises(NotFinite, match="in scores"):
        roc_area(np.array([0.0, np.nan, 1.0]), np.array([True, False, True]))


def test_distances_are_scipys():
    rng = np.random.default_rng(0)
    trusted, rows = rng.normal(size=(200, 4)) @ rng.normal(size=(4, 4)), rng.normal(size=(5, 4))
    covariance = np.cov(trusted, rowvar=False, bias=True)
    for shrinkage in (0.0, 0.3, 1.0):
        shrunk = (1 - shrinkage) * covariance + shrinkage * np.trace(covariance) / 4 * np.eye(4)
        inverse = np.linalg.inv(shrunk)
        expected = [mahalanobis(row, trusted.mean(axis=0), inverse) ** 2 for row in rows]
        assert np.allclose(distances(trusted, rows, shrinkage), expected)


def test_a_direction_that_trusted_rows_never_use_is_far_and_finite():
    trusted = np.random.default_rng(1).normal(size=(100, 3)) * [1.0, 1.0, 0.0]
    far, near = distances(trusted, np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]), 1e-3)
    assert 100 * near < far < np.inf


def test_nothing_is_near_to_rows_without_a_difference():
    for trusted in (np.ones((5, 3)), np.arange(3.0)[None]):
        with pytest.raises(TooLittleData, match="rows that differ"):
            distances(trusted, np.zeros((2, 3)), 0.1)
    with pytest.raises(NotFinite):
        distances(np.eye(3), np.full((1, 3), np.inf), 0.1)
