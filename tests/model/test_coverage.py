"""Architectures of every kind open, and a wrong tensor under a right name is caught on each of them."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from prosect.core.errors import UnknownName, Unsupported
from prosect.model import coverage
from prosect.model import edits as e
from prosect.model.coverage import Covered, additive_errors, cover, examine
from prosect.model.families import build, types
from prosect.model.model import Model

SAMPLE = [
    "bert",  # norms on the stream
    "bloom",  # sublayers that return the stream
    "deepseek_v3",  # multi-latent attention, experts
    "falcon_h1",  # attention and a state-space mixer side by side, each scaled
    "gemma2",  # norms after each sublayer, capped scores
    "gemma4_text",  # the embeddings handed to every block
    "gpt_neox",  # attention and MLP side by side
    "granitemoehybrid",  # constants on what is added, two MLPs side by side
    "llama",
    "mamba2",
    "mixtral",
    "olmo2",  # norms after each sublayer and none before
    "openai-gpt",
    "qwen3_next",  # gates after the heads, linear attention
    "rwkv",  # a norm before the first block
    "zamba",  # blocks that read the embeddings again
]


@pytest.fixture(scope="module")
def checked():
    """type → an open small random model of it."""
    made = {}

    def get(name):
        if name not in made:
            made[name] = Model.of(build(name), name=name)
        return made[name]

    return get


@pytest.mark.parametrize("name", SAMPLE)
def test_what_a_block_adds_is_named_and_adds_up(checked, name):
    model = checked(name)
    errors = additive_errors(model, seed=3)
    assert len(errors) == model.n_layers >= 2
    assert max(errors) < 1e-4
    assert model.report.identical


@pytest.mark.parametrize("name", SAMPLE)
def test_every_weight_is_random(name):
    for path, parameter in build(name).named_parameters():
        if parameter.is_floating_point() and parameter.numel() > 1:
            assert parameter.unique().numel() > 1, path


# What stands where, on each kind of block: (type, site, where a naive map would look for it)
NAIVE = [
    ("gemma2", "attn_out_post.0", "attn_out.0"),  # before the norm that follows
    ("olmo2", "attn_out_post.1", "attn_out.1"),
    ("olmo2", "mlp_out_post.0", "mlp_out.0"),
    ("bert", "attn_out_post.0", "resid_mid.0"),  # the module's output includes the stream
    ("bert", "mlp_out_post.1", "resid_post.1"),
    ("gpt_neox", "mlp_out_post.0", "attn_out_post.0"),
    ("deepseek_v3", "attn_out_post.0", "z.0"),
    ("deepseek_v3", "mlp_out_post.1", "mlp_in.1"),
    ("mixtral", "mlp_out_post.0", "mlp_in.0"),
    ("llama", "attn_out_post.1", "attn_in.1"),
]


@pytest.mark.parametrize(("name", "site", "naive"), NAIVE)
def test_the_wrong_tensor_is_refused(name, site, naive):
    model = Model.of(build(name), check=False)
    assert max(additive_errors(model)) < 1e-4
    entries = model.sites._entries
    entries[site] = replace(entries[site], place=entries[naive].place, split=False)
    model.sites._asked.clear()  # it was opened, and asked where they lie, before
    assert not max(additive_errors(model)) < 1e-2
    model.check()
    assert site in model.sites.refused


def test_what_bloom_adds_is_not_what_its_modules_return(checked):
    model = checked("bloom")
    ids = torch.randint(90, (2, 5))
    trace = model.run(
        ids, ["resid_pre.1", "attn_out_post.1", "resid_mid.1", "transformer.h.1.self_attention"]
    )
    returned = trace["transformer.h.1.self_attention"]
    assert torch.equal(returned, trace["resid_mid.1"])  # the stream is in it
    own = model.module.transformer.h[1].self_attention.dense
    z = model.run(ids, ["z.1"])["z.1"].flatten(2)
    assert torch.allclose(trace["attn_out_post.1"], own(z), atol=1e-5)


def test_a_scaled_part_is_read_and_written_as_it_is_added(checked):
    model = checked("granitemoehybrid")
    multiplier = model.module.config.residual_multiplier
    assert multiplier != 1
    ids = torch.randint(90, (2, 5))
    trace = model.run(ids, ["attn_out_post.1", "attn_out.1", "resid_pre.1", "resid_mid.1"])
    assert torch.allclose(trace["attn_out_post.1"], multiplier * trace["attn_out.1"], atol=1e-6)
    put = torch.randn(2, 5, 64)
    edited = model.run(ids, ["attn_out_post.1", "resid_mid.1"], [e.patch("attn_out_post.1", put)])
    assert torch.allclose(edited["resid_mid.1"], trace["resid_pre.1"] + put, atol=1e-5)
    assert torch.allclose(edited["attn_out_post.1"], put, atol=1e-6)
    nothing = model.run(ids, [], [e.scale("attn_out_post.1", 1.0)])
    assert torch.equal(nothing.output, model.run(ids).output)
    read = model.run(ids, ["attn_out_post.1"], grad=True)
    (gradient,) = torch.autograd.grad(read.output[:, -1, 3].sum(), read["attn_out_post.1"])
    step = 1e-3 * torch.randn(2, 5, 64)
    ahead = model.run(ids, [], [e.patch("attn_out_post.1", trace["attn_out_post.1"] + step)]).output
    behind = model.run(ids, [], [e.patch("attn_out_post.1", trace["attn_out_post.1"] - step)]).output
    slope = (ahead - behind)[:, -1, 3].sum() / 2
    assert torch.allclose(slope, (gradient * step).sum(), rtol=0.05, atol=1e-4)


def test_the_two_readings_agree_where_both_find_the_model():
    """interp-engine's map, made by others, against sums alone."""
    from prosect.model.anatomy import Anatomy
    from prosect.model.engine import decoder, engine
    from prosect.model.inputs import example_for
    from prosect.model.probe import probe
    from prosect.model.stacks import stacked

    for name in ("llama", "gemma2", "gpt2", "gpt_neox", "olmo2", "mixtral", "falcon"):
        module = build(name)
        paths = {id(m): path for path, m in module.named_modules()}
        seen = probe(module, example_for(module))
        theirs, ours = Anatomy(), Anatomy(heads=module.config.num_attention_heads)
        decoder(theirs, seen, paths, engine(module))
        assert stacked(ours, seen, paths, module)
        for site, entry in theirs.entries.items():
            if entry.place.inside or site not in ours.entries:
                assert site in ours.entries, (name, site)
                continue
            a, b = seen.value(entry.place), seen.value(ours.entries[site].place)
            assert torch.equal(a, b), (name, site)


