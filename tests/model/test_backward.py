"""Backward rules: the gradient that each says, the same forward pass, and nothing missed in silence."""

import functools

import pytest
import torch
from torch import nn

from prosect.core.errors import BadInput, Unsupported
from prosect.core.seeds import Seed
from prosect.model import backward as b
from prosect.model.model import Model


@functools.cache
def opened(name):
    import transformers as t

    common = {"vocab_size": 20, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4}
    common |= {"intermediate_size": 24, "max_position_embeddings": 16}
    grouped = {"num_key_value_heads": 2, **common}
    ends = {"bos_token_id": 0, "eos_token_id": 0}
    module = {
        "gpt2": lambda: t.GPT2LMHeadModel(
            t.GPT2Config(n_embd=16, n_layer=2, n_head=4, vocab_size=20, n_positions=16, **ends)
        ),
        "llama": lambda: t.LlamaForCausalLM(t.LlamaConfig(**grouped)),
        "gemma2": lambda: t.Gemma2ForCausalLM(
            t.Gemma2Config(head_dim=4, attn_logit_softcapping=2.0, **grouped)
        ),
        "qwen3": lambda: t.Qwen3ForCausalLM(t.Qwen3Config(head_dim=4, **grouped)),
        "neox": lambda: t.GPTNeoXForCausalLM(t.GPTNeoXConfig(**common)),
        "bloom": lambda: t.BloomForCausalLM(
            t.BloomConfig(vocab_size=20, hidden_size=16, n_layer=2, n_head=4)
        ),
    }[name]()
    generator = Seed(0).child("weights").torch()
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) * 0.4)
    return Model.of(module.eval(), name=name)


TOKENS = torch.randint(20, (2, 6), generator=torch.Generator().manual_seed(0))
# norms: two in each block and the last; Gemma has four in a block, Qwen3 norms queries and keys too
NORMS = {"gpt2": 5, "llama": 5, "gemma2": 9, "qwen3": 9, "neox": 5, "bloom": 6}


def slopes(model, sites=("resid_pre.0",), rule=None):
    """Output, and the gradient of one logit at some sites."""
    if rule is None:
        trace = model.run(TOKENS, sites, grad=True)
    else:
        with rule:
            trace = model.run(TOKENS, sites, grad=True)
    found = torch.autograd.grad(trace.output[:, -1, 3].sum(), [trace[s] for s in sites], allow_unused=True)
    return trace.output.detach(), found


@pytest.mark.parametrize("name", list(NORMS))
def test_rules_leave_the_forward_pass_as_it_is_and_change_the_gradient(name):
    model = opened(name)
    plain, (slope,) = slopes(model)
    rules = (b.frozen_norms, b.softmax_temperature, b.frozen_attention, b.relp)
    for rule in rules[:1] if name == "bloom" else rules:  # whose attention cannot be tapped
        output, (changed,) = slopes(model, rule=rule(model))
        assert torch.allclose(output, plain, atol=1e-5)
        assert not torch.allclose(changed, slope, rtol=1e-2, atol=1e-4)
    output, _ = slopes(model, rule=b.frozen_norms(model))
    assert torch.equal(output, plain)
    after, (again,) = slopes(model)  # nothing stays behind
    assert torch.equal(after, plain) and torch.equal(again, slope)


@pytest.mark.parametrize("name", list(NORMS))
def test_every_norm_of_every_class_is_frozen(name):
    """The stream between blocks is then linear in each norm: its gradient is gain / scale times the rest."""
    model = opened(name)
    with b.frozen_norms(model) as found:
        model.run(TOKENS, ["resid_post.1"], grad=True)
    assert (found.met, found.covered) == (NORMS[name], NORMS[name])
    last = "resid_post.1"
    _, (frozen,) = slopes(model, [last], b.frozen_norms(model))
    # unembedding with the norm folded in, over the norm's scale
    stream = model.run(TOKENS, [last])[last][:, -1].double()
    centred = stream - stream.mean(-1, keepdim=True) if name in ("gpt2", "neox", "bloom") else stream
    eps = 1e-5 if name in ("gpt2", "neox", "bloom") else 1e-6
    scale = (centred.pow(2).mean(-1, keepdim=True) + eps).sqrt()
    expected = model.unembedding[3].double() / scale
    if name != "gemma2":  # whose cap on the logits comes after
        assert torch.allclose(frozen[:, -1].double(), expected, rtol=1e-3, atol=1e-5)
    _, (plain,) = slopes(model, [last])
    assert not torch.allclose(plain, frozen, rtol=1e-2)


def test_a_temperature_is_the_gradient_of_the_cooler_softmax():
    scores = torch.randn(2, 3, 5, requires_grad=True)
    weights = torch.randn(2, 3, 5)
    from prosect.model.backward_functions import tempered

    for temperature in (1.0, 2.0, 7.0):
        out = tempered(torch.softmax, (scores,), {"dim": -1}, temperature)
        assert torch.equal(out, scores.softmax(-1))
        (got,) = torch.autograd.grad((out * weights).sum(), scores)
        (expected,) = torch.autograd.grad(((scores / temperature).softmax(-1) * weights).sum(), scores)
        assert torch.allclose(got, expected, atol=1e-6)


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma2"])
def test_temperature_one_is_no_rule_and_two_reaches_queries(name):
    model = opened(name)
    sites = ["q.1", "v.1"]
    _, plain = slopes(model, sites)
    with b.softmax_temperature(model, 1.0) as found:
        trace = model.run(TOKENS, sites, grad=True)
    assert (found.met, found.covered) == (2, 2)
    same = torch.autograd.grad(trace.output[:, -1, 3].sum(), [trace[s] for s in sites])
    assert all(torch.allclose(a, x, atol=1e-5) for a, x in zip(same, plain, strict=True))
    _, warm = slopes(model, sites, b.softmax_temperature(model, 2.0))
    assert not torch.allclose(warm[0], plain[0], rtol=1e-2)
    assert torch.allclose(warm[1], plain[1], atol=1e-5)  # values are mixed by the probabilities themselves


