"""Names of sites in other projects' files: translated where they mean one tensor on every model, else kept."""

import pytest

from prosect.decompose.formats.gemma_scope_2 import _site
from prosect.decompose.formats.places import from_hook, from_module, has_heads, to_hook
from prosect.model.sites import KINDS


@pytest.mark.parametrize(
    ("hook", "head", "site"),
    [
        ("blocks.3.hook_resid_pre", None, "resid_pre.3"),
        ("blocks.11.hook_mlp_out", None, "mlp_out_post.11"),
        ("blocks.0.attn.hook_z", None, "z.0"),
        ("blocks.0.attn.hook_z", 4, "z.0.h4"),
        ("blocks.0.hook_resid_pre", 4, "resid_pre.0"),  # it has no heads
        ("blocks.2.ln2.hook_normalized", None, "blocks.2.ln2.hook_normalized"),  # depends on the model
        ("blocks.2.attn.hook_q", None, "blocks.2.attn.hook_q"),
        ("blocks.2.attn.hook_q", 1, None),  # neither can be said: it must be asked for
        ("blocks.2.attn.hook_v", 1, "v.2.h1"),
        ("hook_embed", None, "hook_embed"),
        ("blocks.1.hook_mlp_in", None, "blocks.1.hook_mlp_in"),  # never the tensor of that name here
        ("model.layers.12", None, "resid_post.12"),
        ("transformer.h.3.mlp", None, "mlp_out.3"),
        ("gpt_neox.layers.3.attention", None, "attn_out.3"),
        ("layers.0.self_attn", None, "attn_out.0"),
        ("model.embed_tokens", None, "embeddings"),
        ("vision.tower.5", None, "vision.tower.5"),
        ("model.layers.3.mlp.experts.2", None, "model.layers.3.mlp.experts.2"),
    ],
)
def test_names_in_files(hook, head, site):
    assert from_hook(hook, head) == site


@pytest.mark.parametrize(
    ("path", "site"),
    [
        ("layers.3", "resid_pre.3"),
        ("layers.3.mlp", "mlp_in.3"),
        ("h.3.attn", "attn_in.3"),
        ("some.module", "some.module:in"),
    ],
)
def test_inputs_of_modules(path, site):
    assert from_module(path, "in") == site


@pytest.mark.parametrize(
    ("point", "site"),
    [
        ("model.layers.3.output", "resid_post.3"),
        ("model.layers.3.input", "resid_pre.3"),
        ("model.layers.3.self_attn.o_proj.input", "z.3"),
        ("model.layers.3.pre_feedforward_layernorm.output", "mlp_in.3"),
        ("model.layers.3.post_feedforward_layernorm.output", "mlp_out_post.3"),
        ("model.layers.3.mlp.output", "mlp_out.3"),
        ("model.layers.3.odd.input", "model.layers.3.odd:in"),
        ("what is this", "what is this"),
        (None, None),
    ],
)
def test_hook_points_of_gemma_scope_2(point, site):
    assert _site(point) == site


def test_every_site_is_written_by_a_name_that_is_read_as_it():
    for kind in KINDS.values():
        sites = [f"{kind.name}.7" if kind.layered else kind.name]
        sites += [f"{sites[0]}.h1"] if kind.heads else []
        for site in sites:
            assert from_hook(*to_hook(site)) == site


def test_heads():
    assert has_heads("z.3")
    assert has_heads("blocks.3.attn.hook_q")
    assert not has_heads("z.3.h1")
    assert not has_heads("resid_post.3")
    assert not has_heads("a.module")
