"""The plain account of units with two inputs."""

import itertools

import numpy as np
import pytest
import torch

from prosect.core.errors import BadInput, ShapeMismatch
from prosect.core.records import Executable
from prosect.data.batch import Batch, Row
from prosect.describe.polynomial import Polynomial
from prosect.store.shelf import Shelf

PAIRS = np.array(list(itertools.product(range(7), repeat=2)))


def batch(pairs=PAIRS):
    return Batch({"pairs": torch.from_numpy(pairs)}, None, tuple(Row(i) for i in range(len(pairs))))


def test_a_polynomial_is_recovered_and_comes_back():
    a, b = PAIRS.T.astype(float)
    found = Polynomial.fit(PAIRS, 0.5 - 2.0 * a + b + 0.25 * a * b)
    assert found.coefficients == pytest.approx((0.5, -2.0, 1.0, 0.25))
    again = Polynomial.of(Executable.model_validate_json(found.executable().model_dump_json()), Shelf())
    assert np.array_equal(again.activation(batch()), found.activation(batch()))


def test_no_other_coefficients_fit_better():
    rng = np.random.default_rng(0)
    y = rng.standard_normal(len(PAIRS))
    left = ((Polynomial.fit(PAIRS, y).activation(batch()) - y) ** 2).sum()
    for _ in range(20):
        moved = np.array(Polynomial.fit(PAIRS, y).coefficients) + 0.01 * rng.standard_normal(4)
        assert ((Polynomial(tuple(moved.tolist())).activation(batch()) - y) ** 2).sum() >= left


def test_bad_input_is_refused():
    with pytest.raises(BadInput, match="four"):
        Polynomial((1.0, 2.0))
    with pytest.raises(ShapeMismatch):
        Polynomial.fit(PAIRS, np.zeros(3))
    with pytest.raises(BadInput, match="pairs"):
        Polynomial((0.0, 0.0, 0.0, 0.0), "s").activation(batch())
