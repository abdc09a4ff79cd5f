"""Concepts that are linear both ways, one way, and neither, by construction."""

import numpy as np
import pytest
import torch

from decoders import opened, text
from prosect.core.errors import BadInput, NotFinite, ShapeMismatch, TooLittleData
from prosect.core.seeds import Seed
from prosect.decompose.evaluation.linear import dose_response, linearity, versions
from prosect.describe.dose import dose_curve


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=Seed(seed).child("test").torch(), dtype=torch.float64)


X, W = normal(1600, 6), normal(6, seed=1)
ALONG = X @ W
DOSES = [-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0]


def plant(name):
    match name:
        case "line":
            return linearity(X, ALONG > 0, lambda x: x @ W, Seed(0), hidden=64)
        case "saturating":
            return linearity(X, ALONG > 0, lambda x: torch.tanh(2 * (x @ W)), Seed(0), hidden=64)
        case "xor":
            return linearity(X, X[:, 0] * X[:, 1] > 0, lambda x: x[:, 0] * x[:, 1], Seed(0), hidden=128)
        case "circle":
            y = X[:, :2].norm(dim=1) < 1.18
            return linearity(X, y, lambda x: -x[:, :2].square().sum(dim=1), Seed(0), hidden=128)


def test_a_line_is_read_and_steered_linearly():
    found = plant("line")
    assert (found.read_linearly, found.steered.linear, found.linear) == (True, True, True)
    assert found.steered.line.estimate == pytest.approx(1)
    assert found.steered.gap.estimate == pytest.approx(0, abs=1e-9)
    assert found.steered.gap.high < 0.01
    assert found.steered.common.estimate == pytest.approx(1)
    below, above = X[::2][ALONG[::2] <= 0].mean(dim=0), X[::2][ALONG[::2] > 0].mean(dim=0)
    assert found.steered.slope == pytest.approx(float((above - below) @ W))


@pytest.mark.parametrize("name", ["xor", "circle"])
def test_what_is_no_direction_leaves_a_gap_in_reading(name):
    found = plant(name)
    assert found.read_linearly is False
    assert found.linear is False
    assert found.read.gap.low > 0.2


def test_what_saturates_is_read_linearly_and_steered_along_a_curve():
    found = plant("saturating")
    assert found.read_linearly is True
    assert found.steered.linear is False
    assert found.steered.gap.low > 0.05
    assert found.steered.curve.estimate > found.steered.line.estimate + 0.05


def test_shares_are_those_of_least_squares():
    """y = a s + b s² in every row: of the squared change a line explains (Σ s·y)² / Σ s² Σ y², the cubic all."""
    s = np.array(DOSES)
    a, b = np.array([1.0, 2.0, -1.0]), np.array([0.5, 0.0, 0.25])
    y = s[:, None] * a + s[:, None] ** 2 * b
    found = dose_response(DOSES, y + 7.0, Seed(0))
    line = ((s @ y) ** 2 / (s @ s)).sum() / (y**2).sum()
    assert found.line.estimate == pytest.approx(line)
    assert found.curve.estimate == pytest.approx(1)
    assert found.gap.estimate == pytest.approx(1 - line)
    one = y.mean(axis=1) @ s / (s @ s)
    assert found.slope == pytest.approx(one)
    assert found.common.estimate == pytest.approx(1 - ((y - one * s[:, None]) ** 2).sum() / (y**2).sum())


def test_a_dose_may_act_in_proportion_and_differently_in_each_row():
    own = np.linspace(-1, 1, 400)
    found = dose_response(DOSES, np.array(DOSES)[:, None] * own, Seed(0))
    assert found.linear
    assert found.common.estimate == pytest.approx(0)


def test_rows_of_one_document_count_once():
    y = np.tanh(np.array(DOSES))[:, None] * (1 + np.random.default_rng(0).random(400))
    assert dose_response(DOSES, y, Seed(0)).gap.n == 400
    assert dose_response(DOSES, y, Seed(0), units=np.arange(400) // 40).gap.n == 10


def test_the_versions_of_the_hypothesis():
    line, saturating, xor = (plant(name) for name in ("line", "saturating", "xor"))
    both = versions({"a": line, "b": line})
    assert (both.weak, both.strong, both.against) == (True, True, {})
    some = versions({"a": line, "b": saturating, "c": xor})
    assert (some.weak, some.strong) == (True, False)
    assert some.against["b"] == "steered"
    assert "read" in some.against["c"]
    none = versions({"b": saturating})
    assert (none.weak, none.strong) == (False, False)
    few = torch.arange(24)  # too few to tell
    unsure = linearity(X[few], ALONG[few] + normal(24, seed=5) > 0, lambda x: x @ W, Seed(0), hidden=16)
    assert unsure.read_linearly is None
    assert versions({"a": unsure}).strong is None
    with pytest.raises(TooLittleData):
        versions({})


def test_a_model_is_steered_in_proportion_where_nothing_bends():
    """After the last block of a decoder without norms there is only the unembedding; before the first are its ReLUs."""
    model, batch = opened("decoder"), text(rows=100)
    direction = normal(16, seed=2).float()
    found = {}
    for site in ("resid_post.1", "resid_pre.0"):
        curve = dose_curve(
            model, batch, site, 3 * direction, lambda out, rows: out[:, -1, 5], DOSES, controls=1
        )
        assert [d.strength for d in curve.doses] == DOSES
        found[site] = dose_response(DOSES, curve.per_row, Seed(0), batch.units)
    assert found["resid_post.1"].gap.estimate < 1e-6
    assert found["resid_post.1"].linear
    assert found["resid_pre.0"].gap.estimate > 1e-3
    line = np.array(DOSES)[:, None] * np.ones(6)
    assert dose_response(DOSES, line, Seed(0)).linear is None  # six documents do not tell


def test_impossible_questions_are_refused():
    y = np.ones((7, 5))
    with pytest.raises(BadInput, match="change nothing"):
        dose_response(DOSES, y, Seed(0))
    with pytest.raises(BadInput, match="0 among them"):
        dose_response([1.0, 2.0, 3.0, 4.0], y[:4], Seed(0))
    with pytest.raises(TooLittleData):
        dose_response([-1.0, 0.0, 1.0], y[:3], Seed(0))
    with pytest.raises(ShapeMismatch):
        dose_response(DOSES, y[:3], Seed(0))
    with pytest.raises(NotFinite):
        dose_response(DOSES, y * np.nan, Seed(0))
