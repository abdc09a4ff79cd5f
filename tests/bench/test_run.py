"""A whole run on a tiny organism: leaderboards, failures, and runs that are killed and go on."""

import json
from typing import ClassVar

import pytest

import prosect.bench.run as running
from killed import Killed, killing
from prosect.bench.isolation import Isolated
from prosect.bench.leaderboard import content
from prosect.bench.plan import Asked, hashed, known, planned
from prosect.bench.written import bench
from prosect.cli import main
from prosect.core.errors import BadInput, Conflict, UnknownName
from prosect.core.registries import BASELINES, METHODS, ORGANISMS
from prosect.store.verify import verify


def add(patched, registry, name, where):
    patched.setitem(registry._where, name, where)
    patched.setitem(registry._about, name, "for tests")


@pytest.fixture(scope="module")
def tiny():
    """One organism and a few methods, as a user would add them."""
    with pytest.MonkeyPatch.context() as patched:
        yield added(patched)


def added(monkeypatch):
    for registry in (METHODS, BASELINES):
        for name in list(registry):
            monkeypatch.delitem(registry._where, name)
    add(monkeypatch, ORGANISMS, "tiny", "benched:build")
    add(monkeypatch, METHODS, "features/drawn", "benched_methods:drawn")
    add(monkeypatch, METHODS, "features/raises", "benched_methods:raises")
    add(monkeypatch, METHODS, "features/too-many", "benched_methods:too_many")
    add(monkeypatch, METHODS, "features/not-finite", "benched_methods:not_finite")
    add(monkeypatch, METHODS, "features/wrong-shape", "benched_methods:wrong_shape")
    add(monkeypatch, BASELINES, "features/axes", "benched_methods:axes")


class Lent(Isolated):
    """A process of methods that goes on to the next run: starting one takes seconds, and each method is forked anyhow."""

    kept: ClassVar[list[Isolated]] = []

    def __init__(self):
        self.process = self.kept.pop() if self.kept else Isolated()

    def run(self, given, order):
        return self.process.run(given, order)

    def close(self):
        self.kept.append(self.process)


@pytest.fixture(scope="module", autouse=True)
def lent():
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(running, "Isolated", Lent)
        yield
    for process in Lent.kept:
        process.close()
    Lent.kept.clear()


ASKED = Asked(tasks=("features",), organisms=("tiny",), seeds=2, seconds=20.0)


def without_seconds(boards):
    found = [content(b) for b in boards]
    for board in found:
        for line in board["lines"]:
            line.pop("seconds")
    return found


@pytest.fixture(scope="module")
def done(tiny, tmp_path_factory):
    out = tmp_path_factory.mktemp("bench") / "run"
    return out, bench(planned(ASKED), out)


def test_a_leaderboard(done):
    out, (board,) = done
    assert board.task == "features" and board.organisms == {"tiny": 2}
    assert board.lines[0].name == "oracle" and board.lines[-1].name == "random"
    assert board.line("oracle").scores["max cosine"].estimate == pytest.approx(1.0)
    random = board.line("random").scores["max cosine"].estimate
    assert abs(random - board.floor) < 0.05
    assert board.line("axes").kind == "baseline" and board.line("axes").against is None
    assert board.line("drawn").against.baseline == "axes" and board.line("drawn").at_random
    for name, said in {
        "raises": "no such luck",
        "too-many": "5 directions; expected 1 to 4",
        "not-finite": "NaN or infinity in directions",
        "wrong-shape": "directions of shape (3, 2)",
    }.items():
        line = board.line(name)
        assert line.failed == line.cases == 2 and said in line.reasons[0]
        assert line.scores["max cosine"].estimate == pytest.approx(
            board.floor
        )  # as one who looked at nothing
        assert line.at_random
    assert verify(out)
    page = (out / "leaderboard.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>") and "&lt;" not in page.partition("<main>")[0]
    assert "no such luck" in page and "http-equiv" in page and "src=" not in page
    assert [b["task"] for b in json.loads((out / "leaderboard.json").read_text())["boards"]] == ["features"]


def test_again_does_nothing_and_says_the_same(done, monkeypatch):
    out, first = done
    monkeypatch.setattr(running, "subject", None)  # nothing is built
    assert content(bench(planned(ASKED), out)[0]) == content(first[0])


def test_killed_and_started_again_it_ends_the_same(done, tmp_path, monkeypatch):
    _, first = done
    out = tmp_path / "killed"
    with monkeypatch.context() as patched:
        patched.setattr(running, "Isolated", Isolated)  # one whose process is ended with the run
        killing(patched, running.RunFolder, "json_step", 5)
        with pytest.raises(Killed):
            bench(planned(ASKED), out)
    again = bench(planned(ASKED), out)
    assert without_seconds(again) == without_seconds(first)
    ledgers = [(p / "ledger.jsonl").read_bytes() for p in (done[0], out)]
    assert ledgers[0] == ledgers[1]


