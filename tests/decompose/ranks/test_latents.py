"""With latents dealt, two processes end with the dictionary that one ends with, however it is trained."""

import pytest
import torch

from prosect.core.errors import BadInput
from prosect.decompose.ranks.dealt import ALONE, Latents
from prosect.decompose.ranks.world import World
from ranked import BATCH, KINDS, LATENTS, agree_with_one, run, tied


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    jobs = {kind: ("trained", (kind,)) for kind in KINDS} | {"tied": ("tied", ("latents",))}
    return run(tmp_path_factory.mktemp("latents"), jobs, how="latents")


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_the_dictionary_is_that_of_one_process(results, kind):
    """Who fires where and who is dead agree exactly, numbers to rounding, and each rank has half of the weights."""
    agree_with_one("latents", kind, results[kind])


def test_of_equal_ones_the_same_are_taken(results):
    expected, _ = tied(ALONE, "latents")
    for name, whole in expected.items():
        assert torch.equal(torch.cat([tensors[name] for tensors, _ in results["tied"]], dim=1), whole), name


def test_latents_that_cannot_be_dealt_evenly_are_refused():
    with pytest.raises(BadInput, match="24 latents for 5 ranks"):
        Latents(World(0, 5)).check(BATCH, LATENTS)
    Latents(World(0, 5)).check(33, 25)
