"""Direct attribution: sums are the model's own logits, and every part is what cutting it by hand says."""

import numpy as np
import pytest
import torch

from decoders import FAMILIES, opened, text
from prosect.core.errors import BadInput, ShapeMismatch, Unsupported
from prosect.describe.lens.direct import attribute, neurons
from prosect.model.model import Model

SPLIT = [name for name in FAMILIES if name != "gpt-oss"]


@pytest.mark.parametrize("name", FAMILIES)
def test_the_parts_sum_to_the_logit(name):
    model, batch = opened(name), text(1)
    targets = [3, 4, 5, 6, 7, 8]
    found = attribute(model, batch, targets)
    output = model.run(batch).output[range(6), batch.lengths - 1]
    logit = output[range(6), targets].double().numpy(force=True)
    total = found.contributions.sum(axis=1)
    if found.cap is not None:
        total = found.cap * np.tanh(total / found.cap)
    assert np.abs(total - logit).max() < 1e-4 * np.abs(logit).max()
    assert found.error < 1e-4
    heads = [p for p in found.parts if p.startswith("z.")]
    assert len(heads) == model.n_layers * model.n_heads
    whole = attribute(model, batch, targets, split="sublayers")
    assert whole.contributions.sum(axis=1) == pytest.approx(found.contributions.sum(axis=1), rel=1e-4)
    for layer in range(model.n_layers):
        one = [
            i for i, p in enumerate(found.parts) if p.startswith(f"z.{layer}.h") or p == f"attn_bias.{layer}"
        ]
        summed = found.contributions[:, one].sum(axis=1)
        assert summed == pytest.approx(whole[f"attn_out.{layer}"], rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma2", "olmo2", "granite", "bloom"])
def test_a_head_s_share_is_what_its_own_output_writes(name):
    """By the last norm's definition and the head's slice of W_O, on the model's own weights."""
    model, batch = opened(name), text(2, rows=3)
    targets, against = [1, 2, 3], [9, 8, 7]
    found = attribute(model, batch, targets, against=against, positions=[1, 2, -1])
    at = [1, 2, 6]
    sites = ["z.0", "attn_out.0", "resid_post.1"]
    trace = model.run(batch, sites)
    rows = range(3)
    z, out, x = (trace[s][rows, at].double() for s in sites)
    module = model.module
    block = module.transformer.h[0] if hasattr(module, "transformer") else module.model.layers[0]
    attention = next(getattr(block, n) for n in ("attn", "self_attn", "self_attention") if hasattr(block, n))
    projection = next(getattr(attention, n) for n in ("c_proj", "o_proj", "dense") if hasattr(attention, n))
    weight = projection.weight.detach().double()
    weight = weight if name == "gpt2" else weight.T
    width = z.shape[-1]
    for h in range(4):
        wrote = z[:, h] @ weight[h * width : (h + 1) * width]
        if name in ("gemma2", "olmo2"):
            norm = block.post_attention_layernorm
            gain = norm.weight.detach().double() + (1.0 if name == "gemma2" else 0.0)
            wrote = gain * wrote / (out.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt()
        if name == "granite":
            wrote = wrote * module.config.residual_multiplier
        y = x
        if name in ("gpt2", "bloom"):
            wrote, y = wrote - wrote.mean(-1, keepdim=True), x - x.mean(-1, keepdim=True)
        last = module.transformer.ln_f if hasattr(module, "transformer") else module.model.norm
        gain = last.weight.detach().double() + (1.0 if name == "gemma2" else 0.0)
        read = gain * wrote / (y.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt()
        head = module.lm_head.weight.detach().double()
        share = (read * (head[targets] - head[against])).sum(-1)
        if name == "granite":
            share = share / module.config.logits_scaling
        assert found[f"z.0.h{h}"] == pytest.approx(share.numpy(), rel=1e-3, abs=1e-5)


def test_positions_are_told_from_tokens():
    gpt2, llama = attribute(opened("gpt2"), text(), 3), attribute(opened("llama"), text(), 3)
    assert gpt2.parts[:2] == ("embeddings", "positions")
    assert "positions" not in llama.parts
    bloom = attribute(opened("bloom"), text(), 3)
    assert bloom.parts[0] == "embeddings"
    assert "before the first block" in bloom.notes[0]
    granite = attribute(opened("granite"), text(), 3)
    assert granite.parts[0] == "embeddings"
    assert "positions" not in granite.parts


def test_biases_are_parts_of_their_own():
    """A bias writes the same whatever the row, but for the scale of the last norm."""
    model, batch = opened("gpt2"), text(3)
    found = attribute(model, batch, 5)
    x = model.run(batch, ["resid_post.1"])["resid_post.1"][range(6), batch.lengths - 1].double()
    scale = (x.var(-1, unbiased=False) + 1e-5).sqrt().numpy()
    for part in ("attn_bias.0", "mlp_bias.1"):
        raw = found[part] * scale
        assert np.ptp(raw) < 1e-5 * np.abs(raw).max() + 1e-8
        assert np.abs(raw).max() > 1e-3
    module = model.module
    bias = float((module.lm_head.weight[5].double() @ module.transformer.ln_f.bias.double()).detach())
    assert found["norm_bias"] == pytest.approx([bias] * 6, rel=1e-4)


def test_against_the_mean_is_what_a_softmax_sees():
    model, batch = opened("llama"), text(4)
    found = attribute(model, batch, 5, against="mean")
    output = model.run(batch).output[range(6), batch.lengths - 1].double()
    expected = (output[:, 5] - output.mean(-1)).numpy(force=True)
    assert found.logits == pytest.approx(expected, rel=1e-4)
    assert found.contributions.sum(axis=1) == pytest.approx(expected, rel=1e-3, abs=1e-4)


def test_a_difference_of_nothing_is_no_error():
    found = attribute(opened("llama"), text(), 5, against=5)
    assert np.abs(found.logits).max() == 0.0
    assert np.abs(found.contributions).max() < 1e-9


def test_experts_are_one_part_and_said_to_be():
    found = attribute(opened("gpt-oss"), text(), 5)
    assert "mlp_bias.0" not in found.parts
    assert any("mlp_out.0 holds its bias" in note for note in found.notes)


def test_neurons_and_directions_add_up_to_their_sublayer():
    for name in ("gpt2", "llama", "gemma2"):
        model, batch = opened(name), text(5)
        found = attribute(model, batch, 5)
        each = neurons(model, batch, found, 1)
        assert each.shape == (6, model.sites.info("mlp_act.1").width)
        assert each.sum(axis=1) == pytest.approx(found["mlp_out.1"], rel=1e-3, abs=1e-4)
        wrote = model.run(batch, ["mlp_out_post.1"])["mlp_out_post.1"][range(6), batch.lengths - 1]
        both = found["mlp_out.1"] + (found["mlp_bias.1"] if "mlp_bias.1" in found.parts else 0.0)
        assert found.effect(wrote[:, None])[:, 0] == pytest.approx(both, rel=1e-3, abs=1e-4)
    with pytest.raises(ShapeMismatch, match="32"):
        found.effect(torch.ones(6, 2, 31))
    with pytest.raises(BadInput, match="rows"):
        neurons(model, text(5, rows=4), found, 1)
    with pytest.raises(BadInput, match="part"):
        found["z.7.h0"]


def test_every_share_has_an_interval_and_a_control():
    found = attribute(opened("llama"), text(6), [1, 2, 3, 4, 5, 6], against=[7, 8, 9, 10, 11, 12])
    assert found.n == 6
    line = found.table()[0]
    assert line["low"] < line["logit"] < line["high"]
    assert line["beyond"] == pytest.approx(line["logit"] - line["control"])
    assert "against that of another" in found.control
    assert found.record()["parts"][0] == "embeddings"
    assert "reads" not in found.record()


def test_bad_input():
    model, batch = opened("llama"), text()
    with pytest.raises(BadInput, match="token 50"):
        attribute(model, batch, 50)
    with pytest.raises(BadInput, match="2 target tokens"):
        attribute(model, batch, [1, 2])
    with pytest.raises(BadInput, match="position 5 of row 0"):
        attribute(model, batch, 1, positions=5)
    with pytest.raises(BadInput, match="one for each"):
        attribute(model, batch, 1, positions=[1])
    with pytest.raises(Unsupported, match="unembedding"):
        attribute(opened("bert"), batch, 1)


def test_what_cannot_be_split_is_named():
    """A sublayer that ends in something that is not linear, and a stream that is not a sum."""
    from prosect.organisms.decoder import Decoder, DecoderConfig

    class Squashed(torch.nn.Module):
        """A projection whose output is squashed."""

        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, *args, **kwargs):
            out, weights = self.inner(*args, **kwargs)
            return torch.tanh(out), weights

    sizes = {"num_hidden_layers": 2, "num_attention_heads": 2, "head_dim": 8}
    module = Decoder(DecoderConfig(vocab_size=50, **sizes)).eval()
    module.model.layers[0].self_attn = Squashed(module.model.layers[0].self_attn)
    model = Model.of(module)
    with pytest.raises(Unsupported, match="split='sublayers'"):
        attribute(model, text(), 1)
    found = attribute(model, text(), 1, split="sublayers")
    assert found.error < 1e-4
    with pytest.raises(BadInput, match="heads or sublayers"):
        attribute(model, text(), 1, split="neurons")
