"""Decompositions on disk: what comes back is what was kept, and nothing else is taken for one."""

import subprocess
import sys

import pytest
import torch

from prosect.core.errors import BadInput, NewerSchema, ShapeMismatch, UnknownName
from prosect.core.seeds import Seed
from prosect.decompose.dictionary import Dictionary
from prosect.decompose.keep import load_decomposition, save_decomposition
from prosect.decompose.linear import Nmf, Pca, RandomDirections
from prosect.decompose.recipe import Recipe
from prosect.decompose.sparsity import TopK
from prosect.decompose.streams import ArrayStream
from prosect.store.tensors import load_tensors, save_tensors

STREAM = ArrayStream({"x": torch.randn(400, 6, generator=Seed(0).torch())})


@pytest.mark.parametrize(
    "made",
    [
        Pca("x", 3),
        Nmf("x", 3, seed=Seed(4).child("a")),
        RandomDirections("x", (0.1, 0.2)),
        Dictionary("x", 9, TopK(2), recipe=Recipe(batch=100, rate=1e-3, start="mean"), seed=Seed(3)),
    ],
    ids=lambda made: made.kind,
)
def test_it_comes_back_to_the_bit(tmp_path, made):
    made.fit(STREAM)
    path = tmp_path / "d.safetensors"
    save_decomposition(path, made, model="m" * 64)
    back = load_decomposition(path, model="m" * 64)
    assert type(back) is type(made)
    assert back.asked() == made.asked()
    assert back.seed == made.seed if hasattr(made, "seed") else True
    assert torch.equal(back.directions, made.directions)
    before, after = made.encode(STREAM.arrays), back.encode(STREAM.arrays)
    assert torch.equal(before.indices, after.indices)
    assert torch.equal(before.values, after.values)
    save_decomposition(tmp_path / "again.safetensors", back, model="m" * 64)
    assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()


def test_one_made_for_another_model_is_refused(tmp_path):
    path = tmp_path / "d.safetensors"
    save_decomposition(path, Pca("x").fit(STREAM), model="a" * 64)
    with pytest.raises(ShapeMismatch, match="fitted on model aaaa"):
        load_decomposition(path, model="b" * 64)
    load_decomposition(path)


def test_what_is_no_decomposition_is_refused(tmp_path):
    path = tmp_path / "d.safetensors"
    with pytest.raises(BadInput, match="does not exist"):
        load_decomposition(path)
    save_tensors(path, {"x": torch.zeros(2)})
    with pytest.raises(BadInput, match="no decomposition"):
        load_decomposition(path)
    save_decomposition(path, Pca("x").fit(STREAM))
    tensors, about = load_tensors(path)
    for change, error in (
        ({"schema": 99}, NewerSchema),
        ({"kind": "poem"}, UnknownName),
        ({"state": {}}, BadInput),
        ({"state": {**about["state"], "given": {"sight": "x"}}}, BadInput),
    ):
        save_tensors(path, tensors, {**about, **change})
        with pytest.raises(error):
            load_decomposition(path)
    save_tensors(path, {"directions": tensors["directions"]}, about)
    with pytest.raises(BadInput, match="mean"):
        load_decomposition(path)
    save_tensors(path, {**tensors, "extra": torch.zeros(1)}, about)
    with pytest.raises(BadInput, match="extra"):
        load_decomposition(path)


def test_an_unfitted_or_unregistered_one_is_not_kept(tmp_path):
    class Mine(Pca):
        kind = "mine"

    with pytest.raises(BadInput, match="not fitted"):
        save_decomposition(tmp_path / "d.safetensors", Pca("x"))
    with pytest.raises(UnknownName, match="mine"):
        save_decomposition(tmp_path / "d.safetensors", Mine("x").fit(STREAM))
    assert not list(tmp_path.iterdir())


def test_the_room_imports_neither_scikit_learn_nor_scipy():
    code = (
        "import sys, prosect.decompose.linear, prosect.decompose.dictionary, prosect.decompose.activations\n"
        "import prosect.decompose.quality, prosect.decompose.check, prosect.decompose.train\n"
        "assert not {'sklearn', 'scipy', 'transformers'} & set(sys.modules), sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
