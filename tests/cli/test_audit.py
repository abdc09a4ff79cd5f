"""`prosect audit`: a scorecard in a folder, the same again, and what it refuses in words."""

import json

import pytest

from tiny import call

FIT = (
    "fit",
    "induction",
    "--site",
    "resid_post.0",
    "--tokens",
    6000,
    "--latents",
    32,
    "--set",
    "batch=256",
    "--quiet",
)
AUDIT = ("--positions", 800, "--only", "L2", "--only", "L6", "--only", "L9", "--quiet")


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    from prosect.cli import main

    out = tmp_path_factory.mktemp("audit") / "fit"
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PROSECT_HOME", str(tmp_path_factory.mktemp("home")))
        assert main([str(a) for a in (*FIT, "--sweep", "seed=0,1,2", "--out", out)]) == 0
    return out


def test_a_folder_of_seeds_gives_a_scorecard(fitted, tmp_path, capsys):
    out = tmp_path / "a"
    code, printed, said = call(capsys, "audit", fitted, *AUDIT, "--out", out)
    assert code == 0, said
    assert "inside" in printed and "L7 was not run" in printed
    content = json.loads((out / "audit.json").read_text())
    lines = {line["id"]: line for line in content["lines"]}
    assert list(lines) == [f"L{i}" for i in range(1, 10)]
    assert lines["L9"]["word"] in ("inside", "outside", "undecided")
    assert lines["L1"]["why"] == "not asked for"
    assert lines["L6"]["measured"]["low"] > 0.3
    assert any("was held out" in note for note in content["notes"])
    assert content["facts"]["latents"] == 32
    assert "<h1>" in (out / "audit.html").read_text()

    before = (out / "audit.json").read_bytes()
    code, printed, said = call(capsys, "audit", fitted, *AUDIT[:-1], "--out", out, "--json")
    assert code == 0 and "already done" in said
    assert json.loads(printed)["lines"] == content["lines"]
    assert (out / "audit.json").read_bytes() == before
    code, printed, said = call(capsys, "audit", fitted, *AUDIT, "--seed", 3, "--out", out)
    assert code == 2 and "another audit" in said and "seed" in said


def test_one_file_of_a_fit_and_a_dictionary_of_another_format(fitted, tmp_path, capsys):
    from prosect.decompose.keep import load_decomposition
    from prosect.decompose.pretrained import save_dictionary

    file = sorted(fitted.glob("*.safetensors"))[0]
    only = ("--only", "L2", "--positions", 800, "--json", "--quiet")
    code, printed, said = call(capsys, "audit", file, *only, "--out", tmp_path / "one")
    assert code == 0, said
    saved = save_dictionary(
        tmp_path / "saved", load_decomposition(file), metadata={"model_name": "organism:induction"}
    )
    code, other, said = call(capsys, "audit", saved, *only, "--out", tmp_path / "two")
    assert code == 0, said
    mine, theirs = (json.loads(text) for text in (printed, other))
    assert mine["lines"][1]["measured"] == theirs["lines"][1]["measured"]
    assert any("may have seen" in note for note in theirs["notes"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nowhere",), "nowhere"),
        (("FIT", "--only", "L12"), "L12"),
        (("FIT", "--model", "planted"), "fitted on model"),
        (("FIT", "--scaling", "missing.json"), "no scaling curve"),
        (("FIT", "--concepts", "missing.jsonl"), "missing.jsonl"),
    ],
)
def test_what_does_not_fit_is_refused_and_leaves_nothing(
    fitted, tmp_path, monkeypatch, capsys, arguments, words
):
    monkeypatch.chdir(tmp_path)
    given = [str(fitted) if a == "FIT" else a for a in arguments]
    code, printed, said = call(
        capsys, "audit", *given, "--positions", 800, "--quiet", "--out", tmp_path / "out"
    )
    assert (code, printed) == (2, ""), said
    assert words in said
    assert not list(tmp_path.rglob("audit.*"))


def test_other_files_in_the_folder_are_left_alone(fitted, tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("mine")
    code, _, said = call(capsys, "audit", fitted, *AUDIT, "--out", tmp_path)
    assert code == 2 and "notes.txt" in said


def test_a_fit_without_its_model_named_asks_for_it(fitted, tmp_path, capsys):
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(fitted, copy)
    record = json.loads((copy / "fit.json").read_text())
    record["about"] = None  # as records were before they said how their model is opened
    (copy / "fit.json").write_text(json.dumps(record))
    code, _, said = call(capsys, "audit", copy, *AUDIT, "--out", tmp_path / "out")
    assert code == 2 and "--model" in said
    code, _, said = call(capsys, "audit", copy, "--model", "induction", *AUDIT, "--out", tmp_path / "out")
    assert code == 0, said
