"""Calibration: what is counted is what the ledgers say, a killed one goes on, and what it writes is what level 4 reads."""

import json
from collections import defaultdict
from types import SimpleNamespace

import pytest

import prosect.bench.calibration as calibration
from killed import Killed, dies_at_once
from prosect.assay import assay, calibrations
from prosect.bench.calibration import FIRST, Measured, calibrate, counted, write
from prosect.cli import main
from prosect.core.errors import BadInput, ProsectError, UnknownName
from prosect.core.records import Hypothesis, TruthCheck
from prosect.core.verdicts import verdicts
from prosect.store.ledger import read
from prosect.store.verify import verify

SHORT = {"limit": 80, "validate.rounds": 1, "validate.seal": False}
ORGANISMS = {
    "induction": Measured(
        "two layers", "heads", 8, {**SHORT, "studies": ["heads"], "describe.heads": "best"}
    ),
    "planted": Measured(
        "one layer",
        "neurons",
        48,
        {
            **SHORT,
            "studies": ["latents"],
            "decompose.kind": "neurons",
            "decompose.site": "mlp_act.0",
            "describe.components": 3,
            "describe.chosen": 0,
            "describe.neurons": 0,
            "describe.effects": 0,
            "describe.untrained": 0,
            "describe.controls": 1,
            "describe.tokens": 2000,
        },
    ),
}
"""A second a run. A script has one head's claim made wrong on purpose, so there are claims to leave out."""
ASKED = {"seeds": 2, "organisms": ("induction", "planted")}


