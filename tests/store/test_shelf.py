"""Tensors by digest."""

import pytest
import torch

from prosect.core.errors import BadInput, VerificationFailed
from prosect.store.shelf import Shelf
from prosect.store.tensors import save_tensors


def test_what_is_put_comes_back_by_digest(tmp_path):
    value = torch.arange(6.0).reshape(2, 3).T
    key = Shelf(tmp_path).put(value)
    assert torch.equal(Shelf(tmp_path).get(key), value)
    memory = Shelf()
    assert torch.equal(memory.get(memory.put(value)), value)


def test_a_changed_tensor_is_found(tmp_path):
    shelf = Shelf(tmp_path)
    key = shelf.put(torch.ones(3))
    (path,) = tmp_path.iterdir()
    save_tensors(path, {"tensor": torch.zeros(3)})
    with pytest.raises(VerificationFailed, match="was changed"):
        Shelf(tmp_path).get(key)


def test_what_was_never_put_is_named(tmp_path):
    for shelf in (Shelf(), Shelf(tmp_path)):
        with pytest.raises(BadInput):
            shelf.get("ab" * 32)
    with pytest.raises(BadInput, match="a digest"):
        Shelf(tmp_path).get("../x")
