"""Shapes are checked in tests: in the first calls of a function, and anew in every test."""

import pytest
import torch
from jaxtyping import TypeCheckError

import rationed
from prosect.decompose.sparsity import some_largest


def wrong():
    some_largest(torch.zeros(4), 1)  # one axis where there should be two


@pytest.mark.parametrize("again", [0, 1])
def test_the_first_calls_in_a_test_are_checked(again):
    for _ in range(rationed.CHECKED):
        with pytest.raises(TypeCheckError):
            wrong()
    with pytest.raises(ValueError, match="not enough values"):
        wrong()
    assert again in (0, 1)
