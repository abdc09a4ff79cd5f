"""`prosect induction` and `prosect names`: what is known of organisms is found, and what cannot be asked is refused."""

import json

import pytest

from named import by_spaces, saved
from tiny import call


def rows(content, title):
    (table,) = (t for t in content["tables"] if t["title"] == title)
    return {r["name"]: r["measured"] for r in table["rows"]}


def asked(capsys, *arguments):
    code, printed, said = call(capsys, *arguments, "--rows", 12, "--json", "--quiet")
    assert code == 0, said
    return json.loads(printed)


def test_without_the_wired_head_the_gain_is_gone_and_without_random_ones_it_is_not(
    tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("prosect.assay.induction.FRESH", 1)
    found = asked(capsys, "induction", "induction", "--out", tmp_path / "a")
    lost = rows(found, "What goes without them")
    mine = [m for name, m in lost.items() if not name.startswith("control")]
    others = [m for name, m in lost.items() if name.startswith("control")]
    assert len(mine) == 1 and mine[0]["low"] > 0.99 and mine[0]["n"] == 12
    assert len(others) == 5 and all(m["high"] < 0.01 for m in others)
    gain = rows(found, "What repetition adds")
    assert gain["gain of a repeated token"]["low"] > 3
    assert all(m["high"] < 0.1 for name, m in gain.items() if name.startswith("control")) and len(gain) == 2
    prefix, copying = rows(found, "Prefix matching"), rows(found, "Copying")
    head = max(copying, key=lambda n: copying[n]["estimate"])
    assert copying[head]["estimate"] > 3 and prefix[head]["low"] > 0.5
    assert all(abs(m["estimate"]) < 0.01 for n, m in copying.items() if n != head)
    assert "<h1>Induction heads of organism:induction</h1>" in (tmp_path / "a" / "circuit.html").read_text()


def test_where_every_head_is_part_of_the_circuit_it_is_said(tmp_path, capsys):
    code, printed, said = call(
        capsys, "induction", "organism:induction-learned", "--rows", 12, "--out", tmp_path / "b", "--quiet"
    )
    assert code == 0, said
    words = " ".join(printed.split())
    assert "There are no other heads to ablate beside them" in words and "that control is missing" in words
    lost = rows(json.loads((tmp_path / "b" / "circuit.json").read_text()), "What goes without them")
    assert list(lost) == ["without 4 induction heads"] and lost["without 4 induction heads"]["low"] > 0.9

    before = (tmp_path / "b" / "circuit.json").read_bytes()
    again = ("induction", "organism:induction-learned", "--out", tmp_path / "b")
    code, printed, said = call(capsys, *again, "--rows", 12)
    assert code == 0 and "already done" in said and (tmp_path / "b" / "circuit.json").read_bytes() == before
    code, printed, said = call(capsys, *again, "--rows", 13, "--quiet")
    assert code == 2 and "another question" in said


def test_classes_of_the_template_organism_and_what_takes_over(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("prosect.assay.names.FRESH", 0)
    found = asked(capsys, "names", "organism:template", "--out", tmp_path / "c")
    right = rows(found, "How often it is right")
    assert right["indirect object preferred"]["low"] > 0.5
    task = rows(found, "The task")
    assert task["indirect object over subject"]["low"] > 3
    assert task["control: three other names"]["low"] < 0 < task["control: three other names"]["high"]
    assert "subject suppressor" in " ".join(found["says"])
    adds = rows(found, "What they add directly")
    assert max((m["estimate"], n) for n, m in adds.items())[1].startswith("z.3.")
    backup = rows(found, "Backup")
    made_good = backup["what others make good"]["estimate"]
    assert made_good == pytest.approx(
        backup["what they added directly"]["estimate"] - backup["what is lost without them"]["estimate"],
        abs=1e-6,
    )
    assert rows(found, "What takes over")


def test_any_language_model_with_names_is_asked_and_an_untrained_one_cannot(tmp_path, capsys):
    folder = saved(tmp_path / "model", by_spaces())
    found = asked(capsys, "names", folder, "--out", tmp_path / "d")
    right = rows(found, "How often it is right")["indirect object preferred"]
    assert right["low"] < 0.5 < right["high"]
    assert "does not do this task" in found["says"][0]
    found = asked(capsys, "induction", folder, "--out", tmp_path / "e")
    assert "No induction head was found" in found["says"][0]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("names", "organism:induction"), "without a tokenizer"),
        (("names", "pylm"), "0 of 46 names as single tokens"),
        (("induction", "superposition"), "in which no attention can be read"),
        (("induction", "induction", "--rows", 3), "8 or more"),
        (("induction", "induction", "--length", 4000), "two blocks of 4000 tokens"),
    ],
)
def test_what_cannot_be_asked_is_refused(arguments, words, tmp_path, capsys):
    code, _, said = call(capsys, *arguments, "--out", tmp_path / "f", "--quiet")
    assert code == 2 and words in said
    assert not (tmp_path / "f").exists()
