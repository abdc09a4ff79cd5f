"""With positions dealt, two processes end with the dictionary that one ends with, however it is trained."""

import pytest
import torch

from prosect.core.errors import BadInput
from prosect.decompose.fit_record import read_record
from prosect.decompose.ranks.dealt import ALONE, Positions
from prosect.decompose.ranks.world import World
from ranked import BATCH, KINDS, LATENTS, agree_with_one, folder_of_dictionaries, run, tied


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("positions")


@pytest.fixture(scope="module")
def results(folder):
    jobs = {kind: ("trained", (kind,)) for kind in KINDS} | {"tied": ("tied", ("positions",))}
    return run(folder, jobs | {"folder": ("folder", (str(folder / "two"),))}, how="positions")


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_the_dictionary_is_that_of_one_process(results, kind):
    """Who fires where and who is dead agree exactly, numbers to rounding."""
    agree_with_one("positions", kind, results[kind])


def test_of_equal_ones_the_same_are_taken(results):
    expected, _ = tied(ALONE, "positions")
    for name, whole in expected.items():
        assert torch.equal(torch.cat([tensors[name] for tensors, _ in results["tied"]]), whole), name


def test_one_process_takes_the_first_of_equal_ones():
    pre = torch.tensor([[1.0, 2.0, 2.0, 2.0, 0.5], [3.0, 1.0, 1.0, 1.0, 1.0]])
    picks = ALONE.largest(pre, 2)
    chosen = sorted(zip(picks.rows.tolist(), picks.latents.tolist(), strict=True))
    assert chosen == [(0, 1), (0, 2), (1, 0), (1, 1)]
    assert ALONE.largest_of_all(pre, 5).tolist() == [0, 1, 2, 3, 5]
    assert ALONE.largest_of_all(pre, 6).tolist() == [0, 1, 2, 3, 5, 6]


def test_several_processes_make_the_folder_that_one_makes(folder, results):
    expected, about = folder_of_dictionaries(ALONE, folder / "one")
    for tensors, said in results["folder"]:
        assert said["fresh"] == about["fresh"] == [True, False]
        for name, value in expected.items():
            assert torch.allclose(tensors[name], value, rtol=1e-3, atol=1e-4), name
    one, two = (read_record(folder / name) for name in ("one", "two"))
    assert two["provenance"]["ranks"] == 2
    assert one["asked"] == two["asked"] and two["complete"]
    assert [d["L0"] for d in one["dictionaries"]] == [d["L0"] for d in two["dictionaries"]]
    left = sorted(p.name for p in (folder / "two").iterdir() if p.name != ".lock")
    assert left == ["first.safetensors", "fit.json", "other.safetensors"]


def test_batches_that_cannot_be_dealt_evenly_are_refused():
    with pytest.raises(BadInput, match="32 positions in a batch for 3 ranks"):
        Positions(World(0, 3)).check(BATCH, LATENTS)
    Positions(World(0, 3)).check(33, 25)
