"""What is largest is found exactly, whichever way is the quicker."""

import pytest
import torch

from prosect.core.seeds import Seed
from prosect.decompose import sparsity


@pytest.mark.parametrize("many", [1, 10**9], ids=["partition", "topk"])
@pytest.mark.parametrize("k", [1, 5, 63, 64])
def test_the_highest_of_each_row(k, many, monkeypatch):
    monkeypatch.setattr(sparsity, "MANY", many)
    x = torch.randn(37, 64, generator=Seed(0).torch())
    found = sparsity.highest(x, k)
    expected = x.topk(k, dim=1).indices
    assert torch.equal(found.sort(dim=1).values, expected.sort(dim=1).values)


@pytest.mark.parametrize("many", [1, 10**9], ids=["partition", "topk"])
@pytest.mark.parametrize("k", [1, 5, 63])
def test_the_highest_but_the_highest(k, many, monkeypatch):
    monkeypatch.setattr(sparsity, "MANY", many)
    x = torch.randn(37, 64, generator=Seed(0).torch())
    assert torch.equal(sparsity.highest_but(x, k)[:, 0], x.sort(dim=1, descending=True).values[:, k])


def test_ties_still_give_that_many_different_ones(monkeypatch):
    monkeypatch.setattr(sparsity, "MANY", 1)
    x = torch.zeros(5, 40)
    x[:, 7] = 1
    found = sparsity.highest(x, 6)
    assert all(len(set(row)) == 6 and 7 in row for row in found.tolist())


def test_a_short_format_is_told_apart_as_it_is(monkeypatch):
    monkeypatch.setattr(sparsity, "MANY", 1)
    x = torch.randn(9, 48, generator=Seed(1).torch()).bfloat16()
    values = x.gather(1, sparsity.highest(x, 7)).sort(dim=1).values
    assert torch.equal(values, x.topk(7, dim=1).values.sort(dim=1).values)
