"""The self-check passes on right maps and catches wrong tensors under right names."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from prosect.core import progress
from prosect.core.errors import Unsupported
from prosect.model.families import build
from prosect.model.model import Model

FAMILIES = ["gpt2", "llama", "neox", "gemma2", "qwen3"]


@pytest.mark.parametrize(
    "name", [*FAMILIES, "gpt-oss", "decoder", "attention-only", "bloom", "bert", "mamba", "granite", "t5"]
)
def test_right_maps_hold(opened, name):
    report = opened(name).report
    assert report.passed, report.lines()
    assert report.errors["identical"] == {"output": 0.0}
    assert max(report.worst().values()) < 1e-4
    if name in FAMILIES:
        assert set(report.worst()) == {
            *("identical", "contributions", "streams", "reads", "writes", "linear"),
            *("attention", "sum to 1", "heads"),
        }
        checked = {site for found in report.errors.values() for site in found}
        assert set(opened(name).sites.names()) <= checked


def moved(model, name, to):
    """``name`` made to lie where ``to`` lies."""
    entries = model.sites._entries
    entries[name] = replace(entries[name], place=entries[to].place)
    model.sites._asked.clear()


WRONG = [
    ("gemma2", "attn_out_post.0", "attn_out.0", "contributions"),
    ("gemma2", "mlp_out_post.1", "mlp_out.1", "contributions"),
    ("gpt2", "resid_mid.0", "resid_post.0", "contributions"),
    ("llama", "z.0", "attn_in.0", "heads"),
    ("gpt2", "resid_pre.1", "attn_in.1", "streams"),
    ("gpt2", "resid_post.0", "mlp_out.0", "streams"),
    ("llama", "mlp_act.0", "mlp_in.0", "linear"),
    ("neox", "attn_in.1", "mlp_act.1", "reads"),
    ("neox", "mlp_in.0", "attn_in.0", "reads"),
    ("qwen3", "final_norm", "mlp_out.0", "streams"),
    ("llama", "probs.0", "scores.0", "sum to 1"),
    ("llama", "v.1", "k.1", "heads"),
    ("llama", "k.1", "v.1", "attention"),
]


@pytest.mark.parametrize(("name", "site", "at", "proof"), WRONG)
def test_a_wrong_tensor_under_a_right_name_is_caught(network, name, site, at, proof):
    model = Model.of(network(name), check=False)
    moved(model, site, at)
    report = model.check()
    assert proof in {p for p, found in report.errors.items() if any(e > report.bar for e in found.values())}
    assert not report.passed
    assert site in report.failed


def test_a_stream_that_is_not_written_through_is_caught(network):
    model = Model.of(network("gpt2"), check=False)
    entry = model.sites._entries["resid_mid.0"]
    model.sites._entries["resid_mid.0"] = replace(entry, place=replace(entry.place, through=False))
    model.sites._asked.clear()
    assert model.check().failed == {"resid_mid.0": "streams"}


def test_heads_split_the_wrong_way_are_caught(network):
    model = Model.of(network("qwen3"), check=False)
    entry = model.sites._entries["z.0"]
    model.sites._entries["z.0"] = replace(entry, info=replace(entry.info, heads=2))
    assert model.check().failed["z.0"] == "heads"


def test_attention_of_another_kind_is_caught(network, monkeypatch):
    module = network("gemma2")
    for block in module.model.layers:
        block.self_attn.attn_logit_softcapping = None  # the model's own kernel keeps reading this
    right = Model.of(module, check=False)
    assert right.check().passed
    from prosect.model import attention as inside

    honest = inside.attention

    def unscaled(*args, scaling=None, **kwargs):
        return honest(*args, scaling=1.0, **kwargs)

    monkeypatch.setattr(inside, "attention", unscaled)
    wrong = Model.of(module, check=False)
    report = wrong.check()
    assert {f"{kind}.{layer}" for kind in ("q", "k", "v", "scores", "probs") for layer in (0, 1)} == set(
        report.failed
    )
    assert "z.0" in wrong.sites


def test_what_fails_is_refused_with_the_error_and_said(capsys):
    with progress.shown():
        model = Model.of(build("doge"), name="a-doge")  # it scales its stream, number by number
    said = capsys.readouterr().err
    assert "a-doge: attn_out_post.0 is refused: contributions off by" in said
    with pytest.raises(Unsupported, match=r"self-check: contributions off by \d"):
        model.sites.resolve("attn_out_post.0")
    assert "attn_out.0" in model.sites
    assert "refused" in model._repr_html_()
    assert "contributions" in model.report._repr_html_()


class Noisy(nn.Module):
    """Two passes differ."""

    def __init__(self):
        super().__init__()
        self.passes = 0

    def forward(self, x):
        self.passes += 1
        return x * self.passes


def test_a_model_that_does_not_repeat_itself_is_noticed():
    report = Model.of(Noisy(), inputs=torch.ones(2, 3)).report
    assert report.worst()["identical"] > 0
    assert not report.passed
    assert "two passes" in report.lines()[0]
