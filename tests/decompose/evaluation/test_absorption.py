"""Absorption and splitting are found where they were planted, and nowhere else."""

import numpy as np
import pytest
import torch

from known import Labelled, written
from prosect.core.errors import BadInput, ShapeMismatch, TooLittleData
from prosect.core.seeds import Seed
from prosect.decompose.evaluation.absorption import absorption, planted_absorption
from prosect.decompose.evaluation.probing import parts_of, sparse_probe, telling
from prosect.organisms.synthetic import SITE, World, plant

PARENTS = np.array([-1, -1, 0, 0, 1, 1, -1, -1])
"""Two parents with two children each, and two features on their own."""


def family(n=3000, seed=0):
    """Strengths of eight features in sixteen dimensions at right angles; children only with their parents."""
    g = Seed(seed).child("family").torch()
    on = torch.rand(n, 8, generator=g) < 0.3
    for child, parent in enumerate(PARENTS):
        if parent >= 0:
            on[:, child] &= on[:, parent]
    basis = torch.linalg.qr(torch.randn(16, 16, generator=g)).Q[:8]
    return Labelled(on * (1 + torch.rand(n, 8, generator=g)), basis), basis


def absorbing(basis, children=(2,)):
    """The latent of feature 0 is silent where one of these children is, whose latent writes both."""
    encoder, decoder = basis.clone(), basis.clone()
    for child in children:
        encoder[0] -= 5 * basis[child]
        decoder[child] += basis[0]
    return written(encoder, decoder, threshold=0.5)


def test_planted_absorption_is_found_in_the_one_family_that_has_it():
    stream, basis = family()
    found = planted_absorption(absorbing(basis, (2, 3)), stream, basis, PARENTS)
    assert found.parents.tolist() == [0, 1]
    assert found.latents.tolist() == [0, 1]
    assert found.alone.tolist() == [1, 1]
    assert found.beside.tolist() == [0, 1]
    assert found.absorbed.estimate == 0.5
    assert found.absorbed.n == 2


def test_where_none_is_planted_none_is_found():
    stream, basis = family()
    found = planted_absorption(written(basis, basis, threshold=0.5), stream, basis, PARENTS)
    assert found.absorbed.estimate == 0
    assert found.absorbed.low == found.absorbed.high == 0
    # a latent that misses at random absorbs nothing either
    deaf = written(basis, basis, threshold=1.5)
    assert abs(planted_absorption(deaf, stream, basis, PARENTS).absorbed.estimate) < 0.1


def test_half_of_the_children_give_a_share():
    stream, basis = family()
    found = planted_absorption(absorbing(basis, (2,)), stream, basis, PARENTS)
    there = stream.strengths > 0
    child = there[:, 2]
    beside = there[:, 0] & (there[:, 2] | there[:, 3])
    assert found.beside[0] == pytest.approx(float((~child[beside]).double().mean()))


def test_absorption_needs_families():
    stream, basis = family(n=40)
    with pytest.raises(TooLittleData):
        planted_absorption(written(basis, basis), stream, basis, PARENTS)


def test_the_generator_plants_families_and_no_absorption():
    world = World(features=60, width=64, trees=4, branching=2, depth=2, rank=0, alone=0.3, least=0.05)
    planted = plant(world, Seed(2))
    # reading along the dual basis: every feature by itself, whatever else is present
    dual = torch.linalg.pinv(planted.directions.double()).T
    exact = written(dual, planted.directions, threshold=0.5, site=SITE)
    held_out = planted.stream(6000, "validate.0")
    found = planted_absorption(exact, held_out, planted.directions, planted.parents)
    assert len(found.parents) > 6
    assert abs(found.absorbed.estimate) < 0.01
    # the same, but each root is silent where its first child is
    first = [int(np.flatnonzero(planted.parents == root)[0]) for root in range(4)]
    holes, said = dual.clone(), planted.directions.clone()
    for root, child in enumerate(first):
        holes[root] -= 9 * dual[child]
        said[child] += planted.directions[root]
    absorbed = planted_absorption(
        written(holes, said, threshold=0.5, site=SITE), held_out, planted.directions, planted.parents
    )
    gaps = dict(zip(absorbed.parents.tolist(), absorbed.alone - absorbed.beside, strict=True))
    for root in range(4):
        both = planted.given[planted.parents == root]
        assert gaps[root] == pytest.approx(both[0] / both.sum(), abs=0.08)


def measured(dictionary, stream, basis, main=(0,)):
    rows = stream.strengths[:, 0] > 0
    x = stream.x[rows]
    return rows, absorption(dictionary.encode({"x": x}), dictionary.directions, x, 3 * basis[0], list(main))


def test_from_a_probe_it_is_found_exactly_where_it_is():
    stream, basis = family()
    dictionary = absorbing(basis, (2,))
    rows, found = measured(dictionary, stream, basis)
    child = stream.strengths[rows][:, 2] > 0
    assert torch.equal(
        found.full, child & (stream.strengths[rows][:, 2] >= 0.4 * stream.strengths[rows][:, 0])
    )
    assert found.fraction[~child].max() == 0
    assert found.fraction[found.full].min() == 1
    assert found.rate == pytest.approx(float(found.full.double().mean()))
    clean = measured(written(basis, basis, threshold=0.5), stream, basis)[1]
    assert clean.mean == clean.rate == 0


