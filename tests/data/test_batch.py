"""Batches: real positions, special ones and units line up however rows are padded."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prosect.core.errors import BadInput, ShapeMismatch, UnknownName
from prosect.data.batch import Batch, Row
from prosect.data.source import Source, TableSource


def padded(lengths, special=False):
    width = max(lengths)
    mask = torch.arange(width)[None] < torch.tensor(lengths)[:, None]
    first = torch.zeros_like(mask)
    first[:, 0] = True
    ids = torch.arange(len(lengths) * width).reshape(len(lengths), width)
    rows = tuple(Row(unit=i // 2, document=f"d{i}") for i in range(len(lengths)))
    return Batch({"input_ids": ids}, mask, rows, first if special else None)


@given(st.lists(st.integers(1, 6), min_size=1, max_size=5), st.booleans())
def test_flat_and_unflat_are_inverse_on_scored_positions(lengths, special):
    batch = padded(lengths, special)
    x = torch.randn(*batch.mask.shape, 3, generator=torch.Generator().manual_seed(0))
    flat = batch.flat(x)
    assert len(flat) == batch.count == sum(lengths) - special * len(lengths)
    again = batch.unflat(flat)
    assert torch.equal(batch.flat(again), flat)
    assert torch.equal(again[~batch.scored], torch.zeros_like(again[~batch.scored]))
    assert len(batch.flat_units) == batch.count
    for unit in range(max(batch.units) + 1):
        expected = sum(n - special for i, n in enumerate(lengths) if i // 2 == unit)
        assert (batch.flat_units == unit).sum() == expected


def test_special_positions_count_as_real_but_are_not_scored():
    batch = padded([3, 5], special=True)
    assert batch.lengths.tolist() == [3, 5]
    assert batch.count == 6


def test_inputs_without_positions_are_one_position_each():
    batch = Batch({"x": torch.ones(4, 2)}, None, tuple(Row(i) for i in range(4)))
    x = torch.randn(4, 7)
    assert torch.equal(batch.flat(x), x)
    assert torch.equal(batch.unflat(x), x)
    assert batch.count == 4
    assert batch.lengths.tolist() == [1, 1, 1, 1]
    assert batch.flat_units.tolist() == [0, 1, 2, 3]


def test_selecting_rows_keeps_everything_aligned():
    batch = padded([3, 5, 2], special=True).select([2, 0])
    assert [r.document for r in batch.rows] == ["d2", "d0"]
    assert batch.lengths.tolist() == [2, 3]
    assert batch.tensors["input_ids"][1, 0] == 0
    assert batch.count == 3


def test_shapes_that_do_not_fit_are_refused():
    batch = padded([3, 5])
    with pytest.raises(ShapeMismatch):
        batch.flat(torch.zeros(2, 4, 3))
    with pytest.raises(ShapeMismatch, match="one id for each row"):
        Batch({"x": torch.zeros(3, 2)}, None, (Row(0),))
    with pytest.raises(ShapeMismatch, match="mask"):
        Batch({"x": torch.zeros(1, 2)}, torch.ones(2, 2, dtype=torch.bool), (Row(0),))


def test_a_table_gives_the_same_rows_each_time_and_names_its_parts():
    source = TableSource(lambda part: {"x": torch.arange(10.0)[:, None]}, {"explore": 10}, "digest")
    assert isinstance(source, Source)
    sizes = [len(b) for b in source.batches("explore", rows=4)]
    assert sizes == [4, 4, 2]
    units = np.concatenate([b.units for b in source.batches("explore", rows=3)])
    assert units.tolist() == list(range(10))
    with pytest.raises(UnknownName, match="explore"):
        next(iter(source.batches("explor")))


def test_joined_batches_are_padded_to_the_longest_and_can_be_taken_apart():
    wide, narrow = padded([3, 5]), padded([2])
    joined = Batch.joined([narrow, wide])
    assert joined.mask.shape == (3, 5) and joined.lengths.tolist() == [2, 3, 5]
    assert [r.unit for r in joined.rows] == [r.unit for r in (*narrow.rows, *wide.rows)]
    assert torch.equal(joined.tensors["input_ids"][1:], wide.tensors["input_ids"])
    assert torch.equal(joined.tensors["input_ids"][0, :2], narrow.tensors["input_ids"][0])
    plain = Batch({"x": torch.ones(4, 2)}, None, tuple(Row(i) for i in range(4)))
    assert len(Batch.joined([plain, plain])) == 8


def test_what_does_not_belong_together_is_not_joined():
    plain = Batch({"x": torch.ones(4, 2)}, None, tuple(Row(i) for i in range(4)))
    with pytest.raises(BadInput, match="no batch"):
        Batch.joined([])
    with pytest.raises(ShapeMismatch, match="different tensors"):
        Batch.joined([plain, padded([3])])