def test_gated_heads_are_read_before_their_gate(checked):
    model = checked("qwen3_next")
    layer = next(i for i in range(model.n_layers) if f"probs.{i}" in model.sites)
    trace = model.run(torch.randint(90, (2, 5)), [f"{k}.{layer}" for k in ("probs", "v", "z")])
    v = trace[f"v.{layer}"].repeat_interleave(2, dim=2)
    assert torch.allclose(
        trace[f"z.{layer}"], torch.einsum("rhqk,rkhd->rqhd", trace[f"probs.{layer}"], v), atol=1e-5
    )


def test_a_type_is_examined_and_never_raises():
    found = examine("doge")
    assert found.outcome == "refused" and "contributions off by" in found.reason
    assert examine("llama").outcome == "opens"
    assert examine("prophetnet").reason.endswith("for 2 rows of 6 positions")  # two streams in one
    with pytest.raises(UnknownName, match="llama"):
        examine("lama")


def test_a_worker_goes_on_after_a_type_that_takes_too_long(monkeypatch):
    monkeypatch.setattr(coverage, "START", 0.0)  # nothing can begin in no time
    late, *_ = cover(["llama"], seconds=0.01)
    assert late == Covered("llama", "refused", reason="it took longer than 0.01 s", seconds=0.01)
    monkeypatch.undo()
    found = list(cover(["llama", "mamba"]))
    assert [one.outcome for one in found] == ["opens", "opens"]
    assert all(one.additive < 1e-4 for one in found)
    with pytest.raises(UnknownName):
        list(cover(["lama"]))


