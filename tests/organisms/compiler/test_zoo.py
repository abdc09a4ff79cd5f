"""Compiled programs as organisms: they open, rebuild to the same hash, and their truth covers the network."""

import numpy as np
import pytest
import torch

import prosect
from prosect.core.canonical import digest_tensors
from prosect.core.errors import UnknownName
from prosect.core.registries import ORGANISMS
from prosect.core.seeds import Seed
from prosect.organisms import nulls
from prosect.organisms.compiler import edges, zoo
from prosect.organisms.compiler.check import check
from prosect.organisms.compiler.programs import SHIPPED

FEW = ("histogram", "sort", "fraction-previous")


@pytest.mark.parametrize("name", zoo.names())
def test_it_opens_by_name_and_passes_its_self_check(name, monkeypatch):
    """With the truth about edges from few inputs, which are all that it is asked of for most programs here."""
    for few, number in (("SAMPLED", 256), ("VECTORS", 16), ("MOST_ROWS", 8)):
        monkeypatch.setattr(edges, few, number)
    monkeypatch.setattr(zoo, "_found", zoo._found.__wrapped__)
    model = prosect.load(f"organism:{name}", seed=1)
    assert model.name == f"organism:{name}" and model.report.passed, model.report.lines()
    assert model.n_layers >= 1 and "z.0" in model.sites


@pytest.mark.parametrize("name", FEW)
def test_every_site_of_the_truth_is_there_and_complete(name, built):
    model, truth = built(f"compiled-{name}", 1)
    batch = next(zoo.source(name, 1).batches("validate.0", rows=8))
    named = {site for kind in truth.edges.values() for edge in kind for site in edge} - {"output"}
    sites = {v.site for v in truth.variables} | {f.site for f in truth.features} | named
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
        assert len(features.names) == len(features.directions) == len(features.frequency)
    assert len(truth.features[-1].directions) == model.d_model


@pytest.mark.parametrize("name", FEW)
def test_directions_carry_the_values_they_are_said_to(name, built):
    model, truth = built(f"compiled-{name}", 1)
    batch = next(zoo.source(name, 1).batches("validate.0", rows=8))
    features = truth.features[-1]
    stream = batch.flat(model.run(batch, capture=(features.site,))[features.site]).double().numpy()
    coefficients = stream @ features.directions.T
    ids = batch.flat(batch.tensors["input_ids"])
    said = features.names
    for i, token in enumerate(zoo.program_of(name).vocabulary):
        assert np.allclose(coefficients[:, said.index(f"tokens={token}")], ids == 1 + i, atol=1e-4)
    assert np.abs(stream - coefficients @ features.directions).max() < 1e-4


def test_spare_heads_attend_and_write_nothing(built):
    model, truth = built("compiled-histogram", 1)
    batch = next(zoo.source("histogram", 1).batches("explore", rows=4))
    (spare,) = [v.site for v in truth.variables if v.kind == "nothing" and v.site.startswith("z.0.")]
    before, after = model.run(batch), model.run(batch, edits=(prosect.model.zero(spare),))
    assert torch.allclose(before.output, after.output, atol=1e-5)
    head = int(spare[-1])
    probs = model.run(batch, capture=("probs.0",))["probs.0"][:, head]
    assert probs.std(dim=0).max() > 0.05  # where it looks depends on the input


def test_the_same_seed_rebuilds_to_the_same_hash_and_another_does_not():
    made = [digest_tensors(zoo.network("sort", seed)[0].state_dict()) for seed in (3, 3, 4)]
    assert made[0] == made[1] != made[2]


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


@pytest.mark.parametrize("name", ["histogram", "fraction-previous"])
def test_features_are_named_by_the_values_they_stand_for(name, built):
    """Where the interpreter says that a variable has a value, its direction is 1, and no other of the variable's."""
    model, truth = built(f"compiled-{name}", 1)
    batch = next(zoo.source(name, 1).batches("validate.0", rows=8))
    features, program = truth.features[-1], zoo.program_of(name)
    held = model.run(batch, capture=(features.site,))[features.site].double() @ torch.from_numpy(
        features.directions.T
    )
    for variable, codes in zoo.values(name, batch).items():
        known = program.variables[variable]
        if known.numerical:
            worth = torch.tensor([*map(float, known.values), 0.0])[codes].double()
            assert (held[..., features.names.index(variable)] - worth)[codes >= 0].abs().max() < 1e-4
            continue
        for i, value in enumerate(known.values):
            read = held[..., features.names.index(f"{variable}={value}")]
            assert (read - (codes == i).double())[batch.scored].abs().max() < 1e-4


def test_the_null_of_shuffled_labels_cuts_directions_loose_from_values(built):
    model, truth = built("compiled-histogram", 1)
    batch = next(zoo.source("histogram", 1).batches("explore", rows=128))
    features = truth.features[-1]
    held = batch.flat(model.run(batch, capture=(features.site,))[features.site]).double().numpy()
    for variable in ("tokens", "histogram"):
        codes = zoo.values("histogram", batch)[variable]
        there = [i for i, n in enumerate(features.names) if n.startswith(f"{variable}=")]
        read = (held @ features.directions[there].T).argmax(axis=1)
        assert (read == batch.flat(codes).numpy()).all()
        null = batch.flat(nulls.shuffled_labels(codes, codes >= 0, Seed(0))).numpy()
        share = np.bincount(null) / len(null)
        assert np.bincount(null).tolist() == np.bincount(batch.flat(codes).numpy()).tolist()
        assert abs((read == null).mean() - (share**2).sum()) < 0.1  # as often as two drawn at random agree


def test_the_null_of_other_inputs_makes_outputs_wrong():
    module, _ = zoo.network("reverse", seed=0)
    batch = next(zoo.source("reverse").batches("explore", rows=128))
    with torch.no_grad():
        said = module(**batch.tensors).logits.argmax(-1)
    expected = zoo.targets("reverse", batch)
    scored = expected >= 0
    assert torch.equal(said[scored], expected[scored])
    paired = nulls.other_input(said, batch, Seed(0))
    kept = scored & paired.valid[:, None]
    assert paired.valid.float().mean() > 0.9
    assert abs(float((paired.values == expected)[kept].float().mean()) - 0.25) < 0.12


def test_the_model_null_has_the_sizes_and_not_the_behaviour():
    module, truth = zoo.network("histogram", seed=0)
    assert set(truth.nulls) == {"other-input", "shuffled-labels", "untrained"}
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
    heads = {tuple(zoo.organism("dyck-2", seed).layout.head_of.items()) for seed in range(5)}
    assert len(heads) >= 4


def test_unknown_programs_are_named():
    with pytest.raises(UnknownName, match="compiled-sort"):
        zoo.build("compiled-sorted")
    with pytest.raises(AttributeError):
        zoo.build_nothing  # noqa: B018


def test_every_program_that_ships_is_registered_with_what_it_does():
    registered = {n.removeprefix("compiled-") for n in ORGANISMS if n.startswith("compiled-")}
    assert {n for n in registered if not n.endswith("-superposed")} == set(SHIPPED)
    for name in SHIPPED:
        assert ORGANISMS.about(f"compiled-{name}").endswith(f": {check(SHIPPED[name]()).about}")
