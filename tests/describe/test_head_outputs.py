"""Copying and anti-copying, on heads whose output is exactly known."""

import numpy as np
import pytest
import torch

from describe.texts import batches, documents
from prosect.core.errors import BadInput, ShapeMismatch, TooLittleData
from prosect.core.records import Executable
from prosect.describe.head_outputs import CopyExplainer, HeadOutput, attended, circuit
from prosect.describe.roles import HeadRole
from prosect.store.shelf import Shelf

DOCS = documents(count=24, vocabulary=12, low=4, high=20)
INDUCTION = HeadRole("induction")


def measured(size, noise=0.0, role=INDUCTION, docs=DOCS):
    """A head that adds ``size`` times its attention to the logits, ablated."""
    found = CopyExplainer(role, 12)
    for i, batch in enumerate(batches(docs, size=6)):
        looked = role.attention(batch)
        change = -size * attended(batch, looked, 12)
        rng = np.random.default_rng(i)
        change += 3.0 * rng.standard_normal((len(change), 1)) + noise * rng.standard_normal(change.shape)
        found.update(batch, torch.from_numpy(looked), torch.from_numpy(change))
    return found.explain()


@pytest.mark.parametrize("size", [2.0, -0.7])
def test_copying_and_its_opposite_are_measured(size):
    explained = measured(size, noise=0.1)
    assert explained.found and explained.side == "effect"
    assert explained.words.startswith("raises" if size > 0 else "lowers")
    assert explained.explored["size"] == pytest.approx(size, abs=0.02)


def test_a_head_that_writes_nothing_is_said_to():
    found = [measured(0.0, noise=0.3).found]
    assert not any(found) and not measured(0.0).found


def test_the_predicted_change_is_the_planted_one(tmp_path):
    explained = measured(2.0)
    stored = Executable.model_validate_json(explained.executable.model_dump_json())
    output = HeadOutput.of(stored, Shelf(tmp_path))
    for batch in batches(DOCS):
        looked = attended(batch, INDUCTION.attention(batch), 12)
        expected = -2.0 * (looked - looked.mean(axis=1, keepdims=True))
        assert output.change(batch) == pytest.approx(expected, abs=1e-6)
        assert np.array_equal(output.change(batch), HeadOutput.of(stored, Shelf()).change(batch))


def test_attended_sums_over_every_occurrence():
    (batch,) = batches([[3, 5, 3]])
    weights = np.tril(np.ones((1, 3, 3))) / np.array([1, 2, 3])[:, None]
    got = attended(batch, weights, 6)
    assert got[2].tolist() == pytest.approx([0, 0, 0, 2 / 3, 0, 1 / 3])


def test_special_tokens_can_be_copied_and_do_not_copy():
    (batch,) = batches([[3, 5, 3]], special=1)
    weights = np.tril(np.ones((1, 3, 3))) / np.array([1, 2, 3])[:, None]
    got = attended(batch, weights, 6)
    assert got.shape == (batch.count, 6) == (2, 6) and got[0].tolist() == [0, 0, 0, 0.5, 0, 0.5]
    assert HeadOutput(INDUCTION, 1.0, 6).change(batch).shape == (2, 6)


def test_weights_alone_give_the_first_guess():
    rng = np.random.default_rng(0)
    noise = 0.1 * rng.standard_normal((12, 12))
    for sign in (1.0, -1.0):
        explained = circuit(INDUCTION, torch.from_numpy(sign * np.eye(12) + noise))
        assert explained.found and explained.explored["size"] == pytest.approx(sign * 11 / 12, abs=0.1)
    assert not circuit(INDUCTION, torch.from_numpy(noise)).found


def test_bad_input_is_refused():
    (batch,) = batches([[1, 2]])
    weights = torch.ones((1, 2, 2)).tril() / torch.tensor([[1.0], [2.0]])
    with pytest.raises(BadInput, match="one of 2 outputs"):
        CopyExplainer(INDUCTION, 2).update(batch, weights, torch.zeros(2, 2))
    with pytest.raises(ShapeMismatch):
        CopyExplainer(INDUCTION, 5).update(batch, weights, torch.zeros(2, 4))
    with pytest.raises(TooLittleData):
        CopyExplainer(INDUCTION, 5).explain()
    with pytest.raises(ShapeMismatch):
        circuit(INDUCTION, torch.zeros(3, 4))
    with pytest.raises(BadInput):
        HeadOutput(INDUCTION, float("nan"), 3)