def test_types_are_those_of_transformers():
    assert len(types()) > 100 and "llama" in types()


class Plain(nn.Module):
    """Two blocks of a stream written by hand, without a configuration: x + f(norm(x)), twice."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(5, 8)
        self.blocks = nn.ModuleList(Residual() for _ in range(2))
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        x = self.embed(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


class Residual(nn.Module):
    """One MLP and one recurrent layer, each added at a factor."""

    def __init__(self):
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(8), nn.Linear(8, 12), nn.Linear(12, 8)
        self.over = nn.GRU(8, 8, batch_first=True)

    def forward(self, x):
        x = x + 0.5 * self.over(x)[0]
        return x + self.down(torch.relu(self.up(self.norm(x))))


def test_any_stack_of_blocks_is_read_without_a_configuration():
    torch.manual_seed(0)
    model = Model.of(Plain(), inputs=torch.randn(2, 4, 5))
    assert model.report.passed and max(additive_errors(model)) < 1e-5
    assert {"mixer_out_post.0", "mlp_out_post.1", "mlp_act.0", "resid_mid.1"} <= set(model.sites.names())
    x = torch.randn(2, 4, 5)
    trace = model.run(x, ["mixer_out_post.0", "blocks.0.over", "mlp_act.0", "blocks.0.up"])
    assert torch.allclose(trace["mixer_out_post.0"], 0.5 * trace["blocks.0.over"])
    assert torch.equal(trace["mlp_act.0"], torch.relu(trace["blocks.0.up"]))


def test_a_site_inside_a_fused_kernel_is_refused_by_name():
    model = Model.of(Wrapped(), inputs=torch.randn(2, 4, 8))
    with pytest.raises(Unsupported, match="fused kernel of a MultiheadAttention"):
        model.run(torch.randn(2, 4, 8), ["attention.out_proj"])


class Wrapped(nn.Module):
    """torch's own attention, which computes its projections as functions."""

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x):
        return self.attention(x, x, x, need_weights=False)[0]


def test_gradients_through_a_quantised_model_are_refused_by_name():
    class Stored(nn.Module):
        """A layer that keeps its weight as small integers."""

        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3, 3, dtype=torch.int8), requires_grad=False)

        def forward(self, x):
            return x @ (self.weight.to(x.dtype) * 0.1)

    model = Model.of(nn.Sequential(nn.Linear(3, 3), Stored()), inputs=torch.ones(2, 3))
    assert model.run(torch.ones(2, 3), ["0"])["0"].shape == (2, 3)
    with pytest.raises(Unsupported, match="gradients through 1, a quantised Stored"):
        model.run(torch.ones(2, 3), ["0"], grad=True)


@pytest.mark.parametrize("name", ["deepseek_v3", "gemma2", "olmo2", "falcon_h1"])
def test_probabilities_are_those_that_transformers_reports(checked, name):
    """Grouped, capped and multi-latent attention, against the family's own eager code."""
    model = checked(name)
    ids = model.example.tensors["input_ids"]
    before = model.module.config._attn_implementation
    model.module.config._attn_implementation = "eager"
    try:
        with torch.no_grad():
            theirs = model.module(ids, output_attentions=True).attentions
    finally:
        model.module.config._attn_implementation = before
    for layer, expected in enumerate(theirs):
        got = model.run(ids, [f"probs.{layer}"])[f"probs.{layer}"]
        assert torch.allclose(got, expected, atol=1e-5)
