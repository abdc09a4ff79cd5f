"""`prosect spec`: what it prints can be edited and run."""

import json

import pytest

from prosect.assay.presets import SPECS, resolve
from prosect.assay.spec import dump
from tiny import call


@pytest.mark.parametrize("target", [*SPECS, "gpt2", "organism:induction", "./a folder/with spaces"])
def test_what_is_printed_is_the_same_spec_when_read(target, tmp_path, capsys):
    code, out, _ = call(capsys, "spec", target, "--seed", 7, "--limit", 90)
    assert code == 0
    (tmp_path / "mine.toml").write_text(out, encoding="utf-8")
    assert resolve(str(tmp_path / "mine.toml")) == resolve(target, {"seed": 7, "limit": 90})
    code, again, _ = call(capsys, "spec", tmp_path / "mine.toml")
    assert (code, again) == (0, out)


def test_a_printed_spec_runs_as_what_it_was_printed_from(finished, specs, tmp_path, capsys):
    _, out, _ = call(capsys, "spec", specs["heads"])
    (tmp_path / "printed.toml").write_text(out, encoding="utf-8")
    code, out, complaints = call(capsys, "run", tmp_path / "printed.toml", "--out", finished[0])
    assert code == 0 and "already done" in complaints


def test_json(specs, capsys):
    code, out, _ = call(capsys, "spec", specs["latents"], "--json")
    assert code == 0
    assert json.loads(out) == dump(resolve(str(specs["latents"])))


def test_options_are_in_it(tmp_path, capsys):
    _, out, _ = call(capsys, "spec", "pylm", "--text", tmp_path, "--device", "cpu", "--json")
    found = json.loads(out)
    assert found["data"]["text"] == str(tmp_path) and found["device"] == "cpu"
