"""Wired gates against logic worked out by hand in exact fractions, and against edits of the opened network."""

from fractions import Fraction
from itertools import product

import numpy as np
import pytest
import torch

from prosect.core.errors import BadInput, ShapeMismatch
from prosect.model.edits import patch, zero
from prosect.organisms.gates import wired
from prosect.organisms.gates.network import module_of, wiring_of
from prosect.organisms.gates.subcircuits import damage, interactions, subcircuits
from prosect.organisms.gates.wiring import ABLATIONS

LOGIC = {  # Łukasiewicz' connectives
    "and": lambda a, b: max(0, a + b - 1),
    "or": lambda a, b: min(1, a + b),
    "nand": lambda a, b: min(1, 2 - a - b),
    "nor": lambda a, b: max(0, 1 - a - b),
    "and-not": lambda a, b: max(0, min(1, a - b)),
}


def function(truth):
    """What the four-bit network should compute, read off the truth's gates alone."""
    gate = {v.parameters["role"]: v.parameters for v in truth.variables if v.site == "layers.0"}

    def f(bits):
        p, q = (
            LOGIC[gate[role]["gate"]](*(bits[int(name.split(".")[1])] for name in gate[role]["reads"]))
            for role in ("primary", "shared")
        )
        return p != q

    return f


def role(truth, name):
    (v,) = [v for v in truth.variables if v.parameters["role"] == name]
    return f"{v.site}.{v.index}"


@pytest.mark.parametrize("seed", range(6))
def test_every_unit_is_its_gate_and_the_answer_is_right_on_every_input(seed):
    module, truth = wired.network(seed)
    f = function(truth)
    bits = torch.tensor(list(product((0.0, 1.0), repeat=4)))
    hidden = module.layers[0](module.inputs(bits))
    for v in truth.variables:
        if v.site == "layers.0":
            reads = [bits[:, int(name.split(".")[1])].tolist() for name in v.parameters["reads"]]
            assert hidden[:, v.index].tolist() == [
                LOGIC[v.parameters["gate"]](a, b) for a, b in zip(*reads, strict=True)
            ]
    assert module(bits)[:, 0].tolist() == [1.0 if f(row) else -1.0 for row in bits.int().tolist()]


def test_seeds_differ_in_their_functions():
    tables = set()
    for seed in range(8):
        bits = torch.tensor(list(product((0.0, 1.0), repeat=4)))
        tables.add(tuple(wired.network(seed)[0](bits)[:, 0].tolist()))
    assert len(tables) >= 6


@pytest.mark.parametrize("ablation", ABLATIONS)
@pytest.mark.parametrize("name", ["gates", "gates-xor"])
def test_cutting_an_edge_is_what_editing_the_readers_input_does(name, ablation, built):
    model, truth = built(name, 2)
    wiring = wiring_of(model.module)
    inputs, _ = wiring.instead(ablation)
    bits = torch.from_numpy(inputs).float()
    n = len(wiring.inputs)
    other = torch.from_numpy(np.tile(wiring.inputs, (n, 1))).float()
    writers, readers = (sorted({e.names[i] for e in wiring.edges}) for i in (0, 1))
    donor = model.run({"bits": other}, capture=writers)
    alone = wiring.logits(np.eye(len(wiring.edges), dtype=bool), ablation)
    whole = model.run({"bits": bits}, capture=[*writers, *readers])
    clean = whole.output[:, 0].double().numpy()
    changed, wrong = [], []
    for at, edge in enumerate(wiring.edges):
        writer, reader = edge.names
        value = donor[writer] if ablation == "resample" else torch.zeros(len(bits), 1)
        if ablation == "mean":
            value = whole[writer].mean().expand(len(bits), 1)
        width = whole[reader].shape[-1]
        direction = torch.eye(width)[edge.writer]
        edit = patch(reader, value * direction, direction=direction)
        got = model.run({"bits": bits}, edits=[edit]).output[:, 0].double().numpy()
        assert np.array_equal(got, alone[at])
        if not np.array_equal(got, clean):
            changed.append(edge.names)
        if (np.sign(got) != np.sign(clean)).any():
            wrong.append(edge.names)
    assert set(truth.edges[ablation]) == set(changed)
    assert set(truth.edges[f"{ablation}-answer"]) == set(wrong)


def test_losing_a_node_is_what_zeroing_its_site_does():
    model, _ = wired.build(1)
    wiring = wiring_of(model.module)
    one, two = damage(wiring, "zero")
    bits = torch.from_numpy(wiring.inputs).float()
    clean = model.run({"bits": bits}).output.sign()
    for i, a in enumerate(wiring.nodes):
        for j, b in enumerate(wiring.nodes):
            lost = model.run({"bits": bits}, edits=[zero(a), zero(b)]).output.sign()
            assert two[i, j] == (lost != clean).float().mean()
        assert one[i] == two[i, i]


