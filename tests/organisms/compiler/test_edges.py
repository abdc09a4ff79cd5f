"""The truth about edges against patching the network, which knows nothing of programs."""

import numpy as np
import pytest
import torch

from prosect.model.edits import patch
from prosect.model.patching import by_row, edge_effects
from prosect.model.patching.edges import readers_of, writers_of
from prosect.organisms.compiler import soft, zoo
from prosect.organisms.compiler.edges import change, inputs
from prosect.organisms.compiler.parts import BOS

CHECKED = ("histogram", "reverse", "fraction-previous")


@pytest.fixture(scope="module", params=CHECKED)
def opened(request, built):
    return request.param, *built(f"compiled-{request.param}", 1)


def some(model, name, rows=24, seed=0):
    """Random inputs of the full length."""
    program = zoo.program_of(name)
    draw = torch.Generator().manual_seed(seed)
    body = torch.randint(1, 1 + len(program.vocabulary), (rows, program.length), generator=draw)
    return model.batch(torch.cat([torch.zeros(rows, 1, dtype=torch.long), body], dim=1))


def summed(batch, vocabulary):
    """A number for each row that moves with every logit at every place."""
    draw = torch.Generator().manual_seed(1)
    weights = torch.randn(batch.tensors["input_ids"].shape[1], vocabulary, generator=draw)
    weights[0] = 0  # what is said at the first token is nobody's business
    return by_row(batch, lambda output, rows, which: (output * weights).sum(dim=(1, 2)))


def test_resampled_edges_have_an_effect_where_truth_says_so_and_nowhere_else(opened):
    name, model, truth = opened
    clean, other = some(model, name), some(model, name, seed=5)
    metric = summed(clean, model.vocab_size)
    found = edge_effects(model, clean, other, metric, control=False)
    largest = {
        edges[0]: np.abs(row).max()
        for edges, row in zip(found.paths.values(), found.effects.values, strict=True)
    }
    assert len(largest) > 10
    assert all(effect > 0.01 or effect < 2e-3 for effect in largest.values()), "neither an effect nor none"
    assert {e for e, effect in largest.items() if effect > 0.01} == set(truth.edges["resample"])


def contribution(model, trace, writer):
    """What a writer adds to the stream."""
    if writer in ("resid_pre.0",) or writer.startswith("mlp"):
        return trace[writer]
    layer, head = (int(part) for part in writer.removeprefix("z.").split(".h"))
    width = model.d_head
    o = model.module.model.layers[layer].self_attn.o_proj.weight[:, head * width : (head + 1) * width]
    return trace[f"z.{layer}"][:, :, head] @ o.T


def without(model, trace, writer, reader):
    """The edit that takes a writer's part out of what one reader reads."""
    gone = contribution(model, trace, writer)
    if reader == "output":
        site = f"resid_post.{model.n_layers - 1}"
        return patch(site, trace[site] - gone)
    if reader.startswith("mlp_in"):
        return patch(reader, trace[reader] - gone)
    kind, layer, head = reader.split(".")
    head, width = int(head[1:]), model.d_head
    projection = getattr(model.module.model.layers[int(layer)].self_attn, f"{kind}_proj").weight
    value = trace[f"{kind}.{layer}"].clone()
    value[:, :, head] -= gone @ projection[head * width : (head + 1) * width].T
    return patch(f"{kind}.{layer}", value, heads=[head])


def test_edges_set_to_zero_have_an_effect_where_truth_says_so_and_nowhere_else(opened):
    name, model, truth = opened
    ids = some(model, name, rows=72).tensors["input_ids"]
    real = torch.ones_like(ids)
    ids[64:, 3:], real[64:, 3:] = 0, 0  # eight of them are short
    batch = model.batch({"input_ids": ids, "attention_mask": real})
    sites = ["resid_pre.0", f"resid_post.{model.n_layers - 1}"]
    for layer in range(model.n_layers):
        sites += [f"{kind}.{layer}" for kind in ("q", "k", "v", "z", "mlp_in", "mlp_out_post")]
    sites = [s for s in dict.fromkeys(sites) if s in model.sites]
    found = set()
    pairs = [(w, r) for w in writers_of(model) for r in readers_of(model) if r.after(w)]
    with torch.no_grad():
        trace = model.run(batch, capture=tuple(sites))
        for writer, reader in pairs:
            edited = model.run(batch, edits=(without(model, trace, writer.name, reader.name),))
            each = (edited.output - trace.output).abs().amax(-1) * real
            for rows in (each[:64], each[64:]):
                moved = rows[:, 1:].max()
                assert moved > 5e-3 or moved < 1e-3, (writer.name, reader.name, moved)
                if moved > 5e-3:
                    found.add((writer.name, reader.name))
    assert found == set(truth.edges["zero"])


@pytest.mark.parametrize("name", ["sort", "max-of-k", "count"])
def test_both_interpreters_agree_on_what_matters_when_resampled(name):
    program = zoo.program_of(name)
    found, layout = zoo.edges_of(name)
    tokens = inputs(program)[0][:120]
    clean = soft.run(program, layout.parts, tokens)
    draw = np.random.default_rng(0)
    donors = [draw.permutation(len(tokens)) for _ in range(6)]
    for edge in found.every:
        largest = max(change(program, layout, edge, "resample", tokens, clean, d) for d in donors)
        assert (largest > 1e-3) == (edge in found.matter["resample"]), (edge, largest)


@pytest.mark.parametrize("name", ["reverse", "sort", "histogram", "count", "induction"])
def test_constant_edges_matter_when_set_to_zero_only(name):
    found, layout = zoo.edges_of(name)
    assert found.constant and set(found.matter["resample"]) & found.constant == set()
    assert set(found.matter["mean-positional"]) & found.constant == set()
    assert set(found.matter["zero"]) & found.constant
    for edge in found.constant:
        assert set(found.every[edge]) <= {"indices", BOS} or edge[0] != "resid_pre.0"
    assert set(found.matter["resample"]) <= set(found.every) and layout.layers >= 1


def test_an_edge_that_carries_what_changes_nothing_does_not_matter():
    from prosect.organisms.compiler import (
        Program,
        check,
        elementwise,
        indices,
        select,
        selector_width,
        tokens,
    )
    from prosect.organisms.compiler.edges import edges
    from prosect.organisms.compiler.layout import Layout

    letter = elementwise(lambda t: t, tokens, name="letter")
    everywhere = selector_width(select(letter, indices, lambda k, q: True), name="length")
    program = check(Program(everywhere, ("a", "b"), 3))
    found = edges(program, Layout.of(program))
    assert ("mlp_out_post.0", "k.1.h0") in found.every  # it varies, and any key is selected
    assert ("mlp_out_post.0", "k.1.h0") not in found.constant
    assert found.matter["resample"] == ()
    assert ("mlp_out_post.0", "k.1.h0") in found.matter["zero"]
