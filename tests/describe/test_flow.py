"""Attention is not flow: the accounts are what their definitions say, and planted disagreement is flagged."""

import numpy as np
import pytest
import torch

from decoders import opened, text
from prosect.core.errors import BadInput, TooLittleData, UnknownName, Unsupported
from prosect.core.seeds import Seed
from prosect.data.batch import Batch
from prosect.describe.flow.agreement import FlowAgreement, last
from prosect.describe.flow.compare import compare
from prosect.describe.flow.moved import destinations_of, look
from prosect.model.model import Model
from prosect.organisms.induction import Plan, build, source
from prosect.store.shelf import Shelf


@pytest.fixture(scope="module")
def flow():
    model, truth = build(0)
    batch = next(source(0).batches("explore", rows=10))
    return compare(model, batch, destinations=1, seed=1), truth


def heads_of(what):
    return [
        f"z.{layer}.h{i}"
        for layer in (0, 1)
        for i, name in enumerate(Plan.of(0).heads[layer])
        if name in what
    ]


def test_the_head_that_attends_and_writes_nothing_is_flagged(flow):
    """It looks where the induction head looks; pattern says yes, flow and patch say no."""
    found, _ = flow
    (silent,), (induction,) = heads_of(["induction-silent"]), heads_of(["induction"])
    assert found[silent].peak.estimate == pytest.approx(found[induction].peak.estimate, rel=1e-3)
    assert found[silent].flow.estimate == 0.0
    assert found[silent].patch.estimate == 0.0
    assert found[silent].disagreements == ("pattern~flow", "pattern~patch")
    assert found[silent].words == "looks, and moves nothing"
    assert found[induction].disagreements == ()
    assert found[induction].patch.low > 0


def test_heads_whose_output_nothing_reads_are_flagged(flow):
    found, truth = flow
    for head in heads_of(["previous-unread", "first", "offset", "random", "uniform"]):
        assert "patch" in found[head].silent
        assert found[head].flow.estimate > 0.1
        assert found[head].words == "moves, and nothing depends on it"
    matters = {v.site for v in truth.variables if v.effect["matters"]}
    assert {h.head for h in found.heads if "patch" not in h.silent} == matters


def test_every_figure_has_n_interval_and_control(flow):
    found, _ = flow
    assert found.n == 10
    (head,) = heads_of(["induction"])
    line = next(row for row in found.table() if row["head"] == head)
    assert line["low"] < line["patch"] < line["high"]
    assert found[head].beyond.estimate == pytest.approx(line["patch"] - line["control"])
    assert "95 %" in found.rule
    record = found.record()
    assert record["heads"][0]["head"] == "z.0.h0"
    assert len(record["shown"]["pattern"]) == 8
    with pytest.raises(BadInput, match="not looked at"):
        found["z.9.h0"]


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma2", "granite"])
def test_flow_is_the_length_of_what_is_moved(name):
    """By the head's own slice of W_O, and for a norm after it by the norm's definition."""
    model, batch = opened(name), text(1, rows=3)
    at = torch.tensor([[3], [5], [6]])
    layer = look(model, batch, 1, at)
    trace = model.run(batch, ["probs.1", "v.1", "z.1", "attn_out.1", "resid_pre.1"])
    block = (model.module.transformer.h if name == "gpt2" else model.module.model.layers)[1]
    weight = (
        (block.attn.c_proj.weight if name == "gpt2" else block.self_attn.o_proj.weight.T).detach().double()
    )
    for row, query in enumerate([3, 5, 6]):
        for head in range(4):
            key_head = head * trace["v.1"].shape[2] // 4
            values = trace["v.1"][row, :, key_head].double()
            width = values.shape[-1]
            wrote = values @ weight[head * width : (head + 1) * width]
            if name == "gemma2":
                norm, out = block.post_attention_layernorm, trace["attn_out.1"][row, query].double()
                wrote = (1 + norm.weight.detach().double()) * wrote / (out.pow(2).mean() + 1e-6).sqrt()
            if name == "granite":
                wrote = wrote * model.module.config.residual_multiplier
            probs = trace["probs.1"][row, head, query].double()
            expected = probs * wrote.norm(dim=-1) / trace["resid_pre.1"][row, query].double().norm()
            assert torch.allclose(layer.flow[row, 0, head], expected, rtol=1e-3, atol=1e-6)
            assert torch.allclose(
                layer.moved[row, 0, head].sum(0), trace["z.1"][row, query, head].double(), atol=1e-5
            )


