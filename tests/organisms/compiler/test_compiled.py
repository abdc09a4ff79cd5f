"""Compiled networks: equal to the interpreter on every input, in any basis, padded or not."""

import numpy as np
import pytest
import torch

from prosect.organisms.compiler import (
    Program,
    aggregate,
    compiled,
    elementwise,
    indices,
    select,
    soft,
    tokens,
    zoo,
)
from prosect.organisms.compiler.agreement import agreement
from prosect.organisms.compiler.compile import GAIN
from prosect.organisms.compiler.interpret import every_input, run
from prosect.organisms.compiler.parts import SHARPNESS, astray
from prosect.organisms.compiler.programs import SHIPPED


@pytest.mark.parametrize("name", SHIPPED)
def test_the_network_is_its_program_on_every_input(name):
    found = agreement(zoo.organism(name, seed=1), longest=4)
    assert found.complete and found.inputs >= 30
    assert found.error <= 1e-4 and found.margin > 0.9 * GAIN


def test_what_differs_is_found():
    made = zoo.organism("histogram")
    with torch.no_grad():
        made.module.lm_head.weight[1] += 5 * made.module.lm_head.weight[2]
    assert not agreement(made, longest=3).complete


@pytest.mark.parametrize("name", SHIPPED)
def test_the_interpreter_over_vectors_gives_the_same_values(name):
    program = zoo.program_of(name)
    parts = zoo.organism(name).layout.parts
    for codes in every_input(program, longest=3):
        exact, found = run(program, codes), soft.run(program, parts, codes)
        for variable in program.variables:
            expected = soft.vectors(program, variable, exact[variable])[:, 1:]
            assert np.abs(found[variable][:, 1:] - expected).max() < 1e-6, variable


def test_attention_goes_astray_less_than_stated():
    is_a = elementwise(lambda t: t == "a", tokens, numerical=True)
    share = aggregate(select(tokens, tokens, lambda k, q: k == q), is_a, name="share")
    made = compiled(Program(share, ("a", "b"), 6))
    made.module.config._attn_implementation = "eager"  # gives attention weights
    layer, head = made.layout.head_of["share"]
    seen = []
    block = made.module.model.layers[layer].self_attn
    block.register_forward_hook(lambda _m, _a, out: seen.append(out[1]))
    made.module(made.encode([list("abbbbb")]))
    row = seen[0][0, head, 1].double()  # the only a: all attention on itself
    assert 0 < row[[0, 2, 3, 4, 5, 6]].sum() <= astray(6) == 6 * np.exp(-SHARPNESS / 2)


def test_variables_lie_along_their_directions():
    made = zoo.organism("histogram", seed=3)
    ids = made.encode([list("abca"), list("bbbb")])
    with torch.no_grad():
        stream = made.module.model(ids).last_hidden_state.double().numpy()
    assert np.allclose(made.basis @ made.basis.T, np.eye(len(made.basis)), atol=1e-12)
    counts = stream @ made.directions("histogram").T  # one-hot over 0 to 6
    assert counts[0, 1:].argmax(-1).tolist() == [2, 1, 1, 2] and counts[1, 1:].argmax(-1).tolist() == [4] * 4
    assert np.abs(counts[:, 1:] - counts[:, 1:].round()).max() < 1e-4 and np.abs(counts[:, 0]).max() < 1e-4


def test_no_coordinate_shows_what_it_stands_for():
    plain = compiled(zoo.program_of("histogram"))
    turned = zoo.organism("histogram", seed=0)
    assert (plain.module.model.embed_tokens.weight.abs() > 0.5).sum(dim=1).max() == 1
    assert turned.module.model.embed_tokens.weight.abs().max() < 0.95


@pytest.mark.parametrize("name", ["sort", "induction"])
def test_padding_changes_nothing(name):
    made = zoo.organism(name, seed=1)
    short = made.encode([[made.program.vocabulary[i] for i in (1, 0, 1)]])
    padded = torch.cat([short, torch.ones(1, 2, dtype=torch.long)], dim=1)
    mask = torch.tensor([[1, 1, 1, 1, 0, 0]])
    with torch.no_grad():
        alone, among = made.module(short).logits, made.module(padded, attention_mask=mask).logits
    assert torch.allclose(alone, among[:, :4], atol=1e-4)


def test_only_a_causal_program_makes_a_causal_network():
    for name, causal in (("induction", True), ("reverse", False)):
        made = zoo.organism(name)
        a, b = made.encode([list("abab")]), made.encode([list("abad")])
        with torch.no_grad():
            change = (made.module(a).logits - made.module(b).logits)[0, :4].abs().max()
        assert change < 1e-4 if causal else change > 1


def test_a_program_without_attention_or_without_operations():
    plain = compiled(Program(tokens, ("a", "b"), 3), seed=0)
    assert plain.run(["b", "a"]) == ["b", "a"]
    local = compiled(Program(elementwise(lambda i: i % 2, indices), ("a",), 4))
    assert local.run(["a"] * 4) == [0, 1, 0, 1] and agreement(local).complete


def test_the_first_and_last_of_a_pair_may_be_nothing():
    from prosect.organisms.compiler import NOTHING, sequence_map

    before = aggregate(select(indices, indices, lambda k, q: k == q - 1), tokens)
    after = aggregate(select(indices, indices, lambda k, q: k == q + 1), tokens)
    both = sequence_map(
        lambda a, b: f"{a if a is not NOTHING else '<'}{b if b is not NOTHING else '>'}", before, after
    )
    made = compiled(Program(both, ("a", "b"), 4), seed=0)
    assert made.run(list("abba")) == ["<b", "ab", "ba", "b>"]
    assert made.run(["a"]) == ["<>"] and agreement(made).complete
    echo = compiled(
        Program(sequence_map(lambda a, b: "=" if NOTHING in (a, b) else a + b, before, before), ("a", "b"), 4)
    )
    assert echo.run(list("ab")) == ["=", "aa"] and agreement(echo).complete


@pytest.mark.parametrize("function", [abs, lambda x: hash(x) % 7 - 3])
def test_functions_of_numbers_keep_all_that_float32_can(function):
    sign = elementwise(lambda t: 1 if t == "(" else -1, tokens, numerical=True)
    mean = aggregate(select(indices, indices, lambda k, q: k <= q), sign)
    output = elementwise(function, mean, numerical=True)
    made = compiled(Program(output, "()", 8), seed=0)
    found = agreement(made)
    assert found.complete and found.error < 2e-5, found
