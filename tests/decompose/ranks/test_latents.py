"""With latents dealt, two processes end with the dictionary that one ends with, and use it as one would.

Both are looked at in what one pair of processes made: starting them takes longer than what they do.
"""

import pytest
import torch

from prosect.core.errors import BadInput, Unsupported
from prosect.decompose.keep import load_decomposition
from prosect.decompose.pursuit import Pursuit
from prosect.decompose.ranks.dealt import ALONE, Latents
from prosect.decompose.ranks.firing import firing
from prosect.decompose.ranks.sharded import Sharded
from prosect.decompose.ranks.world import World, joined, launched
from ranked import BATCH, KINDS, LATENTS, agree_with_one, dictionary, rows, run, stream, tied

USED = ("topk", "batchtopk", "transcoder", "gated", "pursued")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("latents")


@pytest.fixture(scope="module")
def results(folder):
    jobs = {kind: ("trained", (kind,)) for kind in KINDS}
    return run(
        folder,
        jobs | {"tied": ("tied", ("latents",)), "sharded": ("sharded", (str(folder), USED))},
        how="latents",
    )


@pytest.fixture(scope="module")
def dealt(folder, results):
    return folder, results["sharded"]


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_the_dictionary_is_that_of_one_process(results, kind):
    """Who fires where and who is dead agree exactly, numbers to rounding, and each rank has half of the weights."""
    agree_with_one("latents", kind, results[kind])


def test_of_equal_ones_the_same_are_taken(results):
    expected, _ = tied(ALONE, "latents")
    for name, whole in expected.items():
        assert torch.equal(torch.cat([tensors[name] for tensors, _ in results["tied"]], dim=1), whole), name
    assert expected["pursued"][:, :6].count_nonzero() > 40 and not expected["pursued"][:, 6:].any()


def test_latents_that_cannot_be_dealt_evenly_are_refused():
    with pytest.raises(BadInput, match="24 latents for 5 ranks"):
        Latents(World(0, 5)).check(BATCH, LATENTS)
    Latents(World(0, 5)).check(33, 25)


@pytest.mark.parametrize("kind", USED)
def test_every_rank_has_the_codes_and_reconstructions_of_the_whole(dealt, kind):
    folder, ranks = dealt
    whole = load_decomposition(folder / f"{kind}.safetensors", "model")
    alone = dictionary(kind).fit(stream())
    x = {"x": rows(70, seed=5)}
    codes = whole.encode(x)
    assert codes.dense().count_nonzero() > 70
    for tensors, about in ranks:
        for name in ("made", "loaded"):
            found = tensors[f"{kind}.{name}.codes"]
            assert torch.equal(found != 0, codes.dense() != 0)
            assert torch.allclose(found, codes.dense(), atol=1e-5)
            for site, y in whole.reconstruct(x).items():
                assert torch.allclose(tensors[f"{kind}.{name}.{site}"], y, atol=1e-5)
            said = about[f"{kind}.{name}"]
            assert said["places"] == int(codes.active.max())
            assert said["facts"]["l0"] == pytest.approx(alone.facts_["l0"], abs=0.02)
    for name, value in alone.state()[0].items():  # and the file is that of one process
        found = whole.state()[0][name]
        scale = value.abs().max().clamp_min(1e-3) if value.numel() else 1.0
        assert found.shape == value.shape and torch.allclose(found / scale, value / scale, atol=2e-4)
    assert whole.asked() == alone.asked() and whole.history_[-1]["l0"] == alone.history_[-1]["l0"]


def test_a_rank_holds_its_share(dealt):
    _, ranks = dealt
    whole = dictionary("topk").fit(stream())
    of_latents = whole.encoder_.numel() + whole.decoder_.numel() + whole.bias_.numel()
    for _, about in ranks:
        for name in ("made", "loaded"):
            shared = whole.centre_.numel() + whole.offset_.numel()
            assert about[f"topk.{name}"]["elements"] == of_latents // 2 + shared


def test_what_cannot_be_dealt_is_refused_by_name(tmp_path):
    with pytest.raises(Unsupported, match="latents dealt to ranks"):
        dictionary("topk").fit(stream(), ranks=Latents(World(0, 2)))
    with pytest.raises(BadInput, match="does not exist"):
        Sharded.load(tmp_path / "nothing", Latents(World(0, 2)))
    with pytest.raises(Unsupported, match="TopK or Threshold"):
        firing(Pursuit(2), torch.zeros(2, 4), None, ALONE)


def test_who_was_not_started_with_others_is_told_how(monkeypatch):
    assert not launched({}) and not launched({"WORLD_SIZE": "1"}) and launched({"WORLD_SIZE": "2"})
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(BadInput, match="torchrun --nproc-per-node"), joined():
        pass
    with pytest.raises(BadInput, match="rank 2 of 2"), joined("file:///nowhere", 2, 2):
        pass
