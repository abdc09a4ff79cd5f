"""Sparse codes: all views of them agree."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prosect.core.errors import BadInput
from prosect.core.seeds import Seed
from prosect.decompose.contract import Codes


@given(st.integers(0, 12), st.integers(1, 9), st.floats(0, 1), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_all_forms_hold_the_same_numbers(n, width, density, seed):
    generator = Seed(seed).torch()
    dense = torch.randn(n, width, generator=generator)
    dense = dense * (torch.rand(n, width, generator=generator) < density)
    for codes in (Codes.of_dense(dense), Codes.of_sparse(dense)):
        assert torch.equal(codes.dense(), dense)
        assert len(codes) == n
        assert codes.active.tolist() == (dense != 0).sum(dim=1).tolist()
        assert codes.firing().tolist() == (dense != 0).sum(dim=0).tolist()
        wanted = torch.randperm(width, generator=generator)[: width // 2 + 1].tolist()
        assert torch.equal(codes.columns(wanted), dense[:, wanted])
    fullest = int((dense != 0).sum(dim=1).max()) if n else 0
    assert Codes.of_sparse(dense).indices.shape[1] == fullest


def test_columns_that_are_not_there_are_refused():
    codes = Codes.of_dense(torch.eye(3))
    for bad in ([3], [-1], [1, 1]):
        with pytest.raises(BadInput, match="from 0 to 2"):
            codes.columns(bad)
    assert codes.columns([]).shape == (3, 0)
