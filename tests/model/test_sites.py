"""The grammar of names."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prosect.core.errors import BadInput
from prosect.model.sites import KINDS, Site, from_transformerlens, parse, to_transformerlens

LAYERED = [k.name for k in KINDS.values() if k.layered]
OURS = {"resid_cross"} | {k for k in LAYERED if k.startswith(("cross_attn", "mixer"))}
OURS |= {k for k in LAYERED if "2_" in k or k.endswith("_sum")}
PATH = st.from_regex(r"[a-zA-Z_][a-zA-Z0-9_]{0,6}(\.[a-zA-Z0-9_]{1,6}){0,3}", fullmatch=True)
SITES = st.one_of(
    st.builds(
        Site,
        st.sampled_from(LAYERED),
        st.integers(0, 99),
        st.none() | st.integers(0, 9),
        call=st.none() | st.integers(0, 9),
        conditional=st.booleans(),
    ),
    st.builds(
        Site,
        st.just("module"),
        path=PATH.filter(lambda p: parse(p).kind == "module"),
        side=st.sampled_from(["in", "out"]),
        call=st.none() | st.integers(0, 9),
        conditional=st.booleans(),
    ),
)


@given(SITES)
def test_a_written_site_reads_as_itself(site):
    assert parse(str(site)) == site


def test_the_forms_of_the_grammar():
    assert parse("resid_post.3") == Site("resid_post", 3)
    assert parse("z.5.h2") == Site("z", 5, 2)
    assert parse("final_norm") == Site("final_norm")
    assert parse("a.b.c:in@2?") == Site("module", path="a.b.c", side="in", call=2, conditional=True)
    assert parse("resid_post") == Site("module", path="resid_post")  # no layer: a path, if anything
    assert parse("h.3") == Site("module", path="h.3")


@pytest.mark.parametrize("name", ["", "  ", "@1", ":in", "?"])
def test_a_name_without_a_body_is_refused(name):
    with pytest.raises(BadInput, match="site"):
        parse(name)


@pytest.mark.parametrize("kind", LAYERED)
@pytest.mark.parametrize("traits", [frozenset(), frozenset({"rotary", "gain", "scaled"})])
def test_every_named_site_has_a_transformerlens_name_that_comes_back(kind, traits):
    written = to_transformerlens(Site(kind, 4), traits)
    if kind in OURS:
        assert written is None
        return
    alias = from_transformerlens(written)
    assert alias.site == f"{kind}.4"
    assert alias.same(traits)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("blocks.3.hook_resid_pre", "resid_pre.3"),
        ("blocks.2.attn.hook_pattern", "probs.2"),
        ("blocks.1.mlp.hook_post", "mlp_act.1"),
        ("blocks.10.hook_attn_out", "attn_out_post.10"),
        ("blocks.10.attn.hook_out", "attn_out.10"),
        ("unembed.hook_in", "final_norm"),
        ("hook_embed", "embeddings"),
    ],
)
def test_transformerlens_names(theirs, ours):
    assert from_transformerlens(theirs).site == ours
    assert from_transformerlens(theirs).same(frozenset())


def test_names_that_mean_another_tensor_are_not_translated():
    rotary, gain = frozenset({"rotary"}), frozenset({"gain"})
    assert from_transformerlens("blocks.6.attn.hook_k").same(frozenset())
    assert not from_transformerlens("blocks.6.attn.hook_k").same(rotary)
    assert from_transformerlens("blocks.6.attn.hook_rot_k").same(rotary)
    assert not from_transformerlens("ln_final.hook_normalized").same(gain)
    assert from_transformerlens("ln_final.hook_normalized").same(frozenset())
    assert not from_transformerlens("blocks.0.hook_mlp_in").same(frozenset())
    assert from_transformerlens("blocks.0.hook_nonsense") is None
    assert to_transformerlens(Site("q", 0), frozenset()) == "blocks.0.attn.hook_q"
    assert to_transformerlens(Site("q", 0), rotary) == "blocks.0.attn.hook_rot_q"
    assert to_transformerlens(Site("z", 0, 3), frozenset()) is None
