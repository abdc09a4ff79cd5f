"""Steering effects as descriptions, against a decoder in which a direction's effect on logits is exact."""

import math

import numpy as np
import pytest
import torch

from decoders import opened, text
from prosect.core.errors import BadInput
from prosect.data.source import TableSource
from prosect.describe.steered import SteerEffect, log_probability
from prosect.model import steer
from prosect.store.shelf import Shelf

NOWHERE = TableSource(lambda part: {}, {}, "")
"""What is measured looks at the batch alone."""


def test_effects_are_those_of_steering_one_by_one():
    model, batch = opened("llama"), text(1, rows=5)
    draw = torch.Generator().manual_seed(0)
    wanted = [
        SteerEffect("resid_post.0", torch.randn(model.d_model, generator=draw), dose, token, sign)
        for dose, token, sign in ((1.0, 3, 1), (-2.0, 3, 1), (0.5, 7, -1))
    ]
    found = SteerEffect.measure(wanted, model, batch, NOWHERE)
    for w, row in zip(wanted, found, strict=True):
        metric = log_probability(w.token)
        changed = model.run(batch, edits=[steer(w.site, w.direction, w.strength)])
        expected = w.sign * (metric(changed.output, batch) - metric(model.run(batch).output, batch))
        assert row == pytest.approx(expected.numpy(), abs=1e-5)


def test_in_a_linear_network_the_rise_is_known():
    """At the last stream a direction v adds W v to the logits, so the log-probability changes by a closed form."""
    model, batch = opened("decoder"), text(1, rows=4)
    weight = model.module.lm_head.weight.detach().double()
    v = weight[7].clone()
    last = f"resid_post.{model.n_layers - 1}"
    (found,) = SteerEffect.measure([SteerEffect(last, v.float(), 0.5, 7)], model, batch, NOWHERE)
    logits = model.run(batch).output.double()
    after = (logits + 0.5 * (weight @ v)).log_softmax(-1)[..., 7] - logits.log_softmax(-1)[..., 7]
    mean = (after * batch.scored).sum(dim=1) / batch.scored.sum(dim=1)
    assert found == pytest.approx(mean.numpy(), abs=1e-4) and (found > 0).all()


def test_the_metric_is_a_mean_over_scored_positions():
    batch = text(2, rows=2)
    special = torch.zeros_like(batch.mask)
    special[0, 0] = True
    some = type(batch)(batch.tensors, batch.mask, batch.rows, special)
    logits = torch.randn(*batch.mask.shape, 5, generator=torch.Generator().manual_seed(1))
    by_hand = []
    for row, length in enumerate(batch.lengths):
        start = 1 if row == 0 else 0
        values = [math.log(torch.softmax(logits[row, p].double(), 0)[3]) for p in range(start, length)]
        by_hand.append(np.mean(values))
    assert log_probability(3)(logits, some).tolist() == pytest.approx(by_hand, abs=1e-5)


def test_it_comes_back_from_json_and_nonsense_is_refused():
    shelf = Shelf()
    one = SteerEffect("resid_post.0", torch.randn(6), -1.5, 4, -1)
    back = SteerEffect.of(one.executable(shelf), shelf)
    assert torch.equal(back.direction, one.direction)
    assert (back.site, back.strength, back.token, back.sign) == ("resid_post.0", -1.5, 4, -1)
    with pytest.raises(BadInput, match="strength"):
        SteerEffect("resid_post.0", torch.randn(6), 0.0, 4)