@pytest.fixture(scope="module", autouse=True)
def small():
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(calibration, "ORGANISMS", ORGANISMS)
        yield


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A calibration, what each run of it gave, and the folders of the runs, which are thrown away as a rule."""
    kept, found = tmp_path_factory.mktemp("kept"), {}

    def keeping(target, *, out, seed, **changes):
        return assay(target, out=kept / f"{target}-{seed}", seed=seed, **changes)

    def here(tasks, jobs):
        for task in tasks:
            found[task[0], task[1]] = calibration.one(task)
            yield task, found[task[0], task[1]]

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("prosect.assay.assay", keeping)
        patched.setattr(calibration, "runs", here)
        out = tmp_path_factory.mktemp("calibrate") / "run"
        made = calibrate(out, **ASKED)
    return out, made, found, kept


@pytest.fixture
def replayed(done, monkeypatch):
    """Runs that give what they gave; dies before the run that its ``dies`` says, and notes which were asked for."""

    state = SimpleNamespace(asked=[], dies=None)

    def again(tasks, jobs):
        for task in tasks:
            if len(state.asked) == state.dies:
                raise Killed
            state.asked.append((task[0], task[1]))
            yield task, done[2][task[0], task[1]]

    monkeypatch.setattr(calibration, "runs", again)
    return state


def tally(kept, target):
    """(method, side) → seed → supported, true, true parts, true parts supported; straight from the ledgers."""
    table = defaultdict(dict)
    for seed in range(FIRST, FIRST + ASKED["seeds"]):
        records = list(read(kept / f"{target}-{seed}" / "ledger.jsonl"))
        holds = {r.hypothesis: r.holds for r in records if isinstance(r, TruthCheck)}
        said = {k for k, v in verdicts(records).items() if v.overall == "supported"}
        for h in (r for r in records if isinstance(r, Hypothesis)):
            if h.draw == "scripted" or holds.get(h.id) is None:
                continue
            counts = table[h.explainer, h.side].setdefault(seed, [0, 0, set(), set()])
            part = (h.scope.model, h.component.name)
            counts[0] += h.id in said
            counts[1] += h.id in said and holds[h.id]
            if holds[h.id]:
                counts[2].add(part)
                if h.id in said:
                    counts[3].add(part)
    return table


@pytest.mark.parametrize("target", ORGANISMS)
def test_what_is_counted_is_what_the_ledgers_say(done, target):
    out, made, _, kept = done
    expected = tally(kept, target)
    mine = {(c.method, c.side): c for c in made if c.organism == f"organism:{target}"}
    assert mine.keys() == expected.keys() and mine
    for key, c in mine.items():
        rows = expected[key].values()
        said, true = sum(r[0] for r in rows), sum(r[1] for r in rows)
        parts, found = sum(len(r[2]) for r in rows), sum(len(r[3]) for r in rows)
        assert (c.supported, c.true, c.seeds) == (said, true, 2)
        assert c.precision.estimate == (pytest.approx(true / said) if said else None)
        assert c.recall.estimate == (pytest.approx(found / parts) if parts else None)
        assert (c.size, c.kind, c.components) == (
            ORGANISMS[target].size,
            ORGANISMS[target].kind,
            ORGANISMS[target].components,
        )
    assert sum(c.supported for c in mine.values()) > 0
    assert verify(out)


def test_claims_that_a_script_made_are_left_out(done):
    _, made, found, _ = done
    every = list(found.values())
    scripted = [c for r in every for c in r["claims"] if c["scripted"] and c["holds"] is not None]
    assert scripted and not all(c["holds"] for c in scripted)
    without = [{**r, "claims": [c for c in r["claims"] if not c["scripted"]]} for r in every]
    assert counted(without) == made
    only = [{**r, "claims": [c for c in r["claims"] if c["scripted"]]} for r in every]
    assert counted(only) == []
    believed = [
        {**r, "claims": [{**c, "scripted": False, "supported": True} for c in r["claims"]]} for r in only
    ]
    assert any(c.precision.estimate < 1 for c in counted(believed))


def test_killed_between_runs_it_goes_on_to_the_same_file(done, replayed, tmp_path):
    out, made, _, _ = done
    replayed.dies = 3
    with pytest.raises(Killed):
        calibrate(tmp_path / "run", **ASKED)
    first, replayed.asked, replayed.dies = replayed.asked, [], None
    again = calibrate(tmp_path / "run", **ASKED)
    assert len(first) == 3 and len(replayed.asked) == 1 and replayed.asked[0] not in first
    assert again == made
    assert (tmp_path / "run" / "ledger.jsonl").read_bytes() == (out / "ledger.jsonl").read_bytes()
    write(made, tmp_path / "one.json")
    write(again, tmp_path / "two.json")
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()
    replayed.asked = []
    assert calibrate(tmp_path / "run", **ASKED) == made and replayed.asked == []


def test_what_is_written_is_what_level_four_reads(done, tmp_path, monkeypatch):
    _, made, _, kept = done
    file = tmp_path / "calibrations.json"
    write(made, file)
    monkeypatch.setattr(calibrations, "FILE", str(file))
    assert calibrations.everything() == made
    for target in ORGANISMS:
        claims = verdicts(read(kept / f"{target}-{FIRST}" / "ledger.jsonl")).values()
        used = {v.hypothesis.explainer for v in claims}
        found = calibrations.packaged(claims)
        assert found == [c for c in made if c.method in used] and found


def test_a_method_that_was_changed_is_never_measured(done, tmp_path, monkeypatch):
    _, made, _, kept = done
    file = tmp_path / "calibrations.json"
    write(made, file)
    monkeypatch.setattr(calibrations, "FILE", str(file))
    real = calibrations.source_digest
    changed = "prosect.describe.role_explainer"
    monkeypatch.setattr(calibrations, "source_digest", lambda m: "other" if m == changed else real(m))
    left = {c.method for c in calibrations.packaged(everyone(kept))}
    assert left == {c.method for c in made} - {"roles@1"} and left


def everyone(kept):
    return [v for t in ORGANISMS for v in verdicts(read(kept / f"{t}-{FIRST}" / "ledger.jsonl")).values()]


def test_shipped_calibrations_are_of_the_methods_as_they_are():
    shipped = calibrations.everything()
    assert {c.method for c in shipped} == set(calibrations.SOURCES) - {"direct-effects@1"}
    assert all(c.code == calibrations.code_of(c.method) for c in shipped)
    assert all(c.kind and c.components and c.decade and c.seeds >= 2 for c in shipped)


def test_what_cannot_be_calibrated(tmp_path, capsys):
    with pytest.raises(UnknownName, match=r"'inducton'.*induction"):
        calibrate(tmp_path / "run", organisms=("inducton",))
    with pytest.raises(BadInput, match="1 seeds; expected at least two"):
        calibrate(tmp_path / "run", seeds=1)
    file = tmp_path / "out.json"
    for wrong, said in (
        (("--organism", "inducton"), "induction"),
        (("--seeds", "1"), "at least two"),
        (("--task", "rules", "--seconds", "3"), "--calibrate with --task, --seconds"),
    ):
        assert (
            main(["bench", "--calibrate", str(file), *wrong, "--out", str(tmp_path / "run"), "--quiet"]) == 2
        )
        assert said in " ".join(capsys.readouterr().err.split())
    assert not file.exists() and not (tmp_path / "run").exists()


def test_the_command(done, replayed, tmp_path, capsys):
    _, made, _, _ = done
    file = tmp_path / "out.json"
    asked = ["--organism", "induction", "--organism", "planted", "--seeds", "2", "--jobs", "1"]
    asked = ["bench", "--calibrate", str(file), *asked, "--out", str(tmp_path / "run"), "--quiet"]
    assert main([*asked, "--dry-run", "--json"]) == 0
    assert [r["organism"] for r in json.loads(capsys.readouterr().out)] == ["induction", "planted"]
    assert not file.exists() and not (tmp_path / "run").exists()
    assert main([*asked, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(r["method"], r["side"], r["supported"]) for r in rows] == [
        (c.method, c.side, c.supported) for c in made
    ]
    assert {r["components"] for r in rows} == {"1 to 9 heads", "10 to 99 neurons"}
    assert [c["method"] for c in json.loads(file.read_text())] == [c.method for c in made]


def test_a_process_that_is_killed_is_an_error_and_no_wait(monkeypatch):
    monkeypatch.setattr(calibration, "_named", dies_at_once)
    with pytest.raises(ProsectError, match="killed"):
        list(calibration.runs([("planted", FIRST, "", {})], jobs=1))
