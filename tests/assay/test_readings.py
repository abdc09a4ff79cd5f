"""`prosect lens`, `flow`, `steer` and `probe` from end to end, on the language model that comes with prosect."""

import json

import pytest
import torch

from forecasts import hold
from prosect import load
from prosect.cli import main
from prosect.core.pictures import Curve, HeatMap, LensTable, TokenMap
from prosect.data.corpus import standard_library
from prosect.decompose.dictionary import Dictionary, Weights
from prosect.decompose.keep import save_decomposition
from prosect.decompose.sparsity import TopK
from tiny import call

LENGTH = 6_000
"""Characters of each file of the standard library that are read here: opening all of it again and again takes long."""
SPEC = """
target = "pylm"
device = "cpu"
limit = 150
studies = ["{study}"]
[data]
text = "{text}"
context = {context}
folds = 1
explore_windows = 1
validate_windows = 1
[describe]
tokens = 4000
[validate]
rounds = 1
seal = false
[probe]
tokens = 2000
[lens]
steps = 15
[flow]
rows = 5
[steer]
token = "("
strengths = [-1.0, 1.0]
controls = 2
rows = 32
"""


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    folder = tmp_path_factory.mktemp("text")
    for document in standard_library().documents:
        (folder / document.name.replace("/", ".")).write_text(document.text[:LENGTH], encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def small(text):
    return "--limit", "150", "--quiet", "--text", text


@pytest.fixture(scope="module", params=["lens", "flow", "steering", "probing"])
def run(request, tmp_path_factory, text):
    folder = tmp_path_factory.mktemp(request.param)
    (folder / "spec.toml").write_text(
        SPEC.format(study=request.param, text=text, context=8 if request.param == "flow" else 32)
    )
    assert main(["run", str(folder / "spec.toml"), "--out", str(folder / "run"), "--quiet"]) == 0
    return request.param, folder / "run"


def test_it_ends_with_claims_pictures_and_a_report(run):
    study, path = run
    metrics = json.loads((path / "metrics.json").read_text())
    pictures = json.loads((path / "findings.json").read_text())["pictures"]
    assert (path / "report.html").stat().st_size > 10_000
    kinds = [p["picture"] for p in pictures]
    if study == "lens":
        assert metrics["claims"] == 4 and kinds == ["curve", "lens", "lens"]
        curve, table = Curve.model_validate(pictures[0]), LensTable.model_validate(pictures[1])
        own, logit, turned = ([m.estimate for m in s.measured] for s in curve.series)
        assert own[-1] < turned[-1] and logit[-1] < turned[-1]  # a stream turned at random says less
        assert len(table.readings) == len(table.layers) == 4
        assert all(len(line) == len(table.tokens) for line in table.readings)
    elif study == "flow":
        assert metrics["claims"] == 32 and kinds == ["heat map"] + ["token map"] * 3
        heads = HeatMap.model_validate(pictures[0])
        assert heads.columns == ("pattern~flow", "pattern~patch", "flow~patch")
        for values, low, high in zip(heads.values, heads.low, heads.high, strict=True):
            assert all(
                a <= v <= b for v, a, b in zip(values, low, high, strict=True) if None not in (v, a, b)
            )
        assert (
            metrics["verdicts"].get("supported", 0) > 0
        )  # some of a trained model's heads look where it matters
        text = TokenMap.model_validate(pictures[1]).texts
        assert len({t.tokens for t in text}) == 1 and all(max(t.values) in (0.0, 1.0) for t in text)
    elif study == "probing":
        assert metrics["claims"] == 5 and kinds == ["curve"]  # four layers, and all of them together
        read = Curve.model_validate(pictures[0])
        own, _, words, _ = ([m.estimate for m in s.measured] for s in read.series)
        assert max(own) > words[0]  # a bracket that is open is no matter of the word that stands there
        told = json.loads((path / "findings.json").read_text())["tables"][0]["rows"]
        assert {r["name"] for r in told} > {
            "all together: accuracy",
            "resid_post.0: selectivity",
            "words alone",
        }
    else:
        assert metrics["claims"] == 2 and kinds == ["curve", "curve"]
        assert metrics["verdicts"].get("supported") == 2
        effect = Curve.model_validate(pictures[0])
        change = dict(zip(effect.doses, (m.estimate for m in effect.series[0].measured), strict=True))
        assert change[-1.0] < 0 == change[0.0] < change[1.0]


def test_the_dry_run_said_what_was_then_run(run):
    study, path = run
    hold(path, **({"explore": 0.15, "folds": 0.15} if study == "flow" else {"explore": 0.1, "folds": 0.1}))


def test_probes_of_what_is_not_there_are_refused(capsys, tmp_path, small):
    for asked, said in (
        (("--concept", "inside parentheses"), "inside brackets"),
        (("--concept", "next self.assertEqual"), "single token"),
        (("--site", "probs.1"), "one vector for each position"),
        (("--site", "resid_post.9"), "resid_post.9"),
    ):
        code, _, complaint = call(capsys, "probe", "pylm", *asked, *small, "--out", tmp_path / "a")
        assert code == 2 and said in complaint


@pytest.mark.parametrize("vector", ["probe", "latent"])
def test_directions_of_probes_and_latents_are_claimed_too(vector, tmp_path, capsys, small, text):
    model = load("organism:pylm")
    given = []
    if vector == "latent":
        weights = torch.eye(model.d_model)[:4]
        zeros = torch.zeros(model.d_model)
        made = Dictionary("resid_post.2", 4, TopK(1)).with_weights(
            Weights(weights, torch.zeros(4), zeros, weights, zeros), {"resid_post.2": model.d_model}
        )
        save_decomposition(tmp_path / "made.safetensors", made, model.digest)
        given = ["--dictionary", tmp_path / "made.safetensors", "--latent", "3"]
        code, _, said = call(
            capsys, "steer", "pylm", "--token", "(", *given[:-1], "9", *small, "--out", tmp_path / "no"
        )
        assert code == 2 and "component 9" in said
        code, _, said = call(
            capsys,
            "steer",
            "pylm",
            "--token",
            "(",
            "--site",
            "resid_post.1",
            *given,
            *small,
            "--out",
            tmp_path / "a",
        )
        assert code == 2 and "writes resid_post.2" in said
    (tmp_path / "spec.toml").write_text(SPEC.format(study="steering", text=text, context=32))
    asked = ["steer", str(tmp_path / "spec.toml"), "--token", "(", "--strength", "1.0", "--vector", vector]
    assert main([*asked, *map(str, given), "--out", str(tmp_path / "run"), "--quiet"]) == 0
    findings = json.loads((tmp_path / "run" / "findings.json").read_text())
    assert any(("logistic" if vector == "probe" else "latent 3 of made") in d for d in findings["decisions"])
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["claims"] == 1


def test_a_latent_needs_its_dictionary(capsys, tmp_path, small):
    code, _, said = call(
        capsys, "steer", "pylm", "--token", "(", "--vector", "latent", *small, "--out", tmp_path / "a"
    )
    assert code == 2 and "--dictionary FILE" in said


def test_a_token_must_be_one(capsys, tmp_path, small):
    code, _, said = call(
        capsys, "steer", "pylm", "--token", " self.assertEqual", *small, "--out", tmp_path / "a"
    )
    assert code == 2 and "tokens" in said and "a single token" in said
    code, _, said = call(
        capsys, "steer", "pylm", "--token", " self", "--site", "resid_post.9", *small, "--out", tmp_path / "b"
    )
    assert code == 2 and "resid_post.9" in said
    for verb in ("lens", "flow", "probe"):
        code, _, said = call(capsys, verb, "organism:induction", "--quiet", "--out", tmp_path / "c")
        assert code == 2 and "a language model with its tokenizer" in said
