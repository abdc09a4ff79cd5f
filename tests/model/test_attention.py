"""Inside attention: the same numbers as the family's own eager attention, and edits that reach the output."""

import pytest
import torch

from prosect.core.errors import Unsupported
from prosect.model import edits as e
from prosect.model.attention import attention
from prosect.model.inputs import of_ids

ROUTED = ["gpt2", "llama", "neox", "gemma2", "qwen3", "gpt-oss", "decoder", "bert"]


def eager(model, ids):
    """The probabilities that transformers itself reports."""
    before = model.module.config._attn_implementation
    model.module.config._attn_implementation = "eager"
    try:
        with torch.no_grad():
            out = model.module(ids, output_attentions=True)
    finally:
        model.module.config._attn_implementation = before
    return out


@pytest.mark.parametrize("name", [n for n in ROUTED if n != "decoder"])
def test_probabilities_are_those_of_the_family_s_own_attention(opened, tokens, name):
    model = opened(name)
    theirs = eager(model, tokens())
    trace = model.run(tokens(), ["probs.0", "probs.1"])
    for layer in range(2):
        assert torch.allclose(trace[f"probs.{layer}"], theirs.attentions[layer], atol=1e-6)


@pytest.mark.parametrize("name", ROUTED)
def test_every_quantity_follows_from_the_one_before(opened, tokens, name):
    model = opened(name)
    trace = model.run(tokens(), [f"{kind}.0" for kind in ("q", "k", "v", "scores", "probs", "z")])
    probs, v, z = trace["probs.0"], trace["v.0"], trace["z.0"]
    groups = z.shape[2] // v.shape[2]
    for head in range(z.shape[2]):
        expected = probs[:, head] @ v[:, :, head // groups]
        assert torch.allclose(z[:, :, head], expected, atol=1e-5)
    if name != "gpt-oss":  # its softmax has a column more
        assert torch.allclose(trace["scores.0"].softmax(-1), probs, atol=1e-6)
    raw = torch.einsum("rqhd,rkhd->rhqk", trace["q.0"], trace["k.0"].repeat_interleave(groups, dim=2))
    reachable = trace["scores.0"] > -1e30
    ratio = trace["scores.0"][reachable] / raw[reachable]
    if name == "gemma2":
        capped = 2 * torch.tanh(raw * model.module.config.query_pre_attn_scalar**-0.5 / 2)
        assert torch.allclose(trace["scores.0"][reachable], capped[reachable], atol=1e-5)
    else:
        assert torch.allclose(ratio, ratio[0].expand_as(ratio), rtol=1e-2)


def test_masked_keys_hold_the_lowest_number_and_no_edit_opens_them(opened, tokens):
    model = opened("gemma2")  # a sliding window of 4 in its first layer
    trace = model.run(tokens(), ["scores.0", "probs.0"])
    apart = torch.arange(7)[:, None] - torch.arange(7)[None]
    masked = (apart < 0) | (apart >= 4)
    assert (trace["scores.0"][:, :, masked] == torch.finfo(torch.float32).min).all()
    assert (trace["probs.0"][:, :, masked] == 0).all()
    flat = model.run(tokens(), ["scores.0", "probs.0"], [e.zero("scores.0")])
    assert (flat["scores.0"][:, :, masked] == torch.finfo(torch.float32).min).all()
    counts = (~masked).sum(1).float()
    assert torch.allclose(flat["probs.0"].amax(-1), (1 / counts).expand(3, 4, 7))
    ones = model.run(tokens(), ["probs.0"], [e.patch("probs.0", torch.ones(7))])["probs.0"]
    assert torch.equal(ones, (~masked).float().expand(3, 4, 7, 7))


def test_padding_is_neither_query_nor_key_of_an_edit(opened):
    model = opened("bert")  # every real token sees every other; padding is masked
    batch = of_ids([[1, 2, 3], [4, 5, 6, 7, 8]])
    plain = model.run(batch, ["probs.0"])["probs.0"]
    got = model.run(batch, ["probs.0"], [e.scale("probs.0", 0.5, positions=[-1])])["probs.0"]
    expected = plain.clone()
    expected[0, :, 2, :3] *= 0.5
    expected[1, :, 4, :] *= 0.5
    assert torch.equal(got, expected)


@pytest.mark.parametrize("name", ROUTED)
@pytest.mark.parametrize("kind", ["q", "k", "v", "scores", "probs", "z"])
def test_editing_one_head_moves_the_output(opened, tokens, name, kind):
    model = opened(name)
    plain = model.run(tokens(), [f"{kind}.1"])
    moved = model.run(tokens(), [f"{kind}.1"], [e.scale(f"{kind}.1.h1", 0.2)])
    assert (moved.output - plain.output).abs().max() > 1e-5
    axis = 1 if kind in ("scores", "probs") else 2
    others = [h for h in range(plain[f"{kind}.1"].shape[axis]) if h != 1]
    same = [t[f"{kind}.1"].index_select(axis, torch.tensor(others)) for t in (plain, moved)]
    assert torch.equal(*same)


def test_a_shared_key_head_serves_its_whole_group_of_queries(opened, tokens):
    model = opened("llama")  # 4 query heads over 2 key heads
    plain = model.run(tokens(), ["probs.0"])["probs.0"]
    moved = model.run(tokens(), ["probs.0"], [e.scale("k.0.h1", 0.1)])["probs.0"]
    changed = [(plain[:, h] - moved[:, h]).abs().max() > 1e-4 for h in range(4)]
    assert changed == [False, False, True, True]


def test_queries_and_keys_are_after_the_rotary_embedding(opened):
    model = opened("llama")
    same = model.run(torch.full((1, 6), 7), ["q.0", "v.0"])
    assert not torch.allclose(same["q.0"][0, 0], same["q.0"][0, 5], atol=1e-3)
    assert torch.allclose(same["v.0"][0, 0], same["v.0"][0, 5], atol=1e-5)
    lengths = same["q.0"].norm(dim=-1)
    assert torch.allclose(lengths[:, :1].expand_as(lengths), lengths, atol=1e-4)


def test_z_alone_leaves_the_model_its_own_kernel(opened, tokens, monkeypatch):
    import prosect.model.taps as taps

    model = opened("llama")
    monkeypatch.setattr(taps, "routed", lambda *a: pytest.fail("attention was routed"))
    trace = model.run(tokens(), ["z.0", "z.1"], [e.zero("z.0.h1")])
    assert trace["z.0"].shape == (3, 7, 4, 8)


def test_patching_the_pattern_of_another_run_gives_its_mixing(opened, tokens):
    model = opened("qwen3")
    other = model.run(tokens(1), ["probs.0"])["probs.0"]
    mixed = model.run(tokens(0), ["z.0", "v.0"], [e.patch("probs.0.h2", other[:, 2])])
    assert torch.allclose(mixed["z.0"][:, :, 2], other[:, 2] @ mixed["v.0"][:, :, 1], atol=1e-5)


def test_families_that_keep_their_own_attention_are_refused_by_name(opened, tokens):
    with pytest.raises(Unsupported, match="AttentionInterface"):
        opened("bloom").run(tokens(), ["probs.0"])
    assert opened("bloom").run(tokens(), ["z.0"])["z.0"].shape == (3, 7, 4, 8)


def test_a_boolean_mask_a_bias_and_sinks():
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 3, 4, 5, generator=generator) for _ in range(3))
    mask = torch.ones(4, 4, dtype=torch.bool).tril()[None, None]
    bias = torch.randn(1, 3, 4, 4, generator=generator)
    out, probs = attention(torch.nn.Identity(), q, k, v, mask, position_bias=bias)
    added = bias.masked_fill(~mask, -torch.inf)
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=added)
    assert torch.allclose(out.transpose(1, 2), expected, atol=1e-6)
    assert torch.allclose(probs.sum(-1), torch.ones(2, 3, 4))
    _, weak = attention(torch.nn.Identity(), q, k, v, mask, s_aux=torch.zeros(3))
    scores = (q @ k.transpose(-1, -2) * 5**-0.5).masked_fill(~mask, -torch.inf).exp()
    assert torch.allclose(weak, scores / (scores.sum(-1, keepdim=True) + 1), atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_short_dtypes_stay_themselves(network, tokens, dtype):
    from prosect.model.model import Model

    model = Model.of(network("llama").to(dtype))
    trace = model.run(tokens(), ["scores.0", "probs.0", "q.0", "resid_mid.0"])
    assert {t.dtype for t in trace.values.values()} == {dtype}
    assert not model.sites.refused
