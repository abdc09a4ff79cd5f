"""A rank that dies leaves nothing half-written and the others say so; what goes on ends with the same bits."""

import json

import pytest
import torch

from prosect.core.errors import Conflict
from prosect.store.tensors import load_tensors
from ranked import DEATHS, dictionary, failures, started, stream


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("failures")
    assert started(made, 2, failures) == [3, 9]
    return made


@pytest.fixture(scope="module")
def said(folder):
    return [json.loads((folder / f"said.{rank}.json").read_text()) for rank in (0, 1)]


@pytest.mark.parametrize("death", sorted(DEATHS))
def test_the_other_stops_and_says_why(said, death):
    dies = DEATHS[death][1]
    assert said[dies][death][0] == "Killed"
    kind, message = said[1 - dies][death]
    assert kind == "RankLost"
    assert f"rank {1 - dies} of 2 stops because another rank stopped" in message
    assert "from the last checkpoint" in message


def test_a_rank_that_is_gone_without_a_word_is_noticed(folder):
    assert "another rank stopped" in (folder / "gone.0.txt").read_text()
    assert [p.name for p in (folder / "gone").iterdir()] == ["checkpoint.safetensors"]
    assert load_tensors(folder / "gone" / "checkpoint.safetensors")[1]["step"] == 3


@pytest.mark.parametrize("death", sorted(DEATHS))
def test_nothing_half_written_is_there_and_it_ends_with_the_same_bits(folder, said, death):
    assert not [name for name in said[0][f"{death}: files"] if name.endswith(".part")]
    how = DEATHS[death][0]
    for rank in (0, 1):
        whole, _ = load_tensors(folder / f"{how}.{rank}.safetensors")
        resumed, _ = load_tensors(folder / f"{death}.{rank}.safetensors")
        assert whole.keys() == resumed.keys()
        assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_parts_that_count_no_more_are_gone_in_the_end(folder):
    left = sorted(p.name for p in (folder / "before its own part is written").iterdir())
    parts = [f"checkpoint.step9.rank{rank}of2.safetensors" for rank in (0, 1)]
    assert left == ["checkpoint.safetensors", *parts]


def test_what_others_wrote_is_refused_and_they_are_named(folder, said):
    for words in said:
        kind, message = words["latents where the other was dealt"]
        assert kind == "Conflict"
        assert "of 2 ranks with positions dealt, on 2 ranks with latents dealt" in message
        assert "of 2 ranks with latents" in words["positions where the other was dealt"][1]
        assert "another training on rank" in words["latents of another training"][1]
    for death in ("in a step", "before the parts count"):
        with pytest.raises(Conflict, match=r"of 2 ranks with .* on one process"):
            dictionary("topk").fit(stream(), folder / death, 3)
