"""Tokens found for planted neurons are the planted ones, and the search is what exhaustion says is best."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from decoders import opened
from prosect.core.errors import BadInput, UnknownName, Unsupported
from prosect.core.seeds import Seed
from prosect.describe.synthesis.search import Search
from prosect.describe.synthesis.tokens import Tokens, synthesise_tokens
from prosect.describe.synthesis.unit import Unit
from prosect.model.model import Model
from prosect.organisms.planted import build, source


@pytest.fixture(scope="module")
def planted():
    return build(0)


def neurons(truth, sort):
    return [v for v in truth.variables if v.parameters.get("sort") == sort]


def test_a_planted_token_neuron_gets_exactly_its_token(planted):
    model, truth = planted
    for variable in neurons(truth, "token")[:3]:
        rule = variable.parameters
        strongest = rule["current"][int(np.argmax(rule["strengths"]))]
        unit = Unit(variable.site, variable.index)
        found = synthesise_tokens(model, unit, Tokens(length=2, prefix=(0,), seeds=3, steps=5, candidates=32))
        assert {one.tokens[-1] for one in found.seeds} == {strongest}
        assert found.needed == (strongest,)
        assert all(one.activation == pytest.approx(max(rule["strengths"]), rel=1e-4) for one in found.seeds)
        assert all(one.settled for one in found.seeds)
        assert found.agreement.estimate == pytest.approx(1.0, abs=1e-5)
        assert found.activation.estimate >= found.luckiest - 1e-4
        assert found.beyond.low > 0


def test_distinct_seeds_list_every_token_of_the_rule(planted):
    model, truth = planted
    variable = max(neurons(truth, "token"), key=lambda v: len(v.parameters["current"]))
    rule = variable.parameters
    expected = [t for _, t in sorted(zip(rule["strengths"], rule["current"], strict=True), reverse=True)]
    how = Tokens(length=1, prefix=(0,), seeds=len(expected), distinct=True, steps=2, candidates=32)
    found = synthesise_tokens(model, Unit(variable.site, variable.index), how)
    assert list(found.needed) == expected
    assert found.agreement.estimate == 0.0


def test_a_context_neuron_gets_both_its_tokens_from_before_its_relu(planted):
    """The neuron itself is off for nearly every pair, with no gradient; what its relu reads is not."""
    model, truth = planted
    variable = neurons(truth, "context")[0]
    rule = variable.parameters
    unit = Unit("model.layers.0.mlp.up_proj", variable.index)
    found = synthesise_tokens(model, unit, Tokens(length=3, prefix=(0,), seeds=2, steps=8, candidates=32))
    for one in found.seeds:
        assert one.tokens[-1] == rule["current"][int(np.argmax(rule["strengths"]))]
        assert one.tokens[-2] in rule["previous"]
        assert one.activation == pytest.approx(max(rule["strengths"]), rel=1e-3)
        assert one.needs[-1] > 10 * abs(one.needs[0])


def test_beside_the_best_example(planted):
    model, truth = planted
    variable = neurons(truth, "token")[0]
    examples = list(source(0, explore=24).batches("explore"))
    unit = Unit(variable.site, variable.index)
    found = synthesise_tokens(model, unit, Tokens(length=1, prefix=(0,), seeds=1), examples)
    best = max(
        float(b.flat(model.run(b, ["mlp_act.0"])["mlp_act.0"])[:, variable.index].max()) for b in examples
    )
    assert found.example.activation == pytest.approx(best)
    assert found.example.tokens[-1] in variable.parameters["current"]
    assert found.activation.estimate >= best - 1e-4
    assert found.agreement is None
    words = source(0, explore=24).vocabulary
    table = found.table(words)
    assert table[0]["tokens"] == [words[found.seeds[0].tokens[0]]]
    assert [line["input"] for line in table] == ["seed 0", "best example", "random, mean", "random, most"]
    assert found.record()["how"]["length"] == 1


def test_the_search_reaches_what_trying_everything_finds():
    model = opened("llama")
    unit, allowed = Unit("resid_post.1", 3), tuple(range(10))
    found = synthesise_tokens(
        model, unit, Tokens(length=3, allowed=allowed, seeds=4, steps=20, candidates=16)
    )
    every = np.array(list(itertools.product(allowed, repeat=3)))
    search = Search(model, unit, (), (), np.arange(10), 3, 16, 1, 10**6)
    values = search.values(every)
    assert found.seeds[0].activation == pytest.approx(float(values.max()), rel=1e-4)
    assert found.seeds[0].tokens == tuple(every[int(values.argmax())].tolist())
    hasty = synthesise_tokens(model, unit, Tokens(length=3, allowed=allowed, seeds=4, steps=1, candidates=2))
    for one in (*found.seeds, *hasty.seeds):  # settled means what it says
        swaps = every[(every != np.array(one.tokens)).sum(axis=1) == 1]
        assert one.settled
        assert search.values(swaps).max() <= one.activation + 1e-4


def test_what_the_gradient_promises_is_what_a_linear_unit_does():
    """Where the unit reads the embedding itself, the first order is all there is."""
    model = opened("llama")
    direction = torch.randn(32, generator=Seed(0).torch())
    search = Search(model, Unit("resid_pre.0", direction=direction), (1,), (), np.arange(50), 2, 8, 1, 10**6)
    free = np.array([4, 9])
    promise = search.promises(free)
    base = search.values(free[None])[0]
    for token in (0, 17, 49):
        assert base + promise[1, token] == pytest.approx(
            search.values(np.array([[4, token]]))[0], rel=1e-4, abs=1e-4
        )
    assert np.abs(promise[0]).max() == 0.0  # the unit is read at the last position, before any attention


def test_a_model_whose_weights_take_no_gradient_can_be_searched():
    model = opened("gpt2")
    needed = [p.requires_grad for p in model.module.parameters()]
    try:
        model.module.requires_grad_(False)
        search = Search(model, Unit("resid_post.1", 3), (), (), np.arange(50), 2, 8, 1, 10**6)
        assert np.abs(search.promises(np.array([4, 9]))).max() > 0
    finally:
        for p, wanted in zip(model.module.parameters(), needed, strict=True):
            p.requires_grad_(wanted)


def test_the_budget_is_kept():
    model = opened("llama")
    how = Tokens(length=2, seeds=1, steps=50, candidates=32, budget=200, random=16)
    (one,) = synthesise_tokens(model, Unit("resid_post.1", 3), how).seeds
    assert one.sequences <= 200 + 2 * 8
    assert not one.settled


def test_bad_input(planted):
    model, _ = planted
    unit = Unit("mlp_act.0", 0)
    with pytest.raises(BadInput, match="token 900"):
        synthesise_tokens(model, unit, Tokens(allowed=(3, 900)))
    with pytest.raises(BadInput, match="token 900"):
        synthesise_tokens(model, unit, Tokens(prefix=(900,)))
    with pytest.raises(BadInput, match="no token allowed"):
        synthesise_tokens(model, unit, Tokens(allowed=()))
    with pytest.raises(BadInput, match="no token left"):
        synthesise_tokens(model, unit, Tokens(allowed=(3, 4), seeds=3, length=1, distinct=True, steps=1))
    with pytest.raises(BadInput, match="unit 48"):
        synthesise_tokens(model, Unit("mlp_act.0", 48))
    with pytest.raises(BadInput, match="position 9"):
        synthesise_tokens(model, Unit("mlp_act.0", 0, position=9))
    with pytest.raises(UnknownName):
        synthesise_tokens(model, Unit("mlp_act.5", 0))
    with pytest.raises(Unsupported, match="heads"):
        synthesise_tokens(model, Unit("z.0", 0))
    with pytest.raises(Unsupported, match="language model"):
        mlp = Model.of(nn.Sequential(nn.Linear(6, 3)), inputs=torch.randn(2, 6))
        synthesise_tokens(mlp, Unit("0", 0))
    with pytest.raises(BadInput, match="at least 1"):
        Tokens(length=0)
