"""Compiled programs as organisms: they open, rebuild to the same hash, and their truth covers the network."""

import numpy as np
import pytest
import torch

import prosect
from prosect.core.canonical import digest_tensors
from prosect.core.errors import UnknownName, VerificationFailed
from prosect.core.registries import ORGANISMS
from prosect.organisms.compiler import zoo
from prosect.organisms.compiler.check import check
from prosect.organisms.compiler.programs import SHIPPED

FEW = ("histogram", "sort", "fraction-previous")


@pytest.mark.parametrize("name", zoo.names())
def test_it_opens_by_name_and_passes_its_self_check(name):
    model = prosect.load(f"organism:{name}", seed=1)
    assert model.name == f"organism:{name}" and model.report.passed, model.report.lines()
    assert model.n_layers >= 1 and "z.0" in model.sites


@pytest.mark.parametrize("name", FEW)
def test_every_site_of_the_truth_is_there_and_complete(name):
    model, truth = zoo.build(name, seed=1)
    batch = next(zoo.source(name, 1).batches("validate.0", rows=8))
    edges = {site for kind in truth.edges.values() for edge in kind for site in edge} - {"output"}
    sites = {v.site for v in truth.variables} | {f.site for f in truth.features} | edges
    for site in sorted(sites):
        assert model.sites.resolve(site) == site
        got = model.run(batch, capture=(site,))[site]
        listed = [v.index for v in truth.variables if v.site == site]
        if listed and not site.startswith("z."):
            assert listed == list(range(got.shape[-1]))
    assert {v.site for v in truth.variables if v.site.startswith("z.")} == {
        f"z.{i}.h{h}" for i in range(model.n_layers) for h in range(model.n_heads)
    }
    assert sum(v.kind == "nothing" for v in truth.variables if v.site.startswith("z.")) >= model.n_layers
    for features in truth.features:
        assert np.allclose(
            features.directions @ features.directions.T, np.eye(len(features.directions)), atol=1e-9
        )
    assert len(truth.labels["directions"]) == len(truth.features[-1].directions) == model.d_model


@pytest.mark.parametrize("name", FEW)
def test_directions_carry_the_values_they_are_said_to(name):
    model, truth = zoo.build(name, seed=1)
    batch = next(zoo.source(name, 1).batches("validate.0", rows=8))
    features = truth.features[-1]
    stream = batch.flat(model.run(batch, capture=(features.site,))[features.site]).double().numpy()
    coefficients = stream @ features.directions.T
    ids = batch.flat(batch.tensors["input_ids"])
    said = truth.labels["directions"].tolist()
    for i, token in enumerate(zoo.program_of(name).vocabulary):
        assert np.allclose(coefficients[:, said.index(f"tokens={token}")], ids == 1 + i, atol=1e-4)
    assert np.abs(stream - coefficients @ features.directions).max() < 1e-4


def test_spare_heads_attend_and_write_nothing():
    model, truth = zoo.build("histogram", seed=1)
    batch = next(zoo.source("histogram", 1).batches("explore", rows=4))
    (spare,) = [v.site for v in truth.variables if v.kind == "nothing" and v.site.startswith("z.0.")]
    before, after = model.run(batch), model.run(batch, edits=(prosect.model.zero(spare),))
    assert torch.allclose(before.output, after.output, atol=1e-5)
    head = int(spare[-1])
    probs = model.run(batch, capture=("probs.0",))["probs.0"][:, head]
    assert probs.std(dim=0).max() > 0.05  # where it looks depends on the input


def test_the_same_seed_rebuilds_to_the_same_hash_and_another_does_not():
    made = zoo.card("sort", seed=3)
    again = digest_tensors(zoo.network("sort", seed=3)[0].state_dict())
    made.verify(again)
    other = zoo.card("sort", seed=4)
    with pytest.raises(VerificationFailed, match=f"{made.digest[:16]}.*{other.digest[:16]}"):
        made.verify(other.digest)
    assert "in ascending order" in made._repr_html_() and made.edges["resample"] < made.edges["zero"]


def test_targets_are_what_the_network_says():
    for name in FEW:
        module, _ = zoo.network(name, seed=0)
        batch = next(zoo.source(name).batches("shift", rows=16))
        with torch.no_grad():
            logits = module(**batch.tensors).logits
        expected = zoo.targets(name, batch)
        if expected.is_floating_point():
            scored = ~expected.isnan()
            assert (logits[..., 0].double() - expected)[scored].abs().max() < 1e-4
        else:
            scored = expected >= 0
            assert torch.equal(logits.argmax(-1)[scored], expected[scored])
        assert scored.sum() == batch.count


def test_nulls_of_both_kinds():
    module, truth = zoo.network("histogram", seed=0)
    assert {"shuffled-labels", "untrained"} <= set(truth.nulls)
    batch = next(zoo.source("histogram").batches("explore", rows=64))
    expected = zoo.targets("histogram", batch)
    scored = expected >= 0
    rates = []
    for seed in range(3):
        null = zoo.untrained("histogram", seed)
        assert {k: v.shape for k, v in null.state_dict().items()} == {
            k: v.shape for k, v in module.state_dict().items()
        }
        with torch.no_grad():
            rates.append(float((null(**batch.tensors).logits.argmax(-1) == expected)[scored].float().mean()))
    assert max(rates) < 0.8 and len(set(rates)) == 3


def test_seeds_differ_in_more_than_basis():
    heads = {tuple(zoo.organism("dyck-2", seed).layout.head_of.items()) for seed in range(8)}
    assert len(heads) >= 6


def test_unknown_programs_are_named():
    with pytest.raises(UnknownName, match="compiled-sort"):
        zoo.build("compiled-sorted")
    with pytest.raises(AttributeError):
        zoo.build_nothing  # noqa: B018


def test_every_program_that_ships_is_registered_with_what_it_does():
    registered = {n.removeprefix("compiled-") for n in ORGANISMS if n.startswith("compiled-")}
    assert registered - {"sort-superposed"} == set(SHIPPED)
    for name in SHIPPED:
        assert ORGANISMS.about(f"compiled-{name}").endswith(f": {check(SHIPPED[name]()).about}")
