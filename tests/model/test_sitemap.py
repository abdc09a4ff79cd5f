"""Which names a model has, and what it says about the ones it does not have."""

import pytest
import torch
from torch import nn

from prosect.core.errors import UnknownName, Unsupported
from prosect.model.model import Model

FULL = {
    *("embeddings", "final_norm"),
    *("resid_pre", "resid_mid", "resid_post", "attn_in", "attn_out", "attn_out_post"),
    *("mlp_in", "mlp_act", "mlp_out", "mlp_out_post", "z", "q", "k", "v", "scores", "probs"),
}


def kinds(model):
    return {model.sites.info(name).kind for name in model.sites.names()}


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma2", "qwen3", "decoder"])
def test_sequential_decoders_have_every_site(opened, name):
    model = opened(name)
    assert kinds(model) == FULL
    assert not model.sites.refused
    assert model.n_layers == 2


@pytest.mark.parametrize(
    ("name", "missing", "why"),
    [
        ("neox", {"resid_mid"}, "same stream"),
        ("bloom", {"q", "k", "v", "scores", "probs"}, "AttentionInterface"),
        ("attention-only", {"resid_mid", "mlp_in", "mlp_act", "mlp_out", "mlp_out_post"}, "MLP"),
        ("gpt-oss", {"mlp_act"}, "MoE"),
    ],
)
def test_sites_that_an_architecture_lacks_are_refused_with_the_reason(opened, name, missing, why):
    model = opened(name)
    assert kinds(model) == FULL - missing
    for kind in missing:
        assert f"{kind}.0" not in model.sites
        with pytest.raises(Unsupported, match=why):
            model.sites.resolve(f"{kind}.0")


def test_a_state_space_model_has_a_mixer_in_each_block(opened):
    mixer = {"mixer_in", "mixer_out", "mixer_out_post"}
    assert kinds(opened("mamba")) == {"embeddings", "final_norm", "resid_pre", "resid_post"} | mixer
    with pytest.raises(Unsupported, match="no softmax attention"):
        opened("mamba").sites.resolve("probs.0")
    with pytest.raises(Unsupported, match="no MLP"):
        opened("mamba").sites.resolve("mlp_act.1")


def test_an_encoder_with_norms_on_its_stream_names_the_sums_before_them(opened):
    assert kinds(opened("bert")) == FULL - {"final_norm"} | {"attn_sum", "mlp_sum"}
    assert opened("bert").d_model == 32
    assert not opened("bert").sites.refused


def test_encoder_and_decoder_are_numbered_on(opened):
    sites = opened("t5").sites  # one block each
    assert sites.starts == (0, 1)
    assert "cross_attn_out_post.1" in sites and "cross_attn_out_post.0" not in sites
    assert sites.info("resid_post.0").path == "encoder.block.0"
    assert sites.info("resid_post.1").path == "decoder.block.0"


def test_models_without_named_sites_have_their_modules(opened, small):
    assert small("mlp")[0].sites.names() == ("0", "1", "2")
    assert set(small("lstm")[0].sites.names()) == {"lstm", "head"}
    assert small("cnn")[0].sites.info("head").width == 2
    assert small("mlp")[0].sites.info("0:in").width == 6


def test_an_unknown_site_offers_the_nearest_and_says_which_layers_there_are(opened):
    sites = opened("gpt2").sites
    with pytest.raises(UnknownName, match=r"resid_post\.1"):
        sites.resolve("resid_pst.1")
    with pytest.raises(UnknownName, match="layer from 0 to 1"):
        sites.resolve("resid_post.2")
    with pytest.raises(UnknownName, match=r"transformer\.h\.0\.mlp"):
        sites.resolve("transformer.h.0.mpl")


def test_heads_are_checked_and_keys_have_their_own(opened):
    sites = opened("llama").sites
    assert (sites.info("q.0").heads, sites.info("k.0").heads, sites.info("z.0").heads) == (4, 2, 4)
    assert sites.info("z.0.h3").width == 8
    with pytest.raises(UnknownName, match=r"heads here are those of keys"):
        sites.resolve("k.0.h2")
    with pytest.raises(UnknownName, match=r"z\.0\.h4"):
        sites.resolve("z.0.h4")
    with pytest.raises(Unsupported, match="no heads"):
        sites.resolve("resid_post.0.h1")


def test_info_says_what_is_there(opened, tokens):
    model = opened("qwen3")
    trace = model.run(tokens(), model.sites.names())
    for name in model.sites.names():
        info = model.sites.info(name)
        assert info.about
        if info.width is not None:
            assert trace[name].shape[-1] == info.width
        if info.heads is not None:
            assert trace[name].shape[1 if info.layout == "pattern" else 2] == info.heads


def test_transformerlens_names_follow_what_the_model_does(opened):
    gpt2, llama = opened("gpt2").sites, opened("llama").sites
    assert gpt2.resolve("blocks.1.attn.hook_k") == "k.1"
    with pytest.raises(Unsupported, match="hook_rot_k"):
        llama.resolve("blocks.1.attn.hook_k")
    assert llama.resolve("blocks.1.attn.hook_rot_k") == "k.1"
    assert gpt2.alias("blocks.0.hook_resid_mid") == "blocks.0.hook_resid_mid"
    assert llama.alias("q.0") == "blocks.0.attn.hook_rot_q"
    with pytest.raises(Unsupported, match="gain"):
        llama.resolve("ln_final.hook_normalized")
    with pytest.raises(Unsupported, match="scale"):
        opened("granite").sites.resolve("hook_embed")
    assert opened("gpt2").sites.resolve("hook_embed") == "embeddings"


def test_a_module_that_is_called_like_a_site_is_found_where_there_is_no_such_site(opened):
    module = nn.ModuleDict({"z": nn.ModuleList([nn.Linear(3, 2)])})
    module.forward = lambda x: module["z"][0](x)
    model = Model.of(module, inputs={"x": torch.ones(2, 3)})
    assert model.run({"x": torch.ones(2, 3)}, ["z.0"])["z.0"].shape == (2, 2)


def test_a_shared_module_is_found_under_every_path_it_has():
    layer = nn.Linear(3, 3)
    model = Model.of(nn.Sequential(layer, nn.Tanh(), layer), inputs=torch.ones(2, 3))
    trace = model.run(torch.ones(2, 3), ["2@1", "0@0"])
    assert torch.equal(trace["2@1"], trace.output)
    assert torch.equal(trace["0@0"], layer(torch.ones(2, 3)))


def test_what_is_refused_later_is_refused_by_name(network):
    model = Model.of(network("gpt2"), check=False)
    model.sites.refuse("resid_post.0", "it is off by 3")
    with pytest.raises(Unsupported, match="off by 3"):
        model.run(model.example, ["resid_post.0"])
    assert "resid_post.0" not in model.sites.names()
    assert "refused" in model.sites._repr_html_()
