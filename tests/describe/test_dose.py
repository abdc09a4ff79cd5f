"""Dose curves: closed forms where the effect is linear and where it saturates, and the control beside them."""

import math

import numpy as np
import pytest
import torch

from decoders import opened, text
from prosect.core.errors import BadInput, NotFinite, ShapeMismatch, UnknownName, Unsupported
from prosect.core.seeds import Seed
from prosect.describe.dose import dose_curve
from prosect.describe.linear_range import line_of, reach
from prosect.model import steer

STRENGTHS = (-2.0, -1.0, -0.5, 0.5, 1.0, 2.0)


def logit(token):
    """The logit of a token at the last real position."""

    def metric(output, batch):
        return output[range(len(batch)), batch.lengths - 1, token]

    return metric


def planted():
    """A decoder without norms: at the last stream, a direction adds its product with the unembedding to the logits."""
    model = opened("decoder")
    return model, text(1, rows=8), model.module.lm_head.weight.detach()[7].clone()


def test_a_linear_attribute_is_a_line_with_the_slope_of_its_weights():
    model, batch, direction = planted()
    found = dose_curve(model, batch, "resid_post.1", direction, logit(7), STRENGTHS, controls=8)
    assert found.slope.estimate == pytest.approx(float(direction @ direction), rel=1e-4)
    assert found.linear.estimate == 2.0
    assert (found.linear.low, found.linear.high) == (2.0, 2.0)
    assert found.n == 8
    for dose in found.doses:
        assert dose.change.estimate == pytest.approx(
            dose.strength * float(direction @ direction), rel=1e-3, abs=1e-5
        )
    zero = next(d for d in found.doses if d.strength == 0.0)
    assert zero.change.estimate == zero.side.estimate == zero.control.estimate == 0.0
    top = found.doses[-1]
    assert top.beyond.low > 0
    assert top.beyond.estimate == pytest.approx(top.change.estimate - top.control.estimate)
    assert abs(top.control.estimate) > 1e-3
    # what a random direction of this length adds has mean 0 and this standard deviation
    expected = 2.0 * float(direction @ direction) / math.sqrt(len(direction))
    assert 0.3 * expected < top.spread < 2.5 * expected
    assert abs(top.control.estimate) < 3 * expected / math.sqrt(8)


def test_the_side_effect_is_the_divergence_of_the_steered_model():
    model, batch, direction = planted()
    others = text(5, rows=4)
    found = dose_curve(model, batch, "resid_pre.1", direction, logit(7), [1.0], others=others, controls=1)
    before = model.run(others).output.double().log_softmax(-1)
    after = model.run(others, edits=[steer("resid_pre.1", direction)]).output.double().log_softmax(-1)
    kl = others.flat((before.exp() * (before - after)).sum(-1))
    assert found.doses[-1].side.estimate == pytest.approx(float(kl.mean()), rel=1e-4)
    assert found.others == "4 other rows"
    assert found.doses[-1].spread is None
    same = dose_curve(model, batch, "resid_pre.1", direction, logit(7), [1.0], controls=1)
    assert same.others == "the steered rows themselves"


def test_a_curve_that_saturates_leaves_its_line_where_the_formula_says():
    """A probability of a logistic in the strength: within a tenth of its tangent up to a known strength."""
    strengths = np.concatenate([[0.0], np.arange(1, 41) * 0.05])
    curve = 1 / (1 + np.exp(-strengths))
    slope = (curve[1] - curve[0]) / 0.05
    off = np.abs(curve - 0.5 - slope * strengths) > 0.1 * slope * strengths
    assert reach(strengths, curve, 0.1) == pytest.approx(strengths[off][0] - 0.05)
    assert reach(strengths, curve, 0.1) == pytest.approx(
        1.14, abs=0.06
    )  # tanh(s/2) / (s/2) is .9 at s = 1.14
    model, batch, direction = planted()

    def chance(output, rows):
        logits = output[range(len(rows)), rows.lengths - 1]
        return (logits[:, 7] - logits[:, 8]).sigmoid()

    wide = tuple(float(s) for s in np.linspace(0.05, 4, 12))
    found = dose_curve(model, batch, "resid_post.1", direction, chance, wide, controls=1)
    line = logit(7)
    straight = dose_curve(model, batch, "resid_post.1", direction, line, wide, controls=1)
    assert found.linear.estimate < straight.linear.estimate == 4.0
    assert found.linear.low <= found.linear.estimate <= found.linear.high


def test_an_even_curve_is_nowhere_linear():
    strengths = np.array([-2.0, -1.0, 0.0, 1.0, 2.0])
    assert reach(strengths, strengths**2, 0.1) == 0.0
    assert reach(strengths, 3 * strengths + 1, 0.1) == 2.0
    kinked = np.where(strengths < -1.5, -5.0, strengths)
    assert reach(strengths, kinked, 0.1) == 1.0
    value = np.outer(strengths, np.ones(6))
    slope, linear = line_of(strengths, value, np.zeros(6, dtype=int), 0.1, Seed(0))
    assert slope.note
    assert linear.note == "one unit: no interval"


def test_steering_one_head_at_chosen_positions():
    model, batch = opened("llama"), text(3, rows=4)
    direction = torch.ones(8)
    found = dose_curve(
        model, batch, "z.1.h2", direction, logit(3), [1.0], where={"positions": [-1]}, controls=2
    )
    changed = model.run(batch, edits=[steer("z.1.h2", direction, positions=[-1])]).output
    expected = logit(3)(changed, batch) - logit(3)(model.run(batch).output, batch)
    assert found.doses[-1].change.estimate == pytest.approx(float(expected.mean()), rel=1e-3, abs=1e-5)
    assert found.length == pytest.approx(math.sqrt(8))
    trace = model.run(batch, ["z.1"])
    assert found.stream == pytest.approx(float(batch.flat(trace["z.1"])[:, 2].norm(dim=-1).mean()), rel=1e-4)
    line = found.table()[-1]
    assert line["of the stream"] == pytest.approx(found.length / found.stream)
    assert line["n"] == 4
    assert "per_row" in found.record()


def test_bad_input():
    model, batch, direction = planted()
    with pytest.raises(BadInput, match="not 0"):
        dose_curve(model, batch, "resid_post.1", direction, logit(7), [0.0])
    with pytest.raises(NotFinite, match="strengths"):
        dose_curve(model, batch, "resid_post.1", direction, logit(7), [math.inf])
    with pytest.raises(ShapeMismatch, match="width"):
        dose_curve(model, batch, "resid_post.1", direction[:-1], logit(7))
    with pytest.raises(BadInput, match="length zero"):
        dose_curve(model, batch, "resid_post.1", 0 * direction, logit(7))
    with pytest.raises(NotFinite, match="direction"):
        dose_curve(model, batch, "resid_post.1", direction / 0, logit(7))
    with pytest.raises(UnknownName):
        dose_curve(model, batch, "resid_post.7", direction, logit(7))
    with pytest.raises(Unsupported, match="one vector"):
        dose_curve(model, batch, "probs.0", direction, logit(7))
    with pytest.raises(BadInput, match="at least 1"):
        dose_curve(model, batch, "resid_post.1", direction, logit(7), controls=0)
    with pytest.raises(BadInput, match="rows"):
        dose_curve(model, batch, "resid_post.1", direction, logit(7), where={"rows": [0]})
    with pytest.raises(ShapeMismatch, match="one number"):
        dose_curve(model, batch, "resid_post.1", direction, lambda output, rows: output.sum())
