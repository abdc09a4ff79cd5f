"""What a dry run says beforehand, held against what the same run then counted on the model's meter."""

import json

import pytest

from prosect.cli import main
from tiny import call

SPEC = """
target = "{target}"
device = "cpu"
limit = {limit}
studies = ["{study}"]
[data]
context = {context}
folds = 1
explore_windows = 1
validate_windows = 1
[describe]
tokens = 3000
[validate]
rounds = 1
seal = false
[lens]
steps = 12
[flow]
rows = 4
[steer]
token = "("
strengths = [-1.0, 1.0]
controls = 2
rows = 32
[synthesise]
units = 2
seeds = 1
steps = 3
budget = 300
[probe]
tokens = 3000
[attribute]
tokens = 8
rows = 8
methods = ["saliency", "integrated-gradients"]
steps = 4
"""
VERBS = {
    "lens": ("lens", "pylm", 130, 24),
    "flow": ("flow", "pylm", 130, 10),
    "steering": ("steer", "pylm", 130, 24),
    "synthesis": ("synthesise", "pylm", 130, 24),
    "probing": ("probe", "pylm", 130, 24),
    "attribution": ("attribute", "organism:induction", 60, 24),
    "patching": ("patch", "organism:induction", 100, 24),
}
CHOSEN = ("patching",)
"""What of these is claimed, and so patched on the folds, is chosen by what explore shows: only its mean cost is foreseen."""
CLOSE = {"lens": 0.02, "flow": 0.15, "steering": 0.1, "probing": 0.02, "attribution": 0.15, "patching": 0.1}
"""How far off a forecast may be, as a share; of a search it is an upper bound."""


@pytest.mark.parametrize("study", VERBS)
def test_the_forecast_is_what_the_run_then_counts(study, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("PROSECT_HOME", str(tmp_path / "home"))
    verb, target, limit, context = VERBS[study]
    spec = tmp_path / "spec.toml"
    spec.write_text(SPEC.format(target=target, limit=limit, study=study, context=context))
    asked = [verb, str(spec), *(["--token", "("] if verb == "steer" else [])]
    code, out, said = call(capsys, *asked, "--dry-run", "--json")
    assert code == 0, said
    (row,) = json.loads(out)
    assert not (tmp_path / "run").exists()
    assert main([*asked, "--out", str(tmp_path / "run"), "--quiet"]) == 0
    cost = json.loads((tmp_path / "run" / "metrics.json").read_text())["cost"]
    explore = cost.get("explore rows computed", 0) + cost.get("search rows computed", 0)
    gradients = sum(n for name, n in cost.items() if name.endswith("rows with gradients"))
    for where, counted in (("explore", explore), ("the folds", cost["validate rows computed"])):
        foreseen = row[f"rows run on {where}"]
        if study == "synthesis":
            assert counted <= foreseen * 1.01 and counted > 0.05 * foreseen
        else:
            loose = 0.5 if study in CHOSEN and where != "explore" else CLOSE[study]
            assert counted == pytest.approx(foreseen, rel=loose, abs=2)
    if study in ("attribution", "synthesis"):
        assert gradients > 0 and row["rows with gradients"] > 0
    else:
        assert gradients == 0 == row["rows with gradients"]
    assert row["FLOPs"] > 0 and row["seconds, at least"] >= 0
