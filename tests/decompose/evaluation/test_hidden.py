"""Hidden superposition: silent where every feature has a neuron, loud where a LayerNorm lets features hide."""

import numpy as np
import pytest
import torch

from prosect.core.errors import BadInput, ShapeMismatch, TooLittleData
from prosect.core.seeds import Seed
from prosect.decompose.evaluation.bargain import bargain
from prosect.decompose.evaluation.hidden import alone, hidden, loudest
from prosect.decompose.evaluation.polysemantic import concepts_of
from prosect.organisms.intrinsic import activations, leak
from prosect.organisms.intrinsic import sparse_features as task
from prosect.organisms.opened import opened


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def of_leak(build, chance=1 / leak.FEATURES):
    model, truth = build(0)
    batch = next(leak.source(0).batches("explore", rows=4096))
    x = batch.tensors["features"]
    nothing = np.full(leak.FEATURES, task.ignorance(chance))
    return hidden(model, "act", batch, x, lambda out: task.losses(out, x), "norm", nothing), truth


def of_trained(kind, norm=None):
    model, _ = opened(activations.known(kind, kind, 0), activations.source_topk(0))
    batch = next(activations.source_topk(0).batches("explore", rows=4096))
    x = batch.tensors["features"]
    nothing = np.full(task.FEATURES, task.ignorance())
    found = hidden(model, "act", batch, x, lambda out: task.losses(out, x), norm, nothing)
    return found, float(concepts_of(model.run(batch, capture=("act",))["act"], x).mean())


def test_it_names_the_features_that_leak_and_no_other():
    found, truth = of_leak(leak.build)
    assert np.array_equal(found.sneaked, truth.labels["leaked"])
    leaked = found.sneaked
    assert found.lost[leaked].min() > 1 - 1e-6  # the loudest neuron alone says its shown feature
    assert found.quiet[leaked].min() > 0.99  # seven of eight say the same as eight
    assert found.alone[leaked].max() < 0.1 and found.alone[~leaked].min() > 0.95


def test_in_closed_form_nothing_is_lost_with_a_neuron_for_each_feature():
    found, _ = of_leak(leak.build_clean)
    assert not found.sneaked.any()
    assert (found.lost == 0).all()
    assert (found.quiet < 0).all()
    assert found.share == 0


def test_the_norm_lengthens_what_leaked_as_much_as_the_closed_form_says():
    found, truth = of_leak(leak.build)
    leaked = truth.labels["leaked"]
    strengths = 0.5 + (np.arange(1000) + 0.5) / 1000
    for rows, active in ((leaked, leak.SPREAD), (~leaked, 1)):
        expected = np.exp(np.mean([np.log(leak.amplification(s, active, leak.SHOWN)) for s in strengths]))
        assert found.amplified[rows].mean() == pytest.approx(expected, rel=0.03)
    assert found.amplified[leaked].min() > 2 * found.amplified[~leaked].max()


def test_it_fires_on_the_trained_network_with_a_norm_and_not_on_its_control():
    solu, _ = of_trained("solu", "norm")
    single, one = of_trained("single", "norm")
    bare, _ = of_trained("bare")
    assert solu.sneaked.mean() > 0.5
    assert not single.sneaked.any() and one < 1.2
    assert bare.sneaked.mean() < 0.3
    assert single.share < 0.15 < 0.4 < solu.share
    # two ways to the same number
    quantity = activations.known("solu", "solu-mlp", 0)[1].quantities["share lost"]
    assert solu.share == pytest.approx(quantity, abs=0.05)


def test_a_bargain_has_both_what_it_cost_and_what_sneaked_through():
    topk, few = of_trained("topk")
    relu, many = of_trained("relu")
    q = activations.known("topk", "topk-mlp", 0)[1].quantities
    both = bargain([(q["loss"], q["loss of the twin"])], [(few, many)], [(topk, relu)])
    assert both.cost.estimate == pytest.approx(q["cost"]) and both.cost.estimate > 0.3
    assert both.fewer.estimate > 3
    assert both.sneaked.estimate < 0.3 < 0.9 < both.sneaked_in_twin.estimate
    assert both.cost.low is None
    two = bargain([(2.0, 1.0), (2.5, 1.0)], [(1.0, 3.0)] * 2, [(topk, relu)] * 2)
    assert two.cost.estimate == 1.25 and two.cost.low < 1 < 1.5 < two.cost.high
    with pytest.raises(ShapeMismatch, match="one of each"):
        bargain([(2.0, 1.0)], [], [(topk, relu)])


def test_alone_against_features_mixed_by_hand():
    rng = Seed(3).torch()
    s = (torch.rand(4000, 3, generator=rng) < 0.2).float()
    own = torch.cat([s, torch.randn(4000, 2, generator=rng)], dim=1)
    assert alone(own, own, s) == pytest.approx(np.ones(3), abs=1e-6)
    mix = torch.tensor([[1.0, 1, 0, 0], [0, 1, 1, 0], [1, 0, 1, 1]])
    # the first and second are nowhere alone; the third is, in the last unit
    assert alone(s @ mix, s @ mix, s)[:2].max() < 0.6 < 0.99 < alone(s @ mix, s @ mix, s)[2]
    # one of two equal noises on top: half of the variance is the feature's
    noisy = s[:, :1] + s[:, :1].std() * torch.randn(4000, 1, generator=rng)
    assert alone(torch.cat([s, noisy], dim=1), noisy, s[:, :1])[0] == pytest.approx(0.5, abs=0.06)


def test_loudest_counts_and_breaks_ties_by_order():
    act = torch.tensor([[1.0, -3, 2], [1, 1, 1], [5, 0, 0]])
    kept = loudest(act, torch.tensor([2, 1, 0]))
    assert kept.tolist() == [[False, True, True], [True, False, False], [False] * 3]


def test_bad_input_is_named():
    model, _ = leak.build(0)
    batch = next(leak.source(0).batches("explore", rows=64))
    x = batch.tensors["features"]
    with pytest.raises(TooLittleData, match="at least 10"):
        hidden(model, "act", batch, x, lambda out: task.losses(out, x))
    with pytest.raises(ShapeMismatch, match="one row of each"):
        hidden(model, "act", batch, x[:9], lambda out: task.losses(out, x))
    big = next(leak.source(0).batches("explore", rows=4096))
    y = big.tensors["features"]
    with pytest.raises(ShapeMismatch, match="one for each feature"):
        hidden(model, "act", big, y, lambda out: out[:, :1])
    with pytest.raises(BadInput, match="knows some feature"):
        hidden(model, "act", big, y, lambda out: torch.zeros_like(out))
