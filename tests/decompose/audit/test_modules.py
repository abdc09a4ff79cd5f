"""L6 of recurrent nets, state spaces and denoisers, by multiplications counted by hand and by torch."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import prosect
from prosect.core.seeds import Seed
from prosect.decompose.audit.case import Case
from prosect.decompose.audit.coverage import coverage
from prosect.decompose.audit.sample import Sample
from prosect.decompose.dictionary import Dictionary, Weights
from prosect.decompose.sparsity import TopK


def asked(name, *sites):
    """The line of a dictionary of these sites of an organism."""
    model = prosect.load(f"organism:{name}")
    width = {site: model.sites.info(site).width or 1 for site in sites}
    n = sum(width.values())
    weights = Weights(torch.zeros(4, n), torch.zeros(4), torch.zeros(n), torch.zeros(4, n), torch.zeros(n))
    made = Dictionary(sites, 4, TopK(1)).with_weights(weights, width)
    batch = model.example
    held = {part: tuple(batch.select([i]) for i in range(len(batch))) for part in ("explore", "validate.0")}
    return coverage(Case(model, made, Sample(held, "d", "row"), Seed(0))), model


def shares(line):
    about = line.figures[1].about
    return {part.rpartition(" ")[0]: float(part.rpartition(" ")[2]) for part in about.split("; ")}


def test_an_lstm_is_counted_by_its_four_gates():
    found, model = asked("counter-lstm", "lstm")
    lstm, head = model.module.lstm, model.module.head
    units = 4 * lstm.hidden_size * (lstm.input_size + lstm.hidden_size)
    expected = head.weight.numel() / (units + head.weight.numel())
    assert found.measured.estimate == pytest.approx(expected)
    assert (found.absent.estimate, found.present.estimate, found.null.estimate) == (0, 1, 0.5)
    own = sum(p.numel() for p in lstm.parameters()) / sum(p.numel() for p in model.module.parameters())
    assert found.figures[0].measured.estimate == pytest.approx(own)
    assert found.word == "inside"
    assert asked("counter-lstm", "head")[0].measured.estimate == pytest.approx(1 - expected)
    assert asked("counter-lstm", "lstm", "head")[0].measured.estimate == pytest.approx(0)
    assert asked("counter-lstm", "embed")[0].measured.estimate == 1  # looking up multiplies by nothing


def test_a_state_space_is_counted_by_its_parts():
    found, model = asked("ssm-gated", "scan")
    net = model.module
    sizes = {
        "scan": net.scan.pole.numel() + net.scan.write.numel(),
        "readout": net.readout.weight.numel(),
        "skip": net.skip.weight.numel(),
        "gate.project": net.gate.project.weight.numel(),
    }
    whole = sum(sizes.values())
    assert found.measured.estimate == pytest.approx(1 - sizes["scan"] / whole)
    assert shares(found) == pytest.approx({k: v / whole for k, v in sizes.items()}, abs=1e-3)
    assert asked("ssm-gated", "gate")[0].measured.estimate == pytest.approx(1 - sizes["gate.project"] / whole)


def test_a_denoisers_activations_describe_the_layers_behind_them():
    found, model = asked("diffusion-mlp", "act.0", "act.1")
    net = model.module
    sizes = {name: getattr(net, name).weight.numel() for name in ("up", "mid", "down")}
    assert found.measured.estimate == pytest.approx(sizes["down"] / sum(sizes.values()))
    assert found.remarks[0] == "described: mid, up"
    assert asked("diffusion-mlp", "mid:in")[0].remarks[0] == "described: up"
    assert asked("diffusion-mlp", "act.1")[0].measured.estimate == pytest.approx(
        1 - sizes["mid"] / sum(sizes.values())
    )


def test_multiplications_are_those_that_torch_counts():
    found, model = asked("diffusion-mlp", "up", "mid", "down")
    assert found.measured.estimate == pytest.approx(0)
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        model.run(model.example)
    flops = counter.get_flop_counts()
    of = {
        p: next(sum(v.values()) for k, v in flops.items() if k.endswith(f".{p}"))
        for p in ("up", "mid", "down")
    }
    assert shares(found) == pytest.approx({p: n / sum(of.values()) for p, n in of.items()}, abs=1e-3)
    assert isinstance(model.module.up, nn.Linear)
