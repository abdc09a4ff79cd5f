"""Passes: what is read is what flows, and nothing is left behind."""

import pytest
import torch
from torch import nn

from prosect.core.errors import BadInput, NotFinite, ShapeMismatch, UnknownName, Unsupported
from prosect.data.batch import Batch, Row
from prosect.model import edits as e
from prosect.model.inputs import of_ids
from prosect.model.model import Model

FAMILIES = ["gpt2", "llama", "neox", "gemma2", "qwen3", "gpt-oss", "bloom", "mamba", "decoder", "bert"]


def bare(model, ids):
    with torch.no_grad():
        out = model.module(ids)
    return out.logits if hasattr(out, "logits") else out.last_hidden_state


def boundary(model):
    return [n for n in model.sites.names() if not model.sites.entry(model.sites.site(n)).place.inside]


def hooks(module):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in module.modules())


@pytest.mark.parametrize("name", FAMILIES)
def test_a_pass_with_and_without_boundary_sites_is_bit_identical(opened, tokens, name):
    model = opened(name)
    expected = bare(model, tokens())
    assert torch.equal(model.run(tokens()).output, expected)
    assert torch.equal(model.run(tokens(), boundary(model)).output, expected)


@pytest.mark.parametrize("name", FAMILIES)
def test_tapping_attention_agrees_to_rounding(opened, tokens, name):
    model = opened(name)
    expected = bare(model, tokens())
    got = model.run(tokens(), model.sites.names()).output
    assert (got - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_hidden_states_are_those_of_transformers(opened, tokens):
    model = opened("gemma2")
    with torch.no_grad():
        theirs = model.module(tokens(), output_hidden_states=True).hidden_states
    trace = model.run(tokens(), ["resid_pre.0", "resid_pre.1", "final_norm"])
    for name, expected in zip(("resid_pre.0", "resid_pre.1", "final_norm"), theirs, strict=True):
        assert torch.equal(trace[name], expected)


def test_captures_are_references_and_any_name_will_do(opened, tokens):
    model = opened("gpt2")
    seen = {}
    block = model.module.transformer.h[0].register_forward_hook(lambda m, a, out: seen.update(block=out))
    trace = model.run(tokens(), ["blocks.0.hook_resid_post", "transformer.h.0.mlp.c_proj:in", "z.0.h1"])
    block.remove()
    out = seen["block"][0] if isinstance(seen["block"], tuple) else seen["block"]
    assert trace["resid_post.0"].data_ptr() == out.data_ptr()
    assert trace["blocks.0.hook_resid_post"] is trace["resid_post.0"]
    assert torch.equal(
        trace["transformer.h.0.mlp.c_proj:in"], model.run(tokens(), ["mlp_act.0"])["mlp_act.0"]
    )
    assert trace["z.0.h1"].data_ptr() == trace["z.0"][:, :, 1].data_ptr()
    assert not trace["resid_post.0"].requires_grad
    assert trace.sites == ("z.0", "transformer.h.0.mlp.c_proj:in", "resid_post.0")
    assert "resid_post.0" in trace
    assert "resid_post.1" not in trace
    assert trace.flat("resid_post.0").shape == (21, 32)
    assert "resid_post.0" in trace._repr_html_()
    with pytest.raises(UnknownName, match="capture="):
        trace["resid_post.1"]


@pytest.mark.parametrize("name", ["gpt2", "gemma2", "decoder"])
@pytest.mark.parametrize("site", ["resid_pre.1", "resid_mid.0", "resid_post.0"])
def test_patching_the_whole_stream_gives_the_other_run(opened, tokens, name, site):
    model = opened(name)
    other = model.run(tokens(1), [site])
    assert torch.equal(model.run(tokens(0), [], [e.patch(site, other[site])]).output, other.output)


def test_opening_and_running_change_nothing_that_can_be_seen(network, tokens):
    module = network("llama").train()
    module.model.layers[0].eval()
    module.lm_head.weight.requires_grad_(False)
    modes = [m.training for m in module.modules()]
    grads = [p.requires_grad for p in module.parameters()]
    weights = {k: v.clone() for k, v in module.state_dict().items()}
    config = module.config.to_dict()
    attention = module.config._attn_implementation
    torch.manual_seed(3)
    state = torch.get_rng_state()
    model = Model.of(module)
    model.run(tokens(), model.sites.names())
    assert modes == [m.training for m in module.modules()]
    assert grads == [p.requires_grad for p in module.parameters()]
    assert all(torch.equal(v, weights[k]) for k, v in module.state_dict().items())
    assert config == module.config.to_dict()
    assert module.config._attn_implementation == attention
    assert torch.equal(state, torch.get_rng_state())
    assert hooks(module) == 0
    assert torch.is_grad_enabled()


def test_nothing_is_left_behind_after_an_exception(opened, tokens):
    model = opened("llama")
    before, attention = hooks(model.module), model.module.config._attn_implementation
    handle = model.module.model.layers[1].register_forward_hook(lambda m, a, o: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        model.run(tokens(), [*model.sites.names()], [e.zero("resid_post.0")])
    handle.remove()
    assert hooks(model.module) == before
    assert model.module.config._attn_implementation == attention
    assert torch.equal(model.run(tokens()).output, bare(model, tokens()))


def test_what_others_have_hung_on_a_module_or_put_in_it_stays_and_comes_first(network, tokens):
    model = Model.of(network("gpt2"), check=False)
    block, norm = model.module.transformer.h[0].mlp, model.module.transformer.ln_f
    plain, forward = model.run(tokens(), ["mlp_out.0"]), norm.forward
    norm.forward = lambda x: forward(x) * 2
    given = vars(norm)["forward"]
    handle = block.register_forward_hook(lambda _m, _a, out: out + 1)
    changed = model.run(tokens(), ["mlp_out.0", "final_norm"])
    assert torch.equal(changed["mlp_out.0"], plain["mlp_out.0"] + 1)
    last = model.run(tokens(), ["resid_post.1"])["resid_post.1"]
    assert torch.equal(changed["final_norm"], 2 * forward(last))
    assert vars(norm)["forward"] is given
    zeroed = model.run(tokens(), ["mlp_out.0"], [e.zero("mlp_out.0")])
    assert (zeroed["mlp_out.0"] == 0).all()  # an edit is made of what the hook gave
    handle.remove()
    del norm.forward
    assert torch.equal(model.run(tokens()).output, plain.output)
    assert hooks(model.module) == 0
    assert not any("forward" in vars(m) for m in model.module.modules())


def test_dropout_and_batch_norm_are_off_during_a_pass(small):
    model, image = small("cnn")
    model.module.train()
    mean = model.module.norm.running_mean.clone()
    first, second = model.run(image).output, model.run(image).output
    assert torch.equal(first, second)
    assert torch.equal(mean, model.module.norm.running_mean)
    assert model.module.drop.training


def test_what_a_model_overwrites_is_read_as_it_was(small):
    model, image = small("cnn")
    conv = nn.functional.conv2d(image, model.module.conv.weight, model.module.conv.bias)
    assert (conv < 0).any()
    for _ in range(2):  # found out in the first pass, known in the second
        assert torch.allclose(model.run(image, ["conv", "act"])["conv"], conv)


def test_modules_called_again_are_addressed_by_call(small):
    model, x = small("shared")
    layer = model.module.layer
    trace = model.run(x, ["layer@0", "layer@2", "layer@1:in".replace("@1:in", ":in@1")])
    first = layer(x)
    assert torch.allclose(trace["layer@0"], first)
    assert torch.allclose(trace["layer:in@1"], torch.tanh(first))
    assert torch.allclose(torch.tanh(trace["layer@2"]), trace.output)
    edited = model.run(x, ["layer@1", "layer@0"], [e.zero("layer@1")])
    assert (edited["layer@1"] == 0).all()
    assert torch.allclose(edited.output, torch.tanh(layer.bias).expand(3, 4))
    with pytest.raises(BadInput, match=r"ran 3 times.*layer@0 to layer@2"):
        model.run(x, ["layer"])
    with pytest.raises(BadInput, match="ran 3 times"):
        model.run(x, [], [e.zero("layer")])
    with pytest.raises(BadInput, match="layer@3"):
        model.run(x, ["layer@3"])


def test_modules_that_need_not_run_are_declared(small):
    model, x = small("shared")
    with pytest.raises(BadInput, match=r"did not run.*rare\?"):
        model.run(x, ["rare"])
    trace = model.run(x, ["rare?"], [e.zero("rare?")])
    assert "rare?" not in trace
    assert torch.equal(trace.output, model.run(x).output)


@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("site", ["resid_pre.0", "resid_mid.0", "z.0", "q.1", "probs.0", "mlp_act.1"])
def test_gradients_agree_with_finite_differences(network, tokens, site, frozen):
    model = Model.of(network("gpt2").double(), check=False)  # Llama's norm computes in float32
    model.module.requires_grad_(not frozen)
    ids = tokens()[:1, :4]
    trace = model.run(ids, [site, "resid_post.1"], grad=True)
    weights = torch.randn(trace.output.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    gradient, later = torch.autograd.grad(
        (trace.output * weights).sum(), [trace[site], trace["resid_post.1"]]
    )
    assert later.abs().max() > 0
    step = torch.randn(gradient.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    step = step.tril() if site == "probs.0" else step
    value = trace[site].detach()

    def at(size):
        return float((model.run(ids, [], [e.patch(site, value + size * step)]).output * weights).sum())

    numeric = (at(1e-5) - at(-1e-5)) / 2e-5
    assert float((gradient * step).sum()) == pytest.approx(numeric, rel=1e-5, abs=1e-6)
    assert all(p.grad is None for p in model.module.parameters())


def test_gradients_of_values_that_are_put_in(opened, tokens):
    model = opened("gpt2")
    v = torch.zeros(32).requires_grad_(True)
    out = model.run(tokens(), [], [e.patch("resid_mid.0", v.expand(1, 1, 32) + 0)], grad=True).output
    assert torch.autograd.grad(out.sum(), v)[0].abs().sum() > 0
    trace = model.run(tokens(), ["resid_pre.0"], [e.freeze("resid_post.0")], grad=True)
    (gradient,) = torch.autograd.grad(trace.output.sum(), trace["resid_pre.0"], allow_unused=True)
    assert gradient is None
    with pytest.raises(Unsupported, match="whole site"):
        model.run(tokens(), ["z.0.h1"], grad=True)["z.0.h1"]


def test_stopping_early_reads_the_same_and_runs_no_further(opened, tokens):
    model = opened("gpt2")
    before, ran = hooks(model.module), []
    handle = model.module.transformer.h[1].register_forward_pre_hook(lambda m, a: ran.append(1))
    trace = model.run(tokens(), ["mlp_act.0", "embeddings"], stop_early=True)
    beyond = model.run(tokens(), ["resid_pre.0"], [e.zero("resid_post.1")], stop_early=True)
    handle.remove()
    assert not ran
    assert beyond.sites == ("resid_pre.0",)
    assert torch.equal(trace["mlp_act.0"], model.run(tokens(), ["mlp_act.0"])["mlp_act.0"])
    with pytest.raises(BadInput, match="stopped early"):
        trace.output  # noqa: B018
    assert hooks(model.module) == before


def test_what_is_not_finite_is_named_with_its_rows(network, tokens):
    model = Model.of(network("gpt2"), check=False)
    bad = torch.zeros(3, 1, 32)
    bad[1] = torch.nan
    with pytest.raises(NotFinite, match=r"resid_post\.0 in row 1\b"):
        model.run(tokens(), ["resid_pre.0", "resid_post.0"], [e.patch("resid_post.0", bad)])
    with pytest.raises(NotFinite, match="the output in row 1"):
        model.run(tokens(), [], [e.patch("resid_post.0", bad)])
    assert model.run(tokens(), [], [e.patch("resid_post.0", bad)], finite=False).output.isnan().any()
    huge = torch.full((32,), 3e38)  # finite, though their sum is not
    model.run(tokens(), ["mlp_act.1"], [e.patch("final_norm", huge * 0 + 1)])
    trace = model.run(tokens(), ["resid_post.1"], [e.patch("resid_post.1", huge)], finite=False)
    assert torch.isfinite(trace["resid_post.1"]).all()
    assert not torch.isfinite(trace["resid_post.1"].sum())
    model.run(
        tokens(),
        ["resid_post.1"],
        [e.patch("resid_post.1", huge), e.scale("resid_post.1", 0.9)],
        stop_early=True,
    )


class Lookup(nn.Module):
    """Each position by itself; token 0, which padding holds, is not a number."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(5, 3)
        self.head = nn.Linear(3, 2)
        with torch.no_grad():
            self.table.weight[0] = torch.nan

    def forward(self, input_ids):
        return self.head(self.table(input_ids))


def test_padding_may_hold_anything():
    model = Model.of(Lookup(), inputs={"input_ids": torch.tensor([[1, 2, 3]])})
    trace = model.run(of_ids([[1, 2], [3, 4, 1, 2]]), ["table"])
    assert trace["table"].isnan().any()
    assert torch.isfinite(trace.flat("table")).all()
    with pytest.raises(NotFinite, match=r"site table in row 1;"):
        model.run(of_ids([[1, 2], [3, 0, 1, 2]]), ["table"])


def test_a_pass_within_a_pass_is_refused(opened, tokens):
    model = opened("gpt2")
    with pytest.raises(BadInput, match="within a pass"):
        model.run(tokens(), [], [e.replace("resid_post.0", lambda x: model.run(tokens()).output)])
    assert torch.equal(model.run(tokens()).output, bare(model, tokens()))


def test_inputs_that_do_not_fit_are_refused(opened, small, tokens):
    gpt2, mlp = opened("gpt2"), small("mlp")[0]
    with pytest.raises(BadInput, match=r"token 77.*0 to 49"):
        gpt2.run(torch.tensor([[1, 77]]))
    with pytest.raises(BadInput, match=r"40 positions.*at most 32"):
        gpt2.run(torch.zeros(1, 40, dtype=torch.long))
    with pytest.raises(BadInput, match="without a tokenizer"):
        gpt2.run("some text")
    with pytest.raises(BadInput, match="row 1 without tokens"):
        gpt2.run([[1], []])
    with pytest.raises(BadInput, match=r"colour.*input"):
        mlp.run({"colour": torch.ones(1, 6)})
    with pytest.raises(BadInput, match="without rows"):
        gpt2.run(Batch({"input_ids": torch.zeros(0, 3, dtype=torch.long)}, None, ()))
    with pytest.raises(ShapeMismatch, match="right"):
        gpt2.run({"input_ids": tokens()[:1], "attention_mask": torch.tensor([[0, 1, 1, 1, 1, 1, 1]])})
    with pytest.raises(ShapeMismatch, match="mask"):
        gpt2.run(Batch({"input_ids": tokens()[:1]}, torch.ones(1, 3, dtype=torch.bool), (Row(0),)))


def test_padding_reaches_the_model_as_its_attention_mask(opened):
    model = opened("bert")
    padded = model.run(of_ids([[5, 6, 7], [1, 2, 3, 4, 5, 6]])).output[0, :3]
    assert torch.allclose(padded, model.run(of_ids([[5, 6, 7]])).output[0], atol=1e-5)


@pytest.mark.parametrize("change", ["in place", "replaced"])
def test_a_batch_changed_since_it_was_found_right_is_looked_at_again(opened, tokens, change):
    model = opened("gpt2")
    right = model.batch(tokens())
    model.run(right)
    unknown = torch.full_like(right.tensors["input_ids"], 10**6)
    if change == "in place":
        right.tensors["input_ids"].copy_(unknown)
    else:
        right.tensors["input_ids"] = unknown
    with pytest.raises(BadInput, match="token 1000000"):
        model.run(right)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("edited", ["", "resid_post.0", "last"])
def test_an_output_wanted_at_some_positions_is_that_of_the_whole_pass_there(opened, tokens, name, edited):
    model = opened(name)
    batch = model.batch(tokens())
    where = torch.rand(batch.mask.shape, generator=torch.Generator().manual_seed(1)) < 0.3
    site = f"resid_post.{model.n_layers - 1}" if edited == "last" else edited
    edits = [e.scale(site, -0.5, positions=[1])] if site else []
    whole = model.run(batch, edits=edits).output
    some = model.run(batch, edits=edits, where=where).output
    assert some.shape == whole[where].shape
    torch.testing.assert_close(some, whole[where], rtol=1e-4, atol=1e-5 * float(whole.abs().max()))


def test_what_is_not_wanted_is_not_unembedded(opened, tokens):
    model = opened("llama")
    batch = model.batch(tokens())
    where = torch.zeros_like(batch.mask)
    where[0, 2] = where[1, 1] = True
    model.run(batch, where=where)  # proved before it is counted
    seen = []
    handle = model.module.lm_head.register_forward_hook(lambda _m, given, _o: seen.append(given[0].shape[:2]))
    model.run(batch, where=where)
    handle.remove()
    assert seen == [(2, 1)]
    assert not hooks(model.module)


def test_a_model_that_mixes_positions_after_its_blocks_is_computed_whole(network, tokens):
    model = Model.of(network("gpt2"), check=False)  # one of its own: what is done to its norm stays
    norm = model.module.transformer.ln_f
    mixed = norm.forward
    norm.forward = lambda x: mixed(x - x.mean(dim=1, keepdim=True))
    batch = model.batch(tokens())
    where = torch.zeros_like(batch.mask)
    where[0, 2] = True
    assert torch.equal(model.run(batch, where=where).output, model.run(batch).output[where])


def test_where_is_checked_and_named_rows_are_the_batchs(opened, tokens):
    model = opened("llama")
    batch = model.batch(tokens())
    with pytest.raises(ShapeMismatch, match="where of shape"):
        model.run(batch, where=torch.ones(1, 2, dtype=torch.bool))
    where = torch.zeros_like(batch.mask)
    where[1, :2] = True
    bad = torch.full((model.d_model,), float("nan"))
    with pytest.raises(NotFinite, match="the output in row 1"):
        model.run(batch, edits=[e.patch("resid_post.0", bad, rows=[1])], where=where)