def test_two_jobs_give_what_one_gives(done, tmp_path):
    out, first = done
    again = bench(planned(ASKED), tmp_path / "two", jobs=2)
    assert without_seconds(again) == without_seconds(first)
    assert (tmp_path / "two" / "ledger.jsonl").read_bytes() == (out / "ledger.jsonl").read_bytes()


def test_an_organism_that_comes_out_otherwise_is_named_with_both_hashes(tiny, tmp_path, monkeypatch):
    out = tmp_path / "run"
    with monkeypatch.context() as patched:
        killing(patched, running.RunFolder, "json_step", 2)
        with pytest.raises(Killed):
            bench(planned(ASKED), out)
    real = running.subject
    monkeypatch.setattr(running, "subject", lambda name, seed: real(name, seed + 5))
    with pytest.raises(
        BadInput, match=r"tiny of seed 0 with weights [0-9a-f]{16}; expected the weights [0-9a-f]{16}"
    ):
        bench(planned(ASKED), out)


def test_one_that_is_past_its_budget_fails_and_the_rest_goes_on(tiny, tmp_path, monkeypatch):
    add(monkeypatch, METHODS, "features/sleeps", "benched_methods:sleeps")
    methods = ("sleeps", "drawn", "axes")
    asked = Asked(tasks=("features",), organisms=("tiny",), methods=methods, seeds=1, seconds=3.0)
    (board,) = bench(planned(asked), tmp_path / "run")
    line = board.line("sleeps")
    assert line.failed == line.cases == 1 and line.reasons == ("past its budget of 3 seconds",)
    assert line.scores["max cosine"].estimate == pytest.approx(board.floor)
    assert board.line("drawn").failed == board.line("axes").failed == 0


def test_an_organism_that_cannot_be_asked_is_named_and_the_rest_goes_on(tiny, tmp_path, monkeypatch):
    add(monkeypatch, ORGANISMS, "misplaced", "benched:build_misplaced")
    asked = Asked(tasks=("features",), organisms=("misplaced", "tiny"), methods=("oracle",), seeds=1)
    (board,) = bench(planned(asked), tmp_path / "run")
    assert board.organisms == {"tiny": 1}
    (skipped,) = json.loads((tmp_path / "run" / "leaderboard.json").read_text())["skipped"]
    assert (skipped["task"], skipped["organism"]) == ("features", "misplaced")
    assert "activations of shape" in skipped["why"]
    assert "features is not asked on misplaced" in (tmp_path / "run" / "ledger.jsonl").read_text()


def test_another_question_wants_another_folder(done):
    with pytest.raises(Conflict):
        bench(planned(Asked(tasks=("features",), organisms=("tiny",), seeds=1)), done[0])


def test_a_sealed_seed_is_nowhere_in_the_folder(tiny, tmp_path):
    secret = "correct horse battery staple"
    asked = Asked(tasks=("features",), organisms=("tiny",), methods=("oracle",), seeds=1, sealed=secret)
    plan, out = planned(asked), tmp_path / "sealed"
    seeds = [str(i.seed) for i in plan.instances]
    assert secret not in repr(plan) and not any(s in repr(plan) for s in seeds)
    bench(plan, out)
    written = b"".join(p.read_bytes() for p in out.rglob("*") if p.is_file())
    assert secret.encode() not in written and not any(s.encode() in written for s in seeds)
    assert hashed(secret).encode() in written
    assert plan.instances[0].seed == planned(asked).instances[0].seed
    assert plan.instances[0].seed != planned(Asked(**{**vars(asked), "sealed": "another"})).instances[0].seed


def test_what_cannot_be_asked():
    for asked in (
        Asked("slow"),
        Asked(tasks=("none",)),
        Asked(methods=("none",)),
        Asked(organisms=("none",)),
    ):
        with pytest.raises(UnknownName):
            planned(asked)
    with pytest.raises(BadInput):
        planned(Asked(seeds=0))


def test_the_command(tiny, tmp_path, capsys):
    arguments = ["bench", "--task", "features", "--organism", "tiny", "--method", "axes", "--seeds", "1"]
    assert main([*arguments, "--dry-run", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["answers at most"] == 1 and row["organisms"] == "tiny" and not (tmp_path / "run").exists()
    arguments[arguments.index("axes")] = "oracle"  # no method but the references
    assert main([*arguments, "--out", str(tmp_path / "run"), "--quiet", "--json"]) == 0
    (board,) = json.loads(capsys.readouterr().out)
    assert [line["name"] for line in board["lines"]] == ["oracle", "random"]
    assert main([*arguments, "--out", str(tmp_path / "run"), "--quiet"]) == 0
    assert "floor" in capsys.readouterr().out
    assert main(["bench", "--task", "nothing"]) == 2
    assert main(["bench", "full", "--task", "roles", "--dry-run", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["organisms"] == f"those of {len(known())} whose truth answers it" and row["seeds"] == 8


def test_every_organism_comes_once_before_any_comes_twice():
    found = [(i.organism, i.label) for i in planned(Asked("quick", seeds=3)).instances]
    once = len({organism for organism, _ in found})
    assert [label for _, label in found] == [label for label in "012" for _ in range(once)]
    assert len(set(found)) == 3 * once
