"""Specs: defaults written out, TOML and back, unknown and unfitting values refused by name."""

import tomllib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import prosect
from prosect.assay.decomposing import chosen
from prosect.assay.presets import SPECS, VERBS, flattened, folder_of, known, name_of, organisms, resolve
from prosect.assay.spec import Spec, dump, keys, make_spec, read_spec, to_toml
from prosect.core.errors import BadInput, ProsectError, UnknownName
from prosect.core.registries import DECOMPOSITIONS, ORGANISMS, PRESETS
from prosect.core.seeds import Seed
from prosect.decompose.objectives import (
    L1,
    BatchTopK,
    Gated,
    JumpReLU,
    Matryoshka,
    Pursued,
    objective_of,
)
from tiny import HEADS

words = st.text(st.characters(codec="utf-8"), max_size=30)


@settings(max_examples=60, deadline=None)
@given(
    target=words,
    text=words,
    seed=st.integers(0, 2**63),
    explore=st.floats(0.01, 0.5),
    rate=st.floats(0, 1e300, allow_nan=False),
    scripted=st.booleans(),
    studies=st.lists(st.sampled_from(["latents", "heads", "residues"]), max_size=3),
)
def test_toml_and_back(target, text, seed, explore, rate, scripted, studies):
    spec = make_spec(
        {
            "target": target,
            "seed": seed,
            "scripted": scripted,
            "studies": studies,
            "data": {"text": text, "explore": explore},
            "decompose": {"rate": rate},
        }
    )
    assert make_spec(tomllib.loads(to_toml(spec))) == spec
    assert make_spec(dump(spec)) == spec


def test_what_is_printed_explains_every_key(tmp_path):
    text = to_toml(resolve("pylm"))
    content = tomllib.loads(text)
    assert set(flattened(content)) == set(keys())
    lines = text.splitlines()
    for i, line in enumerate(lines):
        if " = " in line and not line.startswith("#"):
            assert lines[i - 1].startswith("# "), line
    (tmp_path / "x.toml").write_text(text, encoding="utf-8")
    assert read_spec(tmp_path / "x.toml") == resolve(str(tmp_path / "x.toml")) == resolve("pylm")


