"""Every organism's source keeps the contract of sources: the same inputs however they are cut."""

import numpy as np
import pytest
import torch

from prosect.core.errors import BadInput, UnknownName
from prosect.data.source import Source
from prosect.organisms import grokked, induction, modular, planted, superposition, toy
from prosect.organisms.sources import SequenceSource, StreamedSource, parts

FEW = {"explore": 500, "validate": 100, "sealed": 100, "shift": 100}  # rows of sources that have thousands
SIZED = {
    "induction": lambda seed=0, **sizes: induction.source(seed, **sizes),
    "superposition": lambda seed=0, **sizes: superposition.source(seed, **FEW | sizes),
    "pentagon": lambda seed=0, **sizes: toy.source_pentagon(seed, **FEW | sizes),
    "planted": lambda seed=0, **sizes: planted.source(seed, **sizes),
}
ALL = SIZED | {
    "modular": lambda seed=0, **sizes: modular.source(seed, **sizes),
    "modular-grokked": lambda seed=0, **sizes: grokked.source_grokked(seed, **sizes),
}


def inputs(data, part, rows):
    """Every row of a part as tensors by name, cut to its real positions."""
    out = []
    for batch in data.batches(part, rows=rows):
        assert len(batch) <= rows
        for i in range(len(batch)):
            length = None if batch.mask is None else int(batch.lengths[i])
            out.append({k: t[i, :length] for k, t in batch.tensors.items()})
    return out


def same(a, b):
    return len(a) == len(b) and all(
        x.keys() == y.keys() and all(torch.equal(x[k], y[k]) for k in x) for x, y in zip(a, b, strict=True)
    )


@pytest.fixture(params=ALL)
def make(request):
    return ALL[request.param]


def test_a_part_is_the_same_each_time_and_however_it_is_cut(make):
    data = make()
    assert isinstance(data, Source)
    for part in ("explore.second", "validate.1", "shift"):
        once = inputs(data, part, 17)
        assert same(once, inputs(data, part, 17)) and same(once, inputs(data, part, 64))
        assert same(once, inputs(make(), part, 32))


def test_units_are_counted_and_numbered_from_zero(make):
    data = make()
    assert set(data.units) >= {"explore", "explore.first", "explore.second", "sealed", "shift"}
    for part, n in data.units.items():
        units = np.concatenate([b.units for b in data.batches(part, rows=100)])
        assert np.array_equal(units, np.arange(n))


def test_explore_is_its_two_halves_and_no_unit_is_in_two_parts(make):
    data = make()
    whole, first, second = (inputs(data, part, 50) for part in ("explore", "explore.first", "explore.second"))
    assert same(whole, first + second) and abs(len(first) - len(second)) <= 1
    keys = {
        part: [b"".join(t.numpy().tobytes() for t in row.values()) for row in inputs(data, part, 50)]
        for part in ("explore", "validate.0", "validate.1", "sealed")
    }
    if not isinstance(data, StreamedSource):  # rare features coincide by chance; sequences and pairs do not
        everything = [k for found in keys.values() for k in found]
        assert len(set(everything)) == len(everything)
    names = [row.document for b in data.batches("explore.second", 50) for row in b.rows]
    assert names == [row.document for b in data.batches("explore", 50) for row in b.rows][len(first) :]


def test_at_least_sixty_units_can_be_tested_in_each_fold(make):
    data = make()
    assert (
        superposition.source().units["validate.0"] >= 60 and toy.source_pentagon().units["validate.0"] >= 60
    )
    assert data.units["validate.0"] >= 60 and data.units["validate.1"] >= 60
    assert "validate.2" not in data.units and "validate.2" in make(folds=3).units


def test_another_seed_or_size_is_another_digest(make):
    assert make().digest == make().digest
    assert len({make().digest, make(1).digest, make(folds=3).digest}) == 3
    assert not same(inputs(make(), "validate.0", 50), inputs(make(1), "validate.0", 50))


