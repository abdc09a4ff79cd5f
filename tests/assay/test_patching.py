"""`prosect patch` from end to end, on a network of which it is known where an answer comes from."""

import json

import pytest

from forecasts import foreseen
from prosect.assay.loop import conduct
from prosect.assay.opening import open_target
from prosect.assay.presets import resolve
from prosect.core.errors import BadInput
from prosect.core.pictures import HeatMap
from prosect.organisms import induction
from tiny import call

CHANGES = {
    "studies": ["patching"],
    "validate.rounds": 1,
    "data.folds": 1,
    "patch.sites": ["z.1"],
    "patch.each": "head",
    "patch.chosen": 2,
    "patch.random": 3,
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    spec = resolve("organism:induction", CHANGES)
    return conduct(spec, tmp_path_factory.mktemp("patch") / "run", open_target, quiet=True)


def test_only_the_place_that_carries_the_answer_is_supported(run):
    _, truth = induction.build(0)
    (real,) = [
        v.site for v in truth.variables if v.parameters.get("role") == "induction" and v.effect["matters"]
    ]
    found = list(run.verdicts.values())
    assert len(found) == 5
    supported = [v.hypothesis for v in found if v.overall == "supported"]
    assert [(h.component.writes[0], h.component.index, h.draw) for h in supported] == [(real, 15, "chosen")]
    draws = [v.hypothesis.draw for v in found]
    assert draws.count("chosen") == 2 and draws.count("random") == 3


def test_the_map_says_which_cells_were_claimed(run):
    (picture,) = [
        HeatMap.model_validate(p) for p in json.loads((run.path / "findings.json").read_text())["pictures"]
    ]
    claimed = {(picture.rows[i], j) for i, j in picture.claimed}
    assert claimed == {
        (v.hypothesis.component.writes[0], v.hypothesis.component.index) for v in run.verdicts.values()
    }
    assert (
        len(picture.values) == len(picture.rows) == 4 and len(picture.values[0]) == len(picture.columns) == 16
    )
    assert picture.values[picture.rows.index("z.1.h2")][15] == pytest.approx(1.0, abs=0.05)
    grids = (picture.low, picture.values, picture.high)
    assert all(a <= v <= b for rows in zip(*grids, strict=True) for a, v, b in zip(*rows, strict=True))


def test_sealed_pairs_say_the_same(run):
    metrics = json.loads((run.path / "metrics.json").read_text())
    assert metrics["replicated on sealed"] == {"tried": 1, "cleared": 1}


def test_the_dry_run_said_what_was_then_run(run):
    """Which cells are claimed, and how many on the sealed split, is not known beforehand: their mean cost is foreseen."""
    row, explore, folds, _ = foreseen(run.path)
    assert explore == pytest.approx(row["rows run on explore"], rel=0.1)
    assert 0.4 * row["rows run on the folds"] < folds < 1.3 * row["rows run on the folds"]


def test_bad_input_is_answered_in_words(capsys, tmp_path):
    code, _, said = call(capsys, "patch", "organism:induction", "--site", "z.7", "--out", tmp_path / "a")
    assert code == 2 and "z.7" in said
    code, _, said = call(
        capsys, "patch", "organism:induction", "--pairs", tmp_path / "no", "--out", tmp_path / "b"
    )
    assert code == 2 and "tokenizer" in said
    code, _, said = call(capsys, "patch", "modular", "--out", tmp_path / "c")
    assert code == 2 and "causal language model" in said
    with pytest.raises(BadInput, match="alone"):
        conduct(
            resolve("induction", {"studies": ["patching", "heads"]}), tmp_path / "d", open_target, quiet=True
        )
