"""What holds for every organism that is no language model: it opens by name, and keeps the contract."""

import json

import numpy as np
import pytest
import torch

import prosect
from prosect.cli import main
from prosect.core.canonical import digest_tensors
from prosect.core.registries import ORGANISMS
from prosect.data.source import Source
from prosect.organisms import diffusion, dormant
from prosect.organisms.gates import trained, wired
from prosect.organisms.linear import deep, graph, singular
from prosect.organisms.recurrent import counter, learned, ssm
from prosect.organisms.vision import digits, shapes

WHERE = {
    "gates": (wired, ""),
    "gates-xor": (wired, "_xor"),
    "gates-trained": (trained, "_trained"),
    "linear": (graph, ""),
    "linear-deep": (deep, "_deep"),
    "known-lambda": (singular, ""),
    "known-lambda-monomial": (singular, "_monomial"),
    "dormant": (dormant, ""),
    "counter-lstm": (counter, ""),
    "counter-lstm-trained": (learned, ""),
    "ssm": (ssm, ""),
    "ssm-gated": (ssm, "_gated"),
    "diffusion-mlp": (diffusion, ""),
    "diffusion-exact": (diffusion, "_exact"),
    "shapes-cnn": (shapes, ""),
    "digits-cnn": (digits, ""),
}
QUICK = ((learned, "STEPS", 3), (diffusion, "STEPS", 3), (shapes, "EPOCHS", 1), (digits, "EPOCHS", 1))


@pytest.fixture(scope="module", params=WHERE)
def named(request):
    """Name, the four functions, and what they give for seed 1, trained for as good as no time."""
    room, suffix = WHERE[request.param]
    with pytest.MonkeyPatch.context() as context:
        for where, name, few in (*QUICK, (shapes, "IMAGES", 64)):
            context.setattr(where, name, few)
        for where in (learned, diffusion, shapes, digits):
            context.setattr(where, "train", where.train.__wrapped__)
        build, network, source, untrained = (
            getattr(room, f"{what}{suffix}") for what in ("build", "network", "source", "untrained")
        )
        assert ORGANISMS.get(request.param) is build
        model = prosect.load(f"organism:{request.param}", seed=1, device="cpu")
        yield request.param, model, network, source, untrained


def test_it_opens_by_name_and_passes_its_self_check(named):
    name, model, network, source, _ = named
    _, truth = network(1)
    assert truth.organism == name and truth.size and truth.nulls and not truth.unknown
    assert model.report is not None and not model.report.failed and not model.sites.refused
    batch = next(source(1).batches("validate.0", rows=8))
    with torch.no_grad():
        direct = model.module(**batch.tensors)
    assert torch.equal(model.run(batch).output, getattr(direct, "logits", direct))
    sites = {v.site for v in truth.variables} | {f.site for f in truth.features}
    sites |= {site for edges in truth.edges.values() for edge in edges for site in edge}
    for site in sites:
        captured = model.run(batch, capture=(site,))[site]
        units = [v.index for v in truth.variables if v.site == site]
        width = captured.shape[1] if captured.ndim == 4 else captured.shape[-1]
        assert units in ([], list(range(width)))
    assert all(
        model.run(batch, capture=(f.site,))[f.site].shape[-1] == f.directions.shape[1] for f in truth.features
    )


def test_a_seed_gives_one_network_and_another_seed_another(named):
    name, model, network, _, _ = named
    state = torch.get_rng_state()
    (module, truth), (again, same) = network(1), network(1)
    assert digest_tensors(module.state_dict()) == digest_tensors(again.state_dict())
    assert digest_tensors(module.state_dict()) == digest_tensors(model.module.state_dict())
    assert truth.quantities == same.quantities and truth.edges == same.edges
    assert module is not again
    other = digest_tensors(network(2)[0].state_dict())
    assert (other != digest_tensors(module.state_dict())) == (name != "known-lambda-monomial")
    assert torch.equal(state, torch.get_rng_state())


def test_the_model_null_has_the_same_sizes_and_other_weights(named):
    _, model, _, source, untrained = named
    null, other = untrained(0), untrained(1)
    shapes_of = {k: v.shape for k, v in model.module.state_dict().items()}
    assert {k: v.shape for k, v in null.state_dict().items()} == shapes_of
    assert digest_tensors(null.state_dict()) != digest_tensors(other.state_dict())
    assert digest_tensors(null.state_dict()) == digest_tensors(untrained(0).state_dict())
    batch = next(source(1).batches("explore", rows=8))
    with torch.no_grad():
        out = null(**batch.tensors)
    assert torch.isfinite(getattr(out, "logits", out)).all()


def test_the_source_keeps_the_contract_of_sources(named):
    _, _, network, source, _ = named
    data = source(1)
    assert isinstance(data, Source)
    assert {
        "explore",
        "explore.first",
        "explore.second",
        "validate.0",
        "validate.1",
        "sealed",
        "shift",
    } <= set(data.units)
    assert "validate.2" in source(1, folds=3).units
    for part in ("explore.second", "sealed"):
        small = [t for b in data.batches(part, 17) for t in rows(b)]
        large = [t for b in source(1).batches(part, 64) for t in rows(b)]
        assert len(small) == data.units[part]
        assert all(torch.equal(a, b) for a, b in zip(small, large, strict=True))
    assert data.digest == source(1).digest != source(2).digest
    for label, values in network(1)[1].labels.items():
        if "@" in label:
            assert values.dtype == bool and len(values) == data.units[label.rpartition("@")[2]]


def rows(batch):
    lengths = [None] * len(batch) if batch.mask is None else batch.lengths
    tensor = next(iter(batch.tensors.values()))
    return [tensor[i, :n] for i, n in enumerate(lengths)]


def test_sites_are_listed_on_the_command_line(capsys):
    for name, expected in (("gates", "layers.0.2"), ("counter-lstm", "lstm"), ("ssm", "scan")):
        assert main(["ls", "sites", f"organism:{name}", "--json"]) == 0
        assert expected in {row["site"] for row in json.loads(capsys.readouterr().out)}
    assert np.isin(list(WHERE), list(ORGANISMS)).all()
