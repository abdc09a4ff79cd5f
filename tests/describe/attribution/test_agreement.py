"""A map's agreement with replacing, where both are known: sums in closed form, and a decoder edited token by token."""

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from nets_of_attribution import numbers, opened, tokens
from prosect.core.errors import BadInput, ShapeMismatch, UnknownName
from prosect.data.source import TableSource
from prosect.describe.attribution.agreement import MapAgreement, effects
from prosect.describe.attribution.asked import ask
from prosect.store.shelf import Shelf

NOWHERE = TableSource(lambda part: {}, {}, "")
"""What is measured looks at the batch alone."""


def total():
    """x · (5, −4, 3, 2, 1), ten rows, and three donors."""
    w = torch.tensor([5.0, -4.0, 3.0, 2.0, 1.0], dtype=torch.float64)
    model = opened(lambda p: p.double() @ w, 5)
    return model, model.batch(numbers(10, 5, dtype=torch.float32)), numbers(3, 5, 1, torch.float32), w


def test_in_a_sum_effects_and_agreement_are_known():
    model, batch, donors, w = total()
    x = batch.tensors["x"]
    known = ((w * (x[:, None] - donors)).square().mean(dim=1)).sqrt().numpy()
    asked = ask(batch, place="x")
    assert effects(asked.explicand(model), asked, donors) == pytest.approx(known, abs=1e-5)
    wanted = [MapAgreement(m, donors, "x") for m in ("saliency", "input-x-gradient", "input-size")]
    found = MapAgreement.measure(wanted, model, batch, NOWHERE)
    maps = [w.abs().expand(10, 5), w * (x - donors.mean(0)), (x - donors.mean(0)).abs()]
    for row, values in zip(found, maps, strict=True):
        known_ranks = [spearmanr(np.abs(v), e).statistic for v, e in zip(values.numpy(), known, strict=True)]
        assert row == pytest.approx(known_ranks, abs=1e-9)


def test_tokens_are_replaced_one_by_one_and_the_one_asked_about_is_not_shown():
    model, _ = tokens()
    batch = model.batch([[1, 2, 3, 4, 5], [6, 7, 8], [9, 1, 2, 2]])
    donors = torch.tensor([[3, 3, 5, 1], [8, 2, 7, 6]])
    asked = ask(batch, most=4)
    assert asked.kept.tolist() == [0, 2]  # two tokens have no order worth a number
    assert asked.targets.tolist() == [5, 2] and 5 not in asked.rows.tensors["input_ids"]
    found = effects(asked.explicand(model), asked, donors)
    for place, (row, after) in enumerate((([1, 2, 3, 4], 5), ([9, 1, 2], 2))):

        def logp(ids, after=after):
            return float(model.run(model.batch([ids])).output[0, -1].double().log_softmax(-1)[after])

        for i in range(len(row)):
            changed = [[*row[:i], int(d[i]), *row[i + 1 :]] for d in donors]
            known = np.sqrt(np.mean([(logp(c) - logp(row)) ** 2 for c in changed]))
            assert found[place, i] == pytest.approx(known, abs=1e-4)
    assert found[1, 3] == 0


def test_a_row_counts_the_same_in_any_batch_and_weights_come_back():
    model, _ = tokens()
    batch = model.batch([[1, 2, 3, 4, 5], [6, 7, 8, 1, 2], [9, 1, 2, 2]])
    donors = torch.tensor([[3, 3, 5, 1], [8, 2, 7, 6]])
    maps = ("integrated-gradients", "recency", "random-order")
    wanted = [*(MapAgreement(m, donors) for m in maps), MapAgreement("saliency", donors, weights=1)]
    before = model.digest
    whole = MapAgreement.measure(wanted, model, batch, NOWHERE)
    alone = MapAgreement.measure(wanted, model, batch.select([2]), NOWHERE)
    assert alone[:, 0] == pytest.approx(whole[:, 2], abs=1e-6)
    assert model.digest == before and np.isfinite(whole).all()
    (own,) = MapAgreement.measure([MapAgreement("saliency", donors)], model, batch, NOWHERE)
    assert not np.allclose(own, whole[3])  # the control is of other weights


def test_it_comes_back_from_json_and_nonsense_is_refused():
    shelf, donors = Shelf(), torch.tensor([[3, 3], [8, 2]])
    one = MapAgreement("saliency", donors, steps=3, weights=2)
    back = MapAgreement.of(one.executable(shelf), shelf)
    assert torch.equal(back.donors, donors) and (back.map, back.steps, back.weights) == ("saliency", 3, 2)
    with pytest.raises(UnknownName, match="gradcam"):
        MapAgreement("gradcam", donors)
    with pytest.raises(BadInput, match="1 donors"):
        MapAgreement("saliency", donors[:1])
    with pytest.raises(BadInput, match="numbers have no order"):
        MapAgreement("recency", donors, "x")
    model, batch, numeric, _ = total()
    with pytest.raises(ShapeMismatch, match="donors of shape"):
        MapAgreement.measure([MapAgreement("saliency", numeric[:, :3], "x")], model, batch, NOWHERE)
    with pytest.raises(BadInput, match="outputs from 0 to 0"):
        MapAgreement.measure([MapAgreement("saliency", numeric, "x", output=1)], model, batch, NOWHERE)
    with pytest.raises(BadInput, match="without input_ids"):
        ask(batch)