@pytest.mark.parametrize(
    ("content", "near"),
    [
        ({"target": "pylm", "sead": 1}, "seed"),
        ({"target": "pylm", "data": {"contxt": 64}}, r"data\.context"),
        ({"target": "pylm", "validate": {"round": 1}}, r"validate\.rounds"),
        ({"target": "pylm", "descibe": {}}, "describe"),
    ],
)
def test_an_unknown_key_is_refused_with_near_names(content, near):
    with pytest.raises(UnknownName, match=f"unknown key .* one of .*{near}"):
        make_spec(content)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ({}, "target"),
        ({"target": 5}, "target = 5.*string"),
        ({"target": "pylm", "seed": "zero"}, 'seed = "zero".*integer'),
        ({"target": "pylm", "seed": 1.5}, r"seed = 1\.5.*integer"),
        ({"target": "pylm", "seed": -1}, "seed = -1.*greater than or equal to 0"),
        ({"target": "pylm", "limit": -1}, "limit = -1"),
        ({"target": "pylm", "null": "model"}, 'null = "model".*statistical'),
        ({"target": "pylm", "studies": "heads"}, "studies"),
        ({"target": "pylm", "studies": ["hats"]}, r'studies\.0 = "hats".*heads'),
        ({"target": "pylm", "data": 5}, "data = 5"),
        ({"target": "pylm", "data": {"explore": 1.0}}, r"data\.explore = 1\.0.*less than 1"),
        ({"target": "pylm", "data": {"explore": float("nan")}}, r"data\.explore = NaN"),
        ({"target": "pylm", "validate": {"units_min": 39}}, r"units_min = 39.*greater than or equal to 40"),
        ({"target": "pylm", "validate": {"seal": "maybe"}}, "seal"),
        ({"target": "pylm", "describe": {"heads": "some"}}, "heads"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_by_name(content, match):
    with pytest.raises(BadInput, match=match):
        make_spec(content)


def test_a_spec_does_not_change():
    with pytest.raises(ValueError, match="frozen"):
        resolve("pylm").seed = 1


def test_all_presets_resolve():
    assert set(SPECS) == set(PRESETS) == {r["preset"] for r in known()}
    for name in PRESETS:
        spec = resolve(name)
        assert spec.target == name and spec.studies
        assert resolve(f"organism:{name}") == spec
        assert spec.decompose.kind in DECOMPOSITIONS
        assert PRESETS.about(name)
    assert {r["organism"] for r in organisms()} == set(ORGANISMS)


def test_anything_else_is_a_language_model():
    for target in ("gpt2", "org/model-1", "./folder", "organism:modular-grokked"):
        assert resolve(target).target == target
        assert resolve(target).studies == ("latents", "heads")


def test_changes_lie_over_presets_and_files(tmp_path):
    plain = resolve("induction")
    changed = resolve("induction", {"seed": 3, "describe.controls": 9, "data.text": None})
    assert (changed.seed, changed.describe.controls) == (3, 9)
    assert changed.describe.heads == plain.describe.heads == "all"
    assert resolve("induction") == plain  # a preset is not changed by what was laid over it
    (tmp_path / "x.toml").write_text(HEADS)
    changed = resolve(str(tmp_path / "x.toml"), {"validate.rounds": 2})
    assert (changed.validate_.rounds, changed.describe.heads, changed.limit) == (2, "best", 80)


@pytest.mark.parametrize("key", ["sead", "describe.contrls", "describe.controls.more", "seed.deep", "a.b.c"])
def test_a_change_of_what_is_not_there(key, tmp_path):
    (tmp_path / "x.toml").write_text(HEADS)
    for target in ("planted", "pylm", str(tmp_path / "x.toml")):
        with pytest.raises(BadInput, match=key.split(".")[0]):
            resolve(target, {key: 1})


def test_tables_are_flattened():
    assert flattened({"seed": 1, "data": {"text": "x", "more": {"deep": 2}}}) == {
        "seed": 1,
        "data.text": "x",
        "data.more.deep": 2,
    }


@pytest.mark.parametrize(
    ("target", "changes", "name"),
    [
        ("pylm", {}, "pylm"),
        ("organism:planted", {}, "planted"),
        ("org/model", {}, "org-model"),
        ("/home/me/models/mine/", {}, "models-mine"),
        ("./mine", {}, "mine"),
        ("..\\mine", {}, "mine"),
        ("pylm", {"seed": 3, "limit": 50, "null": "statistical", "data.text": "a/texts.jsonl"}, None),
    ],
)
def test_names_of_runs(target, changes, name):
    expected = name or "pylm-seed3-limit50-null-texts"
    assert name_of(resolve(target, changes), target) == expected


def test_no_target_names_a_folder_above_its_place(tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path / "mine")
    assert name_of(resolve("."), ".") == "mine"
    assert name_of(resolve("./"), "./") == "mine"
    assert name_of(resolve("pylm", {"data.text": "."}), "pylm") == "pylm-mine"
    for target in ("/", "..", "../..", "../"):
        name = name_of(resolve(target), target)
        assert name and "/" not in name and name not in (".", "..")
    (tmp_path / "my.run.toml").write_text(HEADS)
    path = str(tmp_path / "my.run.toml")
    assert name_of(resolve(path), path) == "my.run-limit80"


def test_the_function_refuses_what_the_command_refuses(tmp_path):
    with pytest.raises(UnknownName, match="seed"):
        prosect.assay("induction", out=tmp_path / "run", sead=1)
    with pytest.raises(UnknownName, match=r"describe\.heads"):
        prosect.assay("induction", out=tmp_path / "run", describe={"head": "all"})
    assert not (tmp_path / "run").exists()
    assert isinstance(resolve("induction"), Spec)


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_a_command_goes_round_once_and_a_file_wins_over_its_settings(verb, tmp_path):
    plain = resolve("pylm", {"steer.token": " self"}, verb)
    assert plain.target == "pylm" and list(plain.studies) == VERBS[verb]["studies"]
    assert plain.validate_.rounds == plain.data.folds == 1
    (tmp_path / "mine.toml").write_text(
        'target = "pylm"\nstudies = ["heads"]\n[data]\ncontext = 77\ndocuments = 501\n[validate]\nrounds = 2\n'
    )
    mine = resolve(str(tmp_path / "mine.toml"), {}, verb)
    assert mine.studies == plain.studies
    assert (mine.data.context, mine.data.documents, mine.validate_.rounds) == (77, 501, 2)
    assert mine.describe.tokens == plain.describe.tokens  # what the file does not say is the command's
    assert folder_of(plain, "pylm", verb) == f"{verb}-pylm"


def test_a_command_that_does_not_exist_is_named():
    with pytest.raises(UnknownName, match="patch"):
        resolve("pylm", {}, "pach")


@pytest.mark.parametrize(
    ("kind", "given", "objective"),
    [
        ("batchtopk", {}, BatchTopK(5)),
        ("matryoshka", {"prefixes": [8, 32]}, Matryoshka(5, (8, 32))),
        ("pursuit", {}, Pursued(5)),
        ("l1", {"weight": 0.3, "anneal_steps": 4}, L1(0.3, anneal_steps=4)),
        ("gated", {}, Gated()),
        ("jumprelu", {}, JumpReLU(5.0)),
        ("jumprelu", {"target_l0": 2}, JumpReLU(2.0)),
    ],
)
def test_a_spec_chooses_how_a_dictionary_is_trained_and_it_is_recorded(kind, given, objective):
    asked = {"kind": kind, "width": 32, "active": 5, "objective": given}
    spec = make_spec({"target": "pylm", "decompose": asked})
    assert make_spec(tomllib.loads(to_toml(spec))) == spec
    made = chosen(spec, "a", 8, Seed(0), "cpu")
    assert made.trained_by == objective and made.name == f"{kind}@a"
    assert objective_of(made.asked()["objective"]) == objective


def test_parameters_that_a_way_of_training_does_not_have_are_refused():
    for kind, match in (("l1", "bandwidth.*weight"), ("pca", "decompose.objective for pca")):
        asked = {"kind": kind, "objective": {"bandwidth": 1.0}}
        with pytest.raises(ProsectError, match=match):
            chosen(make_spec({"target": "pylm", "decompose": asked}), "a", 8, Seed(0), "cpu")
