"""`prosect synthesise` from end to end: on neurons of which it is known which tokens they fire on, and on real text."""

import json

import pytest

from forecasts import foreseen
from prosect.assay.loop import conduct
from prosect.assay.opening import open_target
from prosect.assay.presets import resolve
from prosect.core.pictures import TokenMap
from prosect.organisms.planted import build
from tiny import call

PYLM = """
target = "pylm"
device = "cpu"
limit = 130
studies = ["synthesis"]
[data]
context = 24
folds = 1
explore_windows = 1
validate_windows = 1
[describe]
tokens = 2000
[validate]
rounds = 1
[synthesise]
units = 2
length = 2
seeds = 2
steps = 3
candidates = 16
budget = 200
"""


def sorts(truth):
    """Neurons by sort: two that fire on tokens, two on nothing but noise, one that is dead."""
    of = {
        s: [v.index for v in truth.variables if v.parameters.get("sort") == s]
        for s in ("token", "noise", "dead")
    }
    return of["token"][:2], of["noise"][:2], of["dead"][:1]


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    _, truth = build(0)
    changes = {
        "studies": ["synthesis"],
        "limit": 80,
        "validate.rounds": 1,
        "data.folds": 1,
        "synthesise.indices": [i for some in sorts(truth) for i in some],
        "synthesise.length": 2,
        "synthesise.seeds": 2,
        "synthesise.steps": 4,
        "synthesise.budget": 600,
    }
    folder = tmp_path_factory.mktemp("synthesis")
    return conduct(resolve("planted", changes), folder / "run", open_target, quiet=True), truth


def test_what_is_supported_is_what_was_planted(planted):
    run, truth = planted
    rules, noise, dead = sorts(truth)
    claims = {}
    for v in run.verdicts.values():
        claims.setdefault(v.hypothesis.component.index, []).append(v)
    assert set(claims) == {*rules, *noise}  # a dead neuron gives nothing to measure on
    for index in rules:
        rule = truth.variable("mlp_act.0", index).parameters
        strongest = rule["current"][rule["strengths"].index(max(rule["strengths"]))]
        assert [v.overall for v in claims[index]] == ["supported", "supported"]
        for v in claims[index]:
            assert v.hypothesis.description.about["tokens"][-1] == strongest
            assert v.truth.holds and v.hypothesis.draw == "chosen"
    for index in noise:
        assert [v.overall for v in claims[index]] == ["refuted", "refuted"]
        assert not any(v.truth.holds for v in claims[index])
    findings = json.loads((run.path / "findings.json").read_text())
    assert any(f"never vary on explored text: {dead[0]}" in limit for limit in findings["limits"])


def test_every_claim_has_its_rivals(planted):
    run, _ = planted
    for v in run.verdicts.values():
        (plan,) = v.hypothesis.tests
        deciding = {r.name for r in plan.rivals if r.decides}
        both = {"random-strings", "other-units-strings"}
        assert deciding == (both | {"most-in-unseen-text"} if plan.name == "activates" else both)
        assert all(r.margin == 0.5 for r in plan.rivals if r.decides)


def test_pictures_show_every_seeds_string_and_what_the_unit_does_at_each_token(planted):
    run, truth = planted
    pictures = [
        TokenMap.model_validate(p) for p in json.loads((run.path / "findings.json").read_text())["pictures"]
    ]
    rules, *_ = sorts(truth)
    assert len(pictures) == 5
    for index in rules:
        (picture,) = [p for p in pictures if f"unit {index} " in p.title]
        rule = truth.variable("mlp_act.0", index).parameters
        strength = dict(zip(rule["current"], rule["strengths"], strict=True))
        assert [t.source for t in picture.texts][:2] == ["string 1", "string 2"] and len(picture.texts) == 5
        for text in picture.texts:
            expected = [strength.get(int(t.removeprefix("t")), 0.0) for t in text.tokens]
            assert text.values == pytest.approx(expected, rel=1e-3, abs=1e-4)


def test_nothing_is_supported_where_every_claim_is_false_by_construction(planted, tmp_path):
    _, truth = planted
    changes = {
        "studies": ["synthesis"],
        "null": "statistical",
        "limit": 80,
        "validate.rounds": 1,
        "data.folds": 1,
        "synthesise.indices": sorts(truth)[0],
        "synthesise.length": 2,
        "synthesise.seeds": 1,
        "synthesise.steps": 2,
        "synthesise.budget": 400,
    }
    run = conduct(resolve("planted", changes), tmp_path / "run", open_target, quiet=True)
    outcomes = [v.overall for v in run.verdicts.values()]
    assert len(outcomes) == 4 and "supported" not in outcomes  # as they stand, all four are


def test_a_language_model_ends_with_claims_and_a_report(tmp_path):
    from prosect.cli import main

    (tmp_path / "spec.toml").write_text(PYLM)
    out = tmp_path / "run"
    assert main(["run", str(tmp_path / "spec.toml"), "--out", str(out), "--quiet"]) == 0
    metrics = json.loads((out / "metrics.json").read_text())
    findings = json.loads((out / "findings.json").read_text())
    assert metrics["claims"] == 4 and (out / "report.html").stat().st_size > 10_000
    assert [p["picture"] for p in findings["pictures"]] == ["token map"] * 2
    assert any("not every swap" in limit for limit in findings["limits"])
    ledger = [json.loads(line) for line in (out / "ledger.jsonl").read_text().splitlines()]
    assert {r["body"]["draw"] for r in ledger if r["kind"] == "hypothesis"} == {"random"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("planted", "--site", "mlp_act.7"), "mlp_act.7"),
        (("planted", "--index", "48"), "from 0 to 47"),
        (("planted", "--index", "-1"), "from 0 to 47"),
        (("planted", "--index", "3", "--index", "3"), "each unit once"),
        (("planted", "--site", "z.0"), "z.0.h0"),
        (("planted", "--site", "probs.0"), "probs.0"),
        (("planted", "--length", "0"), "synthesise.length"),
        (("planted", "--length", "400"), "shorter string"),
        (("modular",), "causal language model"),
    ],
)
def test_bad_input_is_answered_in_words(capsys, tmp_path, arguments, said):
    code, _, complaint = call(
        capsys, "synthesise", *arguments, "--limit", "80", "--quiet", "--out", tmp_path / "run"
    )
    assert code == 2 and said in complaint


def test_the_dry_run_said_the_most_that_could_be_run(planted):
    run, _ = planted
    row, explore, folds, gradients = foreseen(run.path)
    assert "upper bounds" in row["note"]
    assert 0.05 * row["rows run on explore"] < explore <= row["rows run on explore"] * 1.01
    assert folds <= row["rows run on the folds"] * 1.01
    assert 0 < gradients <= row["rows with gradients"]