@pytest.mark.parametrize("by", ["zero", "mean"])
def test_patch_effects_are_what_changing_z_by_hand_does(by):
    model, batch = opened("llama"), text(2, rows=3)
    found = compare(model, batch, ["z.0.h2"], destinations=[[2], [3], [4]], by=by)
    trace = model.run(batch, ["probs.0", "v.0", "z.0"])
    base = trace.output.double().log_softmax(-1)
    values = trace["v.0"][:, :, 1]  # two heads share each of its keys and values
    mean = values[batch.mask].mean(0) if by == "mean" else torch.zeros(8)
    projection = model.module.model.layers[0].self_attn.o_proj
    for row, query, source_at in ((0, 2, 1), (1, 3, 0), (2, 4, 4)):

        def hook(module, args, row=row, query=query, source_at=source_at):
            z = args[0].clone()
            share = trace["probs.0"][row, 2, query, source_at]
            z[row, query, 16:24] -= share * (values[row, source_at] - mean)
            return (z,)

        handle = projection.register_forward_pre_hook(hook)
        after = model.run(batch).output.double().log_softmax(-1)
        handle.remove()
        kl = (base.exp() * (base - after)).sum(-1)[row]
        expected = float(kl[query : int(batch.lengths[row])].sum())
        got = found.values["patch"][0, row, 0, source_at]
        assert got == pytest.approx(expected, rel=1e-2, abs=1e-6)
    assert np.isnan(found.values["patch"][0, 0, 0, 3])


def test_destinations():
    batch = text(rows=4)

    drawn = destinations_of(batch, 3, Seed(0))
    assert drawn.shape == (4, 3)
    for row, chosen in enumerate(drawn.tolist()):
        assert len(set(chosen)) == 3
        assert all(batch.scored[row, p] and p > 0 for p in chosen)
    assert destinations_of(batch, [[-1], [2], [2], [2]], Seed(0))[0, 0] == 3
    with pytest.raises(TooLittleData, match="row 0"):
        destinations_of(batch, 4, Seed(0))
    with pytest.raises(BadInput, match="position 4 of row 0"):
        destinations_of(batch, [[4], [2], [2], [2]], Seed(0))
    with pytest.raises(BadInput, match="as many for each"):
        destinations_of(batch, [[1], [2, 3], [2], [2]], Seed(0))


def test_bad_input():
    model, batch = opened("llama"), text(rows=2)
    with pytest.raises(UnknownName, match=r"z\.0\.h9"):
        compare(model, batch, ["z.0.h9"])
    with pytest.raises(BadInput, match="no head"):
        compare(model, batch, ["mlp_out.0"])
    with pytest.raises(BadInput, match="zero or mean"):
        compare(model, batch, by="resample")
    mlp = Model.of(torch.nn.Sequential(torch.nn.Linear(6, 3)), inputs=torch.randn(2, 6))
    with pytest.raises(Unsupported, match="positions"):
        compare(mlp, torch.randn(2, 6))


def test_what_a_claim_measures_is_what_comparing_finds():
    """Row by row, the same rank correlation that `compare` averages, at the same destinations."""
    model, _ = build(0)
    origin = source(0)
    batch = next(origin.batches("explore", rows=3))
    heads = [*heads_of(["induction"]), *heads_of(["induction-silent"]), "z.0.h1"]
    wanted = [FlowAgreement(h, a) for h in heads for a in ("pattern", "flow")]
    measured = FlowAgreement.measure(wanted, model, batch, origin)
    found = compare(model, batch, heads, destinations=last(batch), seed=3)
    for i, one in enumerate(wanted):
        beside = found[one.head].agreement[f"{one.account}~patch"]
        expected = 0.0 if beside.estimate is None else beside.estimate
        assert measured[i].mean() == pytest.approx(expected, abs=1e-9)
    assert measured[0].mean() > 0.3  # the induction head looks where it matters
    assert np.all(measured[2] == 0)  # its double, which writes nothing, does not


def test_nearness_and_another_heads_pattern_are_measured_against_the_same_effects():
    model, _ = build(0)
    origin = source(0)
    batch = next(origin.batches("explore", rows=3))
    (own,), (silent,) = heads_of(["induction"]), heads_of(["induction-silent"])
    made = [
        FlowAgreement(own, "pattern"),
        FlowAgreement(own, "pattern", silent),
        FlowAgreement(own, "nearness"),
    ]
    pattern, double, near = FlowAgreement.measure(made, model, batch, origin)
    assert double == pytest.approx(pattern, abs=0.05)  # the double looks at the same places
    assert near.mean() < pattern.mean() - 0.3


def test_rows_of_one_position_have_no_number():
    model, _ = build(0)
    origin = source(0)
    batch = next(origin.batches("explore", rows=2))
    tokens = batch.tensors["input_ids"].clone()
    mask = torch.ones_like(tokens, dtype=torch.bool)
    mask[1, 1:] = False
    short = Batch({"input_ids": tokens}, mask, batch.rows)
    found = FlowAgreement.measure([FlowAgreement("z.1.h0", "pattern")], model, short, origin)
    assert np.isfinite(found[0, 0]) and np.isnan(found[0, 1])


@pytest.mark.parametrize(
    "asked",
    [
        {"head": "resid_pre.0", "account": "pattern"},
        {"head": "z.0", "account": "pattern"},
        {"head": "z.0.h0", "account": "pattern", "told_by": "z.1.h0"},
    ],
)
def test_a_claim_about_what_is_no_head_is_refused(asked):
    with pytest.raises(BadInput):
        FlowAgreement(**asked)


def test_a_claim_is_read_back_as_it_was_stored(tmp_path):
    one = FlowAgreement("z.1.h2", "flow", "z.1.h0")
    assert FlowAgreement.of(one.executable(), Shelf(tmp_path)) == one
