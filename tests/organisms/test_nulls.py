"""Statistical nulls keep every distribution and break every link."""

import pytest
import torch

from prosect.core.errors import ShapeMismatch
from prosect.core.seeds import Seed
from prosect.organisms import induction, modular
from prosect.organisms.nulls import other_input, partners, shuffled_labels


def test_partners_are_others_as_long_and_each_is_taken_once():
    batch = next(induction.source(0).batches("explore", rows=64))
    partner = partners(batch, Seed(3))
    assert sorted(partner.tolist()) == list(range(64))
    assert (batch.lengths[partner] == batch.lengths).all()
    alone = [i for i in range(64) if (batch.lengths == batch.lengths[i]).sum() == 1]
    assert [i for i in range(64) if partner[i] == i] == alone
    assert (partners(batch, Seed(3)) == partner).all() and (partners(batch, Seed(4)) != partner).any()


def test_rows_of_numbers_are_all_as_long():
    batch = next(modular.source(0).batches("explore", rows=16))
    paired = other_input(batch.tensors["pairs"], batch, Seed(0))
    assert paired.valid.all()
    assert sorted(paired.values.tolist()) == sorted(batch.tensors["pairs"].tolist())
    with pytest.raises(ShapeMismatch):
        other_input(torch.zeros(3), batch, Seed(0))


def test_labels_are_shuffled_where_asked_and_nowhere_else():
    labels = torch.arange(60).reshape(6, 10)
    where = labels % 3 > 0
    out = shuffled_labels(labels, where, Seed(0))
    assert torch.equal(out[~where], labels[~where])
    assert sorted(out[where].tolist()) == labels[where].tolist() != out[where].tolist()
    with pytest.raises(ShapeMismatch):
        shuffled_labels(labels, where[:3], Seed(0))
