"""`prosect ls`."""

import json
from dataclasses import replace

import pytest

from prosect.cli import organisms
from prosect.core.registries import BASELINES, DECOMPOSITIONS, METHODS, ORGANISMS, PRESETS, TASKS
from prosect.decompose.dictionary import Dictionary
from prosect.decompose.objectives import OBJECTIVES
from prosect.organisms import recorded
from prosect.organisms.card import card
from tiny import call


def rows(capsys, *arguments):
    code, out, _ = call(capsys, "ls", *arguments, "--json")
    assert code == 0
    return json.loads(out)


def test_presets_and_models(capsys):
    assert [r["target"] for r in rows(capsys, "presets")] == list(PRESETS)
    models = [r["target"] for r in rows(capsys, "models")]
    assert set(PRESETS) < set(models) and {f"organism:{n}" for n in ORGANISMS} < set(models)


def test_organisms_and_methods(capsys):
    assert [r["organism"] for r in rows(capsys, "organisms")] == list(ORGANISMS)
    methods = rows(capsys, "methods")
    assert {r["kind"] for r in methods} >= {"description", "test", "shape of a dictionary"}
    for kind, registry in {
        "decomposition": DECOMPOSITIONS,
        "task of the bench": TASKS,
        "method on the bench": METHODS,
        "baseline on the bench": BASELINES,
    }.items():
        assert [r["name"] for r in methods if r["kind"] == kind] == list(registry), kind
    assert all(r["about"] and "\n" not in r["about"] for r in methods)


def test_every_way_of_training_a_dictionary_is_listed():
    assert OBJECTIVES.keys() <= set(DECOMPOSITIONS)
    assert {n for n in DECOMPOSITIONS if DECOMPOSITIONS.get(n) is Dictionary} == OBJECTIVES.keys()


def test_sites_of_a_model(capsys):
    found = {r["site"]: r for r in rows(capsys, "sites", "organism:induction")}
    assert found["z.0"]["heads"] and found["resid_post.1"]["width"]


@pytest.mark.parametrize("what", ["presets", "models", "organisms", "methods"])
def test_as_a_table(what, capsys):
    code, out, complaints = call(capsys, "ls", what)
    assert ((code, complaints) == (0, "") and "about" in out and "induction" in out) or what == "methods"


def test_which_architectures_open(capsys):
    found = {r["type"]: r for r in rows(capsys, "models", "--check", "llama", "prophetnet", "--quiet")}
    assert found["llama"]["opens"] == "yes" and found["llama"]["additive error"] < 1e-4
    assert found["llama"]["sites"] > 30 and found["llama"]["why not"] == ""
    assert found["prophetnet"]["opens"] == "no" and "resid_pre.0" in found["prophetnet"]["why not"]


def test_what_cannot_be_checked(capsys):
    code, _, complaints = call(capsys, "ls", "models", "--check", "lama")
    assert code == 2 and "llama" in complaints
    code, _, complaints = call(capsys, "ls", "methods", "--check")
    assert code == 2 and "prosect ls models --check" in complaints
    code, _, complaints = call(capsys, "ls", "presets", "induction")
    assert code == 2 and "prosect ls presets" in complaints
    for more in ((), ("--check",)):
        code, _, complaints = call(capsys, "ls", "organisms", "inducton", *more)
        assert code == 2 and "induction" in complaints


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """A record of one organism as it is, one that has changed, and none of the others."""
    path = tmp_path / "cards.json"
    now = card("modular")
    changed = card("superposition")
    ((where, build),) = changed.builds.items()
    recorded.record([now, replace(changed, builds={where: replace(build, digest="f" * 64)})], path)
    monkeypatch.setattr(organisms, "cards", lambda: recorded.cards(path))
    return now, build


def test_organisms_from_their_cards(shelf, capsys):
    now, _ = shelf
    found = {r["organism"]: r for r in rows(capsys, "organisms")}
    assert found["modular"]["hash"] == now.build().digest[:12] and found["modular"]["size"] == now.size
    assert "variables" in found["modular"]["known"] and found["modular"]["seconds"] >= 0
    assert found["induction"]["size"] == "not recorded" and found["induction"]["hash"] is None
    (whole,) = rows(capsys, "organisms", "modular")
    assert whole["made"] == now.how and whole["metric: modulus"] == "31"
    assert any(name.startswith("null: ") for name in whole)
    code, out, _ = call(capsys, "ls", "organisms", "modular", "induction")
    assert code == 0 and "Written down" in out and "not recorded" in out


def test_organisms_are_built_again(shelf, capsys):
    now, build = shelf
    (row,) = rows(capsys, "organisms", "--check", "modular", "--quiet")
    assert row["found"] == "same hash" and row["hash"] == row["recorded"] == now.build().digest[:16]
    (row,) = rows(capsys, "organisms", "--check", "compiled-count", "--quiet")
    assert row["found"] == "not recorded" and row["recorded"] is None
    code, out, complaints = call(
        capsys, "ls", "organisms", "--check", "superposition", "modular", "--quiet", "--json"
    )
    assert code == 1 and build.digest[:16] in complaints and "f" * 16 in complaints
    assert [r["found"] for r in json.loads(out)] == ["another", "same hash"]


def test_what_cannot_be_listed(capsys):
    code, _, complaints = call(capsys, "ls", "organism")
    assert code == 2 and "unknown list 'organism'" in complaints and "organisms" in complaints
    code, _, complaints = call(capsys, "ls", "sites")
    assert code == 2 and "prosect ls sites organism:induction" in complaints
    code, _, complaints = call(capsys, "ls", "sites", "organism:inducton")
    assert code == 2 and "induction" in complaints