def test_a_latent_that_is_only_weakened_is_absorbed_in_part():
    # at one position: the parent's latent says 1 of 4, another says 3
    x = torch.tensor([[4.0, 0.0]])
    decoder = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    encoder = torch.tensor([[0.25, 0.0], [0.75, 0.0]])
    dictionary = written(encoder, decoder)
    found = absorption(dictionary.encode({"x": x}), decoder, x, torch.tensor([1.0, 0.0]), [0])
    assert found.fraction.tolist() == [0.75]
    assert found.full.tolist() == [False]
    # both are main: nothing is missing
    assert absorption(dictionary.encode({"x": x}), decoder, x, torch.tensor([1.0, 0.0]), [0, 1]).mean == 0


def test_absorbers_must_point_along_the_probe_and_say_enough():
    x = torch.tensor([[4.0, 0.0]])
    probe = torch.tensor([1.0, 0.0])
    for decoder, encoder in (
        (torch.tensor([[1.0, 0.0], [0.05, 1.0]]), torch.tensor([[0.0, 0.0], [9.0, 0.0]])),  # cosine .05
        (torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([[0.0, 0.0], [0.3, 0.0]])),  # 30 % of it
    ):
        found = absorption(written(encoder, decoder).encode({"x": x}), decoder, x, probe, [0])
        assert found.mean == 0
    codes = written(torch.eye(2), torch.eye(2)).encode({"x": x})
    with pytest.raises(BadInput):
        absorption(codes, torch.eye(2), x, probe, [])
    with pytest.raises(BadInput):
        absorption(codes, torch.eye(2), x, 0 * probe, [0])
    with pytest.raises(ShapeMismatch):
        absorption(codes, torch.eye(2), x, torch.ones(3), [0])


def test_a_concept_of_its_own_needs_one_latent_and_one_that_was_split_needs_several():
    stream, basis = family()
    stream = Labelled((stream.strengths > 0).float(), basis)
    y = stream.strengths[:, 6] > 0
    ks = (1, 2, 3, 4)
    whole = written(basis, basis, threshold=0.5)
    found = sparse_probe(whole.encode({"x": stream.x}), stream.x, y, ks)
    assert int(found.latents[0]) == 6
    assert found.f1[1] == found.accuracy[1] == found.dense == 1
    assert parts_of(found.f1) == 1
    # feature 6 in two latents, one for where feature 7 is present, one for where it is absent
    encoder, decoder = basis.clone(), basis.clone()
    encoder[6], encoder[7] = basis[6] - 5 * basis[7], basis[6] + 5 * basis[7]
    decoder[7] = basis[6]
    bias = torch.zeros(8)
    bias[7] = -5.2
    split = written(encoder, decoder, threshold=0.5, bias=bias)
    apart = sparse_probe(split.encode({"x": stream.x}), stream.x, y, ks)
    assert apart.f1[1] < 0.9
    assert apart.f1[2] > apart.f1[1] + 0.1
    assert parts_of(apart.f1) == 2
    assert apart.gap(1) > 0.1


def test_a_concept_that_was_dropped_leaves_a_gap():
    stream, basis = family()
    y = stream.strengths[:, 6] > 0
    kept = [i for i in range(8) if i != 6]
    without = written(basis[kept], basis[kept], threshold=0.5)
    found = sparse_probe(without.encode({"x": stream.x}), stream.x, y, (1, 7))
    assert found.dense == 1
    assert min(found.gap(1), found.gap(7)) > 0.3


def test_the_most_telling_latents_are_those_whose_means_differ_most():
    stream, basis = family()
    y = stream.strengths[:, 2] > 0
    codes = written(basis, basis, threshold=0.5).encode({"x": stream.x})
    dense = codes.dense()
    gap = (dense[y].mean(dim=0) - dense[~y].mean(dim=0)).abs()
    assert telling(codes, y).tolist() == gap.argsort(descending=True).tolist()
    assert telling(codes, y)[:2].tolist() == [2, 0]  # the child, and then its parent


def test_parts_are_counted_while_they_help():
    assert parts_of({1: 0.5, 2: 0.7, 3: 0.72, 4: 0.9}) == 2
    assert parts_of({1: 0.5}) == 1
    with pytest.raises(BadInput):
        parts_of({1: 0.5, 3: 0.9})


def test_probes_refuse_what_they_cannot_answer():
    stream, basis = family(100)
    codes = written(basis, basis).encode({"x": stream.x})
    y = stream.strengths[:, 6] > 0
    with pytest.raises(BadInput):
        sparse_probe(codes, stream.x, torch.zeros(100, dtype=torch.bool))
    with pytest.raises(BadInput):
        sparse_probe(codes, stream.x, y, (9,))
    with pytest.raises(ShapeMismatch):
        sparse_probe(codes, stream.x, y[:50])
