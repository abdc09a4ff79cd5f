"""`prosect attribute` from end to end: a gradient that deceives is refuted, an honest one supported, and text is read."""

import json

import pytest

from forecasts import foreseen
from prosect.assay.loop import conduct
from prosect.assay.opening import open_target
from prosect.assay.openings.attributed import of_source
from prosect.assay.presets import resolve
from prosect.core.pictures import TokenMap
from prosect.model import load
from prosect.organisms import deceptive
from tiny import call

CHANGES = {
    "studies": ["attribution"],
    "validate.rounds": 1,
    "validate.seal": False,
    "data.folds": 1,
    "attribute.methods": ["saliency", "input-x-gradient"],
    "attribute.rows": 8,
}
TEXT = """
target = "pylm"
device = "cpu"
limit = 130
studies = ["attribution"]
[data]
context = 32
folds = 1
explore_windows = 1
validate_windows = 1
[attribute]
methods = ["saliency", "integrated-gradients"]
tokens = 6
rows = 4
donors = 2
steps = 2
[validate]
rounds = 1
seal = false
"""


def honest(spec, run):
    """The network that the deceptive one was made from; its outputs are the same."""
    network, _, _ = deceptive.networks(spec.seed)
    model = load(network, inputs={"features": deceptive.corners()[:2]})
    return of_source(spec, run, model, deceptive.source(spec.seed, 1, explore=80, validate=80, sealed=80))


def verdicts(run):
    return {v.hypothesis.description.effect.parameters["map"]: v.overall for v in run.verdicts.values()}


@pytest.fixture(scope="module")
def deceived(tmp_path_factory):
    spec = resolve("organism:deceptive", CHANGES | {"data.inputs": 80})
    return conduct(spec, tmp_path_factory.mktemp("attribute") / "run", open_target, quiet=True)


def test_a_gradient_that_deceives_is_refuted_and_an_honest_one_is_supported(deceived, tmp_path):
    assert verdicts(deceived) == {"saliency": "refuted", "input-x-gradient": "refuted"}
    spec = resolve("organism:deceptive", CHANGES)
    found = conduct(spec, tmp_path / "run", honest, quiet=True)
    assert verdicts(found) == {"saliency": "supported", "input-x-gradient": "supported"}


def test_what_is_shown_says_how_it_was_made(deceived):
    shown = json.loads((deceived.path / "findings.json").read_text())
    pictures = [TokenMap.model_validate(p) for p in shown["pictures"]]
    assert [p.title.split()[0] for p in pictures] == ["saliency", "input-x-gradient"]
    assert all(len(p.texts) == 3 and len(p.texts[0].tokens) == 8 for p in pictures)
    assert all("promises no sum" in p.about for p in pictures)
    (table,) = shown["tables"]
    likeness = [r for r in table["rows"] if "random weights" in r["name"]]
    assert len(likeness) == 2 and all(r["measured"]["low"] < r["measured"]["high"] for r in likeness)
    assert any("32 explored rows" in d for d in shown["decisions"])
    assert any("256 inputs" in line for line in shown["limits"])
    plans = [t for v in deceived.verdicts.values() for t in v.hypothesis.tests]
    assert {(r.name, r.role, r.decides) for plan in plans for r in plan.rivals} == {
        ("random-weights", "control", True),
        ("random-order", "control", True),
        ("input-size", "baseline", True),
    }


def test_a_language_model_is_asked_about_the_next_token(tmp_path):
    (tmp_path / "spec.toml").write_text(TEXT)
    from prosect.cli import main

    assert main(["run", str(tmp_path / "spec.toml"), "--out", str(tmp_path / "run"), "--quiet"]) == 0
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    shown = json.loads((tmp_path / "run" / "findings.json").read_text())
    assert metrics["claims"] == 2 and sum(metrics["verdicts"].values()) == 2
    saliency, integrated = (TokenMap.model_validate(p) for p in shown["pictures"])
    for text in (*saliency.texts, *integrated.texts):
        assert 3 <= len(text.tokens) <= 6 and "log-probability of `" in text.note
    assert all("completeness error " in t.note for t in integrated.texts)
    assert any("first 6 tokens" in d for d in shown["decisions"])
    assert (tmp_path / "run" / "report.html").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("organism:induction", "--method", "salience"), "salience"),
        (("organism:induction", "--method", "gradcam"), "gradcam"),
        (("organism:induction", "--method", "saliency", "--method", "saliency"), "each method once"),
        (("organism:modular",), "organism:induction"),
        (("organism:deceptive", "--device", "cuda"), "auto or cpu"),
        (("organism:deceptive", "--tokens", "1"), "attribute.tokens"),
    ],
)
def test_bad_input_is_answered_in_words(capsys, tmp_path, arguments, said):
    code, _, words = call(capsys, "attribute", *arguments, "--out", tmp_path / "run", "--quiet")
    assert code == 2 and said in words


def test_an_output_that_does_not_exist_is_refused(tmp_path):
    from prosect.core.errors import BadInput

    spec = resolve("organism:deceptive", CHANGES | {"attribute.output": 1, "data.inputs": 80})
    with pytest.raises(BadInput, match="outputs from 0 to 0"):
        conduct(spec, tmp_path / "run", open_target, quiet=True)


def test_the_dry_run_said_what_was_then_run(deceived):
    row, explore, folds, gradients = foreseen(deceived.path)
    assert explore == pytest.approx(row["rows run on explore"], rel=0.15)
    assert folds == pytest.approx(row["rows run on the folds"], rel=0.02)
    assert gradients == pytest.approx(row["rows with gradients"], rel=0.15)
