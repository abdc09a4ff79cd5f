"""Metrics that find their row, and curves of deletion against random orders."""

import numpy as np
import pytest
import torch

from nets_of_attribution import itself, numbers, opened, tokens
from prosect.core.errors import BadInput, ShapeMismatch
from prosect.core.seeds import Seed
from prosect.describe.attribution import attribute, by_row, deletion, logit


def test_logits_are_read_at_the_last_real_position_of_each_row():
    model, ids = tokens()
    batch = model.batch(ids)
    output = model.run(batch).output
    metric = logit([3, 4, 5], 7, batch=batch)
    expected = [
        float(output[row, len(r) - 1, 3 + row] - output[row, len(r) - 1, 7]) for row, r in enumerate(ids)
    ]
    assert metric(output, batch).tolist() == pytest.approx(expected)
    part = batch.select([2, 0, 2])  # rows in another order, and twice
    assert metric(output[[2, 0, 2]], part).tolist() == pytest.approx([expected[i] for i in (2, 0, 2)])
    logp = logit(3, position=1, scale="log-probability")(output, batch)
    assert logp.tolist() == pytest.approx(output[:, 1].log_softmax(dim=-1)[:, 3].tolist())
    got = attribute(model, ids, metric, "occlusion", baseline=0, sanity=None)
    assert np.allclose(got.output, expected, atol=1e-5)


def test_a_metric_that_cannot_find_its_row_is_refused():
    model, ids = tokens()
    batch = model.batch(ids)
    with pytest.raises(BadInput, match="without the rows"):
        logit([1, 2, 3])
    with pytest.raises(ShapeMismatch, match="2 values for 3 rows"):
        logit([1, 2], batch=batch)
    with pytest.raises(BadInput, match="told apart"):
        by_row(batch.select([0, 0]), [1, 2])
    with pytest.raises(BadInput, match="position 3"):
        logit(1, position=3)(model.run(batch).output, batch)


def test_tokens_are_labelled_where_there_is_a_tokenizer():
    class Tokenizer:
        def decode(self, ids):
            return f"<{ids[0]}>"

    model, ids = tokens()
    assert attribute(model, ids, logit(1), "occlusion", sanity=None).labels is None
    model.tokenizer = Tokenizer()
    labels = attribute(model, ids, logit(1), "occlusion", sanity=None).labels
    assert labels[0] == ("<1>", "<2>", "<3>", "<4>", "<5>")


def test_deletion_follows_the_map_and_is_exact_for_a_sum():
    w = torch.tensor([4.0, 3.0, 2.0, 1.0], dtype=torch.float64)
    model, x = opened(lambda p: p.double() @ w, 4), torch.ones(20, 4)
    true = attribute(model, x, itself, "occlusion", sanity=None)
    got = deletion(true, model, x, itself, shares=4)
    assert got.area.estimate == pytest.approx(np.mean([6, 3, 1, 0]))  # 4, then 3, then 2, then 1 taken away
    assert got.insertion.estimate == pytest.approx(np.mean([4, 7, 9, 10]))
    assert got.curve[0].tolist() == pytest.approx([6, 3, 1, 0])
    assert got.difference.high < 0 < got.insertion_difference.low
    assert got.random.estimate == pytest.approx(np.mean([7.5, 5, 2.5, 0]), abs=0.6)
    assert got.random.low < got.random.high and got.random.n == 20


def test_a_random_map_is_no_better_than_random_orders():
    model = opened(lambda p: torch.tanh(p).sum(dim=1) + p[:, 0] * p[:, 1], 6)
    x = numbers(40, 6)
    made = attribute(model, x, itself, "occlusion", sanity=None)
    object.__setattr__(made, "values", Seed(5).numpy().standard_normal(made.values.shape))
    got = deletion(made, model, x, itself, shares=6)
    assert got.difference.low < 0 < got.difference.high
    with pytest.raises(ShapeMismatch, match="as the map has"):
        deletion(made, model, x[:3], itself)
    with pytest.raises(BadInput, match="at least 1"):
        deletion(made, model, x, itself, orders=0)


def test_padding_is_not_deleted():
    model, ids = tokens()
    made = attribute(model, ids, logit(1), "occlusion", baseline=0, sanity=None)
    got = deletion(made, model, ids, logit(1), baseline=0, shares=1)
    zeros = model.batch([[0] * len(r) for r in ids])
    assert got.area.estimate == pytest.approx(
        float(logit(1)(model.run(zeros).output, zeros).mean()), abs=1e-5
    )
