"""Concepts that are linear leave no gap; an XOR and an arc do."""

import numpy as np
import pytest
import torch

from prosect.core.errors import BadInput, ShapeMismatch
from prosect.core.seeds import Seed
from prosect.decompose.evaluation.nonlinear import readout


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=Seed(seed).child("test").torch(), dtype=torch.float64)


X = normal(1600, 6)


def test_a_direction_leaves_no_gap():
    found = readout(X, X @ normal(6, seed=1) + 0.3 * normal(1600, seed=2) > 0.5, Seed(0))
    assert found.linear > 0.9
    assert found.gap.high < 0.03
    assert found.gap.estimate == pytest.approx(found.hidden - found.linear)


@pytest.mark.parametrize(
    "concept", [X[:, 0] * X[:, 1] > 0, X[:, :2].norm(dim=1) < 1.18], ids=["xor", "inside a circle"]
)
def test_what_is_no_direction_leaves_one(concept):
    found = readout(X, concept, Seed(0), hidden=128)
    assert found.linear < found.chance + 0.08
    assert found.hidden > 0.8
    assert found.gap.low > 0.2


def test_noise_leaves_none():
    found = readout(X, normal(1600, seed=9) > 0, Seed(0), hidden=64)
    assert found.gap.low <= 0 <= found.gap.high
    assert abs(found.linear - 0.5) < 0.08


def test_rows_of_one_document_count_once():
    y = X[:, 0] * X[:, 1] > 0
    found = readout(X, y, Seed(0), units=np.arange(1600) // 40, hidden=64)
    assert found.gap.n == 40
    assert readout(X, y, Seed(0), hidden=64).gap.n == 800


def test_impossible_questions_are_refused():
    with pytest.raises(BadInput):
        readout(X, torch.ones(1600, dtype=torch.bool), Seed(0))
    with pytest.raises(ShapeMismatch):
        readout(X, torch.ones(3, dtype=torch.bool), Seed(0))
