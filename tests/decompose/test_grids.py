"""Grids of dictionaries: every combination once, each setting where it belongs, silly ones refused by name."""

import pytest

from prosect.core.errors import BadInput, UnknownName
from prosect.core.seeds import Seed
from prosect.decompose.grids import grid, parsed
from prosect.decompose.recipe import Recipe

ONE = {"latents": 16, "k": 2}


def test_a_sweep_in_words():
    assert parsed("latents=512,1024 k=16 rate=1e-3,2 start=mean") == {
        "latents": [512, 1024],
        "k": [16],
        "rate": [1e-3, 2],
        "start": ["mean"],
    }
    assert parsed("") == {}


@pytest.mark.parametrize("text", ["latents", "latents=", "=3", "k=1 k=2", "k=1,1"])
def test_words_that_are_no_sweep(text):
    with pytest.raises(BadInput, match="in a sweep"):
        parsed(text)


def test_every_combination_once_under_a_name_of_its_own():
    made = grid(("a", "b"), ONE, parsed("latents=16,32 k=2,3 seed=0,1"))
    assert len(made) == 2 * 8
    found = {(d.reads, d.latents, d.sparsity.k, d.seed.root) for d in made.values()}
    assert len(found) == 16
    assert "topk@a-latents32-k3-seed1" in made
    named = made["topk@a-latents32-k3-seed1"]
    assert (named.reads, named.latents, named.sparsity.k, named.seed.root) == (("a",), 32, 3, 1)


def test_settings_go_to_the_recipe_and_what_is_swept_is_in_the_name():
    made = grid(("a",), {**ONE, "batch": 64}, {"rate": [1, 0.5]}, recipe=Recipe(aux=0.25))
    assert {d.recipe for d in made.values()} == {
        Recipe(batch=64, aux=0.25, rate=1.0),
        Recipe(batch=64, aux=0.25, rate=0.5),
    }
    assert all("rate" in name and "batch" not in name for name in made)


def test_shapes():
    (joint,) = grid(("a", "b"), ONE, joint=True).values()
    assert joint.reads == joint.writes == ("a", "b") and not joint.cross_layer
    (layers,) = grid(("a", "b"), ONE, targets=("c", "d"), joint=True, cross_layer=True).values()
    assert layers.cross_layer and layers.reads == ("a", "b") and layers.writes == ("c", "d")
    one, other = grid(("a", "b"), ONE, targets=("c", "d"), skip=True).values()
    assert (one.reads, one.writes, other.writes) == (("a",), ("c",), ("d",)) and one.skip
    (name,) = grid(("m/a",), ONE)
    assert "/" not in name
    assert {d.seed for d in grid(("a",), {**ONE, "seed": 3}).values()} == {Seed(3).child("fit")}


@pytest.mark.parametrize(
    ("settings", "error", "match"),
    [
        ({"latents": 16}, BadInput, "for a topk dictionary"),
        ({"k": 2}, BadInput, "latents"),
        ({**ONE, "kind": "topkk"}, UnknownName, "topk"),
        ({**ONE, "latent": 3}, UnknownName, "latents"),
        ({**ONE, "k": 17}, BadInput, "17 of 16 latents"),
        ({**ONE, "k": 2.5}, BadInput, "whole number"),
        ({**ONE, "latents": 2.5}, BadInput, "whole number"),
        ({**ONE, "rate": "high"}, BadInput, "a number"),
        ({**ONE, "rate": -1}, BadInput, "above 0"),
    ],
)
def test_what_does_not_fit_is_refused(settings, error, match):
    with pytest.raises(error, match=match):
        grid(("a",), settings)


def test_a_default_gives_way_and_is_ignored_where_it_means_nothing():
    (made,) = grid(("a",), {"latents": 16}, defaults={"k": 3, "weight": 0.5})
    assert made == "topk@a-latents16-k3"
    (given,) = grid(("a",), ONE, defaults={"k": 3}).values()
    assert given.sparsity.k == 2


def test_targets_pair_with_sites():
    with pytest.raises(BadInput, match="--joint"):
        grid(("a", "b"), ONE, cross_layer=True)
    with pytest.raises(BadInput, match="--joint"):
        grid(("a", "b"), ONE, targets=("c",))