def brute(truth, ablation):
    """Every subset of the edges of ``gates-xor`` that computes it, in fractions and plain loops."""
    units = [v.parameters for v in sorted(truth.variables, key=lambda v: v.index)]
    readout = [-2 if u["gate"] == "and" else 2 for u in units]
    sides = [[int(name.split(".")[1]) for name in u["reads"]] for u in units]
    bits = [tuple(map(Fraction, row)) for row in product((0, 1), repeat=2)]

    def unit(u, side, x):
        return LOGIC[u["gate"]](x[side[0]], x[side[1]])

    said = {x: [unit(u, s, x) for u, s in zip(units, sides, strict=True)] for x in bits}
    half = Fraction(1, 2)
    mean = [sum(said[x][j] for x in bits) / 4 for j in range(4)]
    found = set()
    for kept in product((False, True), repeat=12):  # two edges into each unit, then one out of each
        fine = True
        for x, y in product(bits, bits if ablation == "resample" else bits[:1]):
            total = Fraction(-1)
            for j in range(4):
                seen = list(x)
                for side in (0, 1):
                    if not kept[2 * j + side]:
                        seen[side] = {"zero": Fraction(0), "mean": half, "resample": y[side]}[ablation]
                value = unit(units[j], sides[j], seen)
                if not kept[8 + j]:
                    value = {"zero": Fraction(0), "mean": mean[j], "resample": said[y][j]}[ablation]
                total += readout[j] * value
            fine &= total != 0 and (total > 0) == (x[0] != x[1])
            if not fine:
                break
        if fine:
            found.add(kept)
    return found


@pytest.mark.parametrize("ablation", ABLATIONS)
def test_the_subcircuits_found_are_all_there_are(ablation):
    _, truth = wired.network_xor(3)
    wiring, _ = wired.wiring_xor(3)
    found = subcircuits(wiring, ablation)
    order = [(f"inputs.{side}", f"layers.0.{j}:in") for j in range(4) for side in (0, 1)]
    order += [(f"layers.0.{j}", "layers.1.0:in") for j in range(4)]
    at = [found.parts.index(names) for names in order]
    assert {tuple(row) for row in found.kept[:, at].tolist()} == brute(truth, ablation)
    assert found.tried == 4096 and found.count == len(found.kept)


def test_either_route_of_xor_is_a_circuit_and_they_share_nothing():
    wiring, variables = wired.wiring_xor(0)
    found = subcircuits(wiring, "zero")
    routes = []
    for route in ("direct", "by or"):
        names = {f"layers.0.{v.index}" for v in variables if v.parameters["role"] == route}
        kept = np.array([w in names or r.removesuffix(":in") in names for w, r in found.parts])
        assert found.among(kept)
        routes.append(kept)
    assert not (routes[0] & routes[1]).any() and (routes[0] | routes[1]).all()
    assert not any(found.holds(part) for part in range(len(found.parts)))
    assert len(found.minimal) > 1 and found.overlap < 1
    assert found.smallest == min(len(row.nonzero()[0]) for row in found.minimal)


@pytest.mark.parametrize("level", ["edges", "nodes"])
def test_a_minimal_one_loses_the_function_with_any_subset_and_every_one_contains_one(level):
    wiring, _ = wired.wiring_xor(1)
    found = subcircuits(wiring, "zero", level)
    for row in found.kept:
        assert any((small <= row).all() for small in found.minimal)
    for small in found.minimal:
        inside = [row for row in found.kept if (row <= small).all()]
        assert len(inside) == 1


@pytest.mark.parametrize("seed", range(4))
def test_planted_roles_show_in_the_truth(seed):
    _, truth = wired.network(seed)
    wiring, _ = wired.wiring(seed)
    shared, backup, negative, unread, constant = (
        role(truth, name) for name in ("shared", "backup", "negative", "unread", "constant")
    )
    one, two = damage(wiring, "zero")
    at = {name: i for i, name in enumerate(wiring.nodes)}
    assert one[at[shared]] == one[at[backup]] == 0 < two[at[shared], at[backup]]
    assert interactions(wiring, "zero")[at[shared], at[backup]] > 0
    assert truth.quantities[f"interaction {min(shared, backup)} {max(shared, backup)} zero"] > 0
    assert one[at[negative]] == 0  # and the logit is the higher without it
    lost = np.array([[e.names[0] == negative for e in wiring.edges]])
    more = wiring.logits(lost, "zero")[0] - wiring.said(wiring.inputs)[-1][:, 0]
    assert more.min() == 0 and more.max() == 2
    assert unread not in at and not any(unread in edge for found in truth.edges.values() for edge in found)
    edge = (constant, "layers.2.0:in")
    assert edge in truth.edges["zero-answer"]
    assert edge not in truth.edges["mean"] and edge not in truth.edges["resample"]


def test_a_wiring_and_its_network_are_the_same():
    wiring, _ = wired.wiring(5)
    back = wiring_of(module_of(wiring))
    assert all(np.array_equal(a, b) for a, b in zip(wiring.weights, back.weights, strict=True))
    assert back.activation == "clip" and back.edges == wiring.edges


def test_what_cannot_be_tried_is_refused(monkeypatch):
    wiring, _ = wired.wiring(0)
    monkeypatch.setattr("prosect.organisms.gates.subcircuits.LARGEST", 10)
    with pytest.raises(BadInput, match="subsets"):
        subcircuits(wiring)
    with pytest.raises(ShapeMismatch):
        wiring.logits(np.zeros((1, 3), dtype=bool), "zero")
