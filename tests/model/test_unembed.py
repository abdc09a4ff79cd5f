"""The folded unembedding gives the model's logits; direct effects add up to them."""

import pytest
import torch
from torch import nn

from prosect.core.errors import ShapeMismatch, Unsupported
from prosect.model.unembed import measure


@pytest.mark.parametrize("name", ["gpt2", "llama", "neox", "qwen3", "decoder"])
def test_folding_gives_the_logits_up_to_the_bias(opened, tokens, name):
    model = opened(name)
    trace = model.run(tokens(), ["resid_post.1"])
    norm = measure(model._norm, model.d_model)
    x = trace["resid_post.1"]
    scaled = x / norm.scale(x)
    made = scaled @ model.unembedding.T + model._head.weight @ norm.bias.float()
    assert torch.allclose(made, trace.output, atol=1e-3)


def test_gemma_s_gain_is_one_plus_its_weight(opened, tokens):
    model = opened("gemma2")
    gain = measure(model._norm, 32).gain.float()
    assert torch.allclose(gain, 1 + model._norm.weight, atol=1e-4)
    trace = model.run(tokens(), ["resid_post.1"])
    x = trace["resid_post.1"]
    logits = (x / x.pow(2).mean(-1, keepdim=True).sqrt()) @ model.unembedding.T
    cap = model.module.config.final_logit_softcapping
    assert torch.allclose(cap * torch.tanh(logits / cap), trace.output, atol=1e-3)


@pytest.mark.parametrize("name", ["gpt2", "gemma2"])
def test_direct_effects_of_the_parts_of_the_stream_add_up(opened, tokens, name):
    model = opened(name)
    sites = ["resid_pre.0", *(f"{k}.{i}" for i in range(2) for k in ("attn_out_post", "mlp_out_post"))]
    trace = model.run(tokens(), [*sites, "resid_post.1"])
    total = sum(model.direct_effect(trace[s]) for s in sites)
    assert torch.allclose(total, model.direct_effect(trace["resid_post.1"]), atol=1e-4)
    assert total.mean(-1).abs().max() < 1e-4
    plain = model.direct_effect(trace["resid_post.1"], centred=False)
    assert torch.allclose(plain - plain.mean(-1, keepdim=True), total, atol=1e-4)


def test_what_norms_do_is_measured():
    layer = nn.LayerNorm(7)
    rms = nn.RMSNorm(6, eps=1e-6)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(7))
        layer.bias.copy_(torch.randn(7))
        rms.weight.copy_(torch.randn(6))
    for norm, centred in ((layer, True), (rms, False)):
        found = measure(norm, norm.weight.shape[0])
        assert found.centred is centred
        assert found.scaled
        x = 100 * torch.randn(5, norm.weight.shape[0])
        assert torch.allclose(found(x.double()), norm(x).double(), atol=1e-3)
    nothing = measure(nn.Identity(), 4)
    assert not nothing.scaled
    assert torch.equal(nothing.gain, torch.ones(4, dtype=torch.float64))
    assert measure(nn.Tanh(), 4) is None


def test_models_without_an_unembedding(opened, small):
    assert opened("bert").unembedding is None
    assert small("mlp")[0].unembedding is None
    with pytest.raises(Unsupported, match="direct effects"):
        opened("bert").direct_effect(torch.ones(32))
    with pytest.raises(ShapeMismatch, match="32"):
        opened("gpt2").direct_effect(torch.ones(2, 31))
    assert opened("gpt2").direct_effect(torch.ones(32)).shape == (50,)