def test_the_rule_acts_whichever_kernel_the_model_uses():
    """Fused attention hides its softmax: under the rule attention is computed in the open."""
    found = []
    for implementation in ("eager", "sdpa"):
        model = opened("llama")
        model.module.set_attn_implementation(implementation)
        with b.softmax_temperature(model, 2.0) as coverage:
            trace = model.run(TOKENS, ["resid_pre.0"], grad=True)
        (slope,) = torch.autograd.grad(trace.output[:, -1, 3].sum(), [trace["resid_pre.0"]])
        assert coverage.covered == 2
        found.append(slope)
    assert torch.allclose(*found, atol=1e-5)


def test_frozen_attention_sends_nothing_to_queries_and_keys():
    model = opened("gpt2")
    _, found = slopes(model, ["q.1", "k.1", "v.1"], b.frozen_attention(model))
    assert found[0] is None and found[1] is None and found[2].abs().max() > 0


@pytest.mark.parametrize("name", ["llama", "gemma2", "qwen3"])
def test_gates_give_each_factor_half(name):
    model = opened(name)
    layer = model.module.model.layers[1].mlp
    x = torch.randn(1, 3, 16, requires_grad=True)
    with b.half_gates(model) as found:
        model.run(TOKENS, ["resid_pre.0"], grad=True)
    assert (found.met, found.covered, found.operations) == (2, 2, 2)
    # both factors carry x: with the rule, up to first order, the layer's gradient is half of the sum of both ways
    from prosect.model.backward_functions import halved

    gate, up = layer.act_fn(layer.gate_proj(x)), layer.up_proj(x)
    slope = torch.randn(1, 3, 24)
    got = torch.autograd.grad((halved(gate, up) * slope).sum(), x, retain_graph=True)[0]
    both = torch.autograd.grad((gate * up * slope).sum(), x)[0]
    assert torch.allclose(got, both / 2, atol=1e-6)
    _, plain = slopes(model, ["mlp_in.1"])
    _, half = slopes(model, ["mlp_in.1"], b.half_gates(model))
    assert torch.allclose(half[0], plain[0] / 2, atol=1e-5)


def test_relevance_of_a_network_without_biases_is_conserved():
    """With every rule on, the output is linear in the stream: stream times gradient adds up to the logit itself."""
    for name in ("llama", "qwen3"):
        model = opened(name)
        with b.relp(model) as found:
            trace = model.run(TOKENS, ["resid_pre.0"], grad=True)
        assert all(c.met == c.covered > 0 for c in found) and len(found) == 4
        (slope,) = torch.autograd.grad(trace.output[:, -1, 3].sum(), [trace["resid_pre.0"]])
        relevance = (slope * trace["resid_pre.0"]).sum(dim=(1, 2))
        plain = slopes(model)[1][0]
        assert torch.allclose(relevance, trace.output[:, -1, 3], atol=1e-3)
        assert not torch.allclose(
            (plain * trace["resid_pre.0"]).sum(dim=(1, 2)), trace.output[:, -1, 3], atol=1e-1
        )


class Hidden(nn.Module):
    """A norm that hides how it normalises from every hook."""

    def forward(self, x):
        return nn.functional.normalize(x, dim=-1)


class HandNorm(nn.Module):
    """A norm written out with a power instead of a root: nothing that the rule knows."""

    def forward(self, x):
        return x * (x.pow(2).mean(-1, keepdim=True) + 1e-6).pow(-0.5)


def test_what_a_rule_cannot_cover_is_named():
    x = torch.randn(2, 4)
    for norm, words in ((Hidden(), "normalize outside any norm"), (HandNorm(), "0 of 1")):
        model = Model.of(nn.Sequential(nn.Linear(4, 4), norm, nn.Linear(4, 1)), name="odd", inputs=x)
        with pytest.raises(Unsupported, match=words), b.frozen_norms(model):
            model.run(x, ["0"], grad=True)
    plain = Model.of(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 1)), name="plain", inputs=x)
    with pytest.raises(Unsupported, match="nothing for it to cover"), b.frozen_norms(plain):
        plain.run(x, ["0"], grad=True)
    with pytest.raises(Unsupported, match="can be tapped"), b.softmax_temperature(plain):
        pass
    with pytest.raises(Unsupported, match="MLPs are known"), b.half_gates(plain):
        pass
    with pytest.raises(Unsupported, match="0 of 2"), b.half_gates(opened("gpt2")):
        opened("gpt2").run(TOKENS, ["resid_pre.0"], grad=True)
    with pytest.raises(BadInput, match="more than 0"), b.softmax_temperature(opened("gpt2"), 0):
        pass
    opened("gpt2").run(TOKENS)  # and the model still runs


def test_a_metric_inside_the_block_is_not_touched():
    """The rule is for the network's attention, not for a softmax in what is made of its output."""
    model = opened("gpt2")
    with b.softmax_temperature(model, 5.0):
        trace = model.run(TOKENS, ["final_norm"], grad=True)
        inside = trace.output[:, -1].softmax(-1)[:, 3].sum()
        (got,) = torch.autograd.grad(inside, [trace["final_norm"]])
    trace = model.run(TOKENS, ["final_norm"], grad=True)
    (expected,) = torch.autograd.grad(trace.output[:, -1].softmax(-1)[:, 3].sum(), [trace["final_norm"]])
    assert torch.allclose(got, expected, atol=1e-6)
