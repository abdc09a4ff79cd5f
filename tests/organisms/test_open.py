"""Organisms opened for study: what the truth names is there under those names in the opened model."""

import numpy as np
import pytest
import torch

import prosect
from prosect.core.truth import Truth
from prosect.organisms import deceptive, grokked, induction, modular, planted, superposition, toy

pytest.importorskip("prosect.model")

SOURCES = {
    "induction": induction.source,
    "superposition": superposition.source,
    "pentagon": toy.source_pentagon,
    "modular": modular.source,
    "modular-grokked": grokked.source_grokked,
    "planted": planted.source,
    "deceptive": deceptive.source,
}


@pytest.fixture(scope="module", params=SOURCES)
def opened(request, built):
    model, truth = built(request.param)
    return request.param, model, truth, next(SOURCES[request.param](0).batches("validate.0", rows=8))


def test_a_builder_gives_an_opened_model_and_its_truth(opened):
    name, model, truth, batch = opened
    assert isinstance(truth, Truth) and truth.organism == name
    assert model.name == f"organism:{name}"
    assert model.tokenizer is None
    with torch.no_grad():
        direct = model.module(**batch.tensors)
    direct = getattr(direct, "logits", direct)
    assert torch.equal(model.run(batch).output, direct)


def test_every_site_of_the_truth_is_a_site_of_the_model(opened):
    _, model, truth, batch = opened
    sites = {v.site for v in truth.variables} | {f.site for f in truth.features}
    sites |= {site for edges in truth.edges.values() for edge in edges for site in edge} - {"output"}
    assert sites or truth.labels or truth.unknown
    for site in sorted(sites):
        assert model.sites.resolve(site) == site
        model.run(batch, capture=(site,))


def test_what_is_captured_there_is_what_the_truth_is_about(opened):
    _, model, truth, batch = opened
    for features in truth.features:
        captured = model.run(batch, capture=(features.site,))[features.site]
        assert captured.shape[-1] == features.directions.shape[1]
    units = {v.site: [w.index for w in truth.variables if w.site == v.site] for v in truth.variables}
    for site, indices in units.items():
        if not site.startswith("z."):
            captured = model.run(batch, capture=(site,))[site]
            assert indices == list(range(captured.shape[-1]))


def test_a_planted_rule_is_read_off_the_captured_activations(built):
    model, truth = built("planted")
    batch = next(planted.source(0).batches("validate.0", rows=8))
    act = model.run(batch, capture=("mlp_act.0",))["mlp_act.0"]
    v = next(v for v in truth.variables if v.parameters["sort"] == "token")
    strength = torch.zeros(model.vocab_size)
    strength[v.parameters["current"]] = torch.tensor(v.parameters["strengths"])
    expected = strength[batch.tensors["input_ids"]]
    assert (batch.flat(act)[:, v.index] - batch.flat(expected)).abs().max() < 1e-3


def test_induction_attends_where_its_truth_says_under_the_public_names(built):
    model, truth = built("induction")
    batch = next(induction.source(0).batches("validate.0", rows=8))
    (v,) = [v for v in truth.variables if v.parameters["role"] == "previous" and v.effect["matters"]]
    layer, head = int(v.site[2]), int(v.site[5])
    probs = model.run(batch, capture=(f"probs.{layer}",))[f"probs.{layer}"][:, head]
    for row, length in enumerate(batch.lengths):
        at = np.arange(1, length)
        assert probs[row, at, at - 1].min() > 1 - 1e-4


def test_opening_by_name_gives_the_model_alone():
    model = prosect.load("organism:induction", seed=2)
    module, _ = induction.network(2)
    ids = torch.tensor([[0, 1, 2, 3, 1, 2]])
    with torch.no_grad():
        assert torch.equal(model.module(ids).logits, module(ids).logits)