def test_an_unknown_part_is_named(make):
    with pytest.raises(UnknownName, match="validate\\.0"):
        next(make().batches("validate.7"))


@pytest.mark.parametrize("name", SIZED)
def test_sizes_are_arguments(name):
    data = SIZED[name](explore=10, validate=7, sealed=3, shift=2, folds=1)
    assert data.units == {
        "explore": 10,
        "explore.first": 5,
        "explore.second": 5,
        "validate.0": 7,
        "sealed": 3,
        "shift": 2,
    }
    few = [len(inputs(data, part, 4)) for part in data.units]
    assert few == list(data.units.values())
    grown = SIZED[name](explore=10, validate=9, sealed=3, shift=2, folds=1)
    assert same(inputs(data, "validate.0", 4), inputs(grown, "validate.0", 4)[:7])


@pytest.mark.parametrize("empty", [{"explore": 1}, {"validate": 0}, {"folds": 0}, {"sealed": -1}])
def test_empty_parts_are_refused(empty):
    sizes = {"explore": 4, "validate": 1, "folds": 1, "sealed": 1, "shift": 1}
    with pytest.raises(BadInput, match=next(iter(empty))):
        parts(**sizes | empty)


def test_a_streamed_source_makes_each_block_once_in_a_pass_and_holds_no_more_than_it_needs():
    made = []

    def block(part, number):
        made.append((part, number))
        return {"x": torch.arange(10 * number, 10 * number + 10)[:, None]}

    data = StreamedSource(block, parts(45, 1, 1, 1, 1), digest="d", block=10)
    for rows in (3, 10, 25, 100):
        made.clear()
        found = torch.cat([b.tensors["x"] for b in data.batches("explore", rows)])
        assert found[:, 0].tolist() == list(range(45))
        assert made == [("explore", i) for i in range(5)]
        second = torch.cat([b.tensors["x"] for b in data.batches("explore.second", rows)])
        assert second[:, 0].tolist() == list(range(23, 45))


def test_sequences_are_padded_on_the_right_and_their_first_token_is_special():
    data = SequenceSource(
        lambda part, i: np.arange(1, i + 3), parts(4, 1, 1, 1, 1), digest="d", vocabulary=("<p>", "<b>", "x")
    )
    (batch,) = data.batches("explore")
    assert batch.tensors["input_ids"].tolist() == [
        [1, 2, 0, 0, 0],
        [1, 2, 3, 0, 0],
        [1, 2, 3, 4, 0],
        [1, 2, 3, 4, 5],
    ]
    assert batch.lengths.tolist() == [2, 3, 4, 5]
    assert torch.equal(batch.tensors["attention_mask"].bool(), batch.mask)
    assert batch.special[:, 0].all() and not batch.special[:, 1:].any()
    assert data.text(np.array([1, 2])) == "<b> x"


@pytest.mark.parametrize("name", SIZED)
def test_the_notebook_card_is_plain_html(name):
    html = SIZED[name]()._repr_html_()
    assert "validate.0" in html and "<script" not in html


def test_no_global_random_state_is_read_or_written():
    torch.manual_seed(1)
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    first = [inputs(make(), "validate.0", 8)[0] for make in SIZED.values()]
    modules = [
        induction.network(0)[0],
        superposition.network(0)[0],
        modular.network(0)[0],
        planted.network(0)[0],
    ]
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002
    torch.manual_seed(2)
    assert same(first, [inputs(make(), "validate.0", 8)[0] for make in SIZED.values()])
    again = [
        induction.network(0)[0],
        superposition.network(0)[0],
        modular.network(0)[0],
        planted.network(0)[0],
    ]
    for one, two in zip(modules, again, strict=True):
        assert all(torch.equal(p, q) for p, q in zip(one.parameters(), two.parameters(), strict=True))
        assert not one.training
