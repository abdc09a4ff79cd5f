"""Patch effects as descriptions: measured like `noising` measures them, and where they do not apply."""

import numpy as np
import pytest

from prosect.core.errors import BadInput
from prosect.core.seeds import Seed
from prosect.data.contrasts import Contrast, ContrastSource, copied_blocks, cut
from prosect.describe.patched import PatchEffect
from prosect.model.patching import denoising, noising
from prosect.organisms import induction
from prosect.store.shelf import Shelf


@pytest.fixture(scope="module")
def network():
    model, truth = induction.build(0)
    made = copied_blocks(range(1, model.vocab_size), Seed(0), count=24, length=5, lead=(0,))
    source = ContrastSource(made, cut(made, Seed(0), folds=1, explore=0.5, sealed=0.0), special=1)
    return model, truth, source


@pytest.mark.parametrize(("way", "map_"), [("noising", noising), ("denoising", denoising)])
def test_effects_are_those_of_the_map(network, way, map_):
    model, _, source = network
    (batch,) = source.batches("explore")
    whole = map_(
        model, batch, source.counterfactual(batch), source.metric, ["z.1", "resid_pre.1"], each="site"
    )
    gap = 2.0
    wanted = [
        PatchEffect(node, p, way, gap) for node in ("z.1", "resid_pre.1") for p in range(batch.mask.shape[1])
    ]
    found = PatchEffect.measure(wanted, model, batch, source)
    assert found.reshape(whole.effects.values.shape) == pytest.approx(whole.effects.values / gap, abs=1e-5)
    assert np.abs(found).max() > 1.0


def test_the_head_that_reads_the_answer_carries_it_and_no_other(network):
    model, truth, source = network
    (batch,) = source.batches("validate.0")
    heads = [(layer, h) for layer in range(2) for h in range(4)]
    last = batch.mask.shape[1] - 1
    base, other = (source.metric(model.run(b).output, b) for b in (batch, source.counterfactual(batch)))
    gap = float((other - base).mean())
    wanted = [PatchEffect(f"z.{layer}.h{h}", last, "noising", gap) for layer, h in heads]
    found = PatchEffect.measure(wanted, model, batch, source).mean(axis=1)
    real = {
        v.site for v in truth.variables if v.parameters.get("role") == "induction" and v.effect["matters"]
    }
    for (layer, h), effect in zip(heads, found, strict=True):
        assert effect == pytest.approx(float(f"z.{layer}.h{h}" in real), abs=0.02)


def test_an_unrelated_row_gives_another_value_and_negatives_count_from_the_end(network):
    model, _, source = network
    (batch,) = source.batches("explore")
    own = PatchEffect("resid_pre.0", 5, "noising", 1.0)
    mirrored = PatchEffect("resid_pre.0", 5 - batch.mask.shape[1], "noising", 1.0, sign=-1)
    stranger = PatchEffect("resid_pre.0", 5, "noising", 1.0, stranger=True)
    a, b, c = PatchEffect.measure([own, mirrored, stranger], model, batch, source)
    assert b == pytest.approx(-a) and not np.allclose(a, c)


def test_rows_without_the_position_are_left_out(network):
    model, _, _ = network
    short, long = Contrast((0, 1, 2), (0, 1, 3), 4, 5), Contrast((0, 1, 2, 3), (0, 1, 2, 4), 5, 4)
    source = ContrastSource((short, long), {"explore": (0, 1)}, special=1)
    (batch,) = source.batches("explore")
    found = PatchEffect.measure([PatchEffect("resid_pre.1", 3, "noising", 1.0)], model, batch, source)
    assert np.isnan(found[0, 0]) and np.isfinite(found[0, 1])


def test_it_comes_back_from_json_and_nonsense_is_refused(network):
    model, _, source = network
    one = PatchEffect("z.1.h2", 3, "denoising", -1.5, -1, True)
    assert PatchEffect.of(one.executable(), Shelf()) == one
    with pytest.raises(BadInput, match="gap"):
        PatchEffect("z.1", 3, "noising", 0.0)
    with pytest.raises(BadInput, match="malformed"):
        PatchEffect.of(one.executable().model_copy(update={"parameters": {"node": "z.1"}}), Shelf())
    (batch,) = source.batches("explore")
    plain = induction.source(0)
    with pytest.raises(BadInput, match="counterfactuals"):
        PatchEffect.measure([one], model, batch, plain)
