"""`prosect run`: exit codes, JSON, resuming, and what a dry run leaves alone."""

import json
import os
import signal
import time

import pytest

from forecasts import foreseen
from prosect.cli import main
from prosect.store.verify import verify
from tiny import call, files, spawn


def test_a_run_with_refuted_claims_is_done(finished):
    run, code = finished
    assert code == 0
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["verdicts"]["refuted"] >= 1
    assert (run / "report.html").exists()
    assert verify(run).count > metrics["claims"]


def test_the_dry_run_said_what_was_then_run(finished):
    """Every head is looked at, taken out of its rows and compared: nothing is left to what explore finds."""
    row, on_explore, on_folds, gradients = foreseen(finished[0])
    assert on_explore == row["rows run on explore"] > 0
    assert on_folds == row["rows run on the folds"] > 0
    assert gradients == row["rows with gradients"] == 0


def test_a_run_of_which_every_claim_is_refuted_is_done(specs, tmp_path, capsys):
    """No correlation exceeds another by two; that is a finding, not a failure."""
    spec = tmp_path / "strict.toml"
    spec.write_text(
        specs["latents"].read_text() + "margin = 2.5\nmargin_effect = 99.0\nmargin_change = 2.5\n"
    )
    code, out, _ = call(capsys, "run", spec, "--out", tmp_path / "run", "--quiet", "--json")
    assert code == 0
    verdicts = json.loads(out)["verdicts"]
    assert verdicts.keys() == {"refuted"}
    row, on_explore, on_folds, _ = foreseen(
        tmp_path / "run"
    )  # how many rows a latent is active in shows later
    assert on_explore <= row["rows run on explore"] <= 1.5 * on_explore
    assert on_folds <= row["rows run on the folds"] <= 3 * on_folds


def test_a_second_run_says_that_it_is_done_and_changes_nothing(finished, specs, capsys):
    run, _ = finished
    before = files(run)
    code, out, complaints = call(capsys, "run", specs["heads"], "--out", run)
    assert code == 0
    assert "already done" in complaints and "report.html" in complaints
    assert "claims registered" in out and "report.html" in " ".join(out.split())
    code, out, _ = call(capsys, "run", specs["heads"], "--out", run, "--json", "--quiet")
    assert code == 0
    assert json.loads(out)["head"] == verify(run).hash
    assert files(run) == before


def test_json_has_the_metrics_and_where_they_are(finished, specs, capsys):
    run, _ = finished
    _, out, _ = call(capsys, "run", specs["heads"], "--out", run, "--json", "--quiet")
    printed = json.loads(out)
    metrics = json.loads((run / "metrics.json").read_text())
    assert {k: printed[k] for k in metrics} == metrics
    assert printed["run"] == str(run) and printed["entries"] == verify(run).count


def test_no_path_and_no_time_is_in_the_metrics(finished):
    run, _ = finished
    text = (run / "metrics.json").read_text()
    assert str(run.parent) not in text and "second" not in text


@pytest.mark.parametrize("target", ["induction", "superposition", "modular", "planted"])
def test_a_dry_run_writes_nothing(target, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PROSECT_HOME", str(tmp_path / "home"))
    code, out, _ = call(capsys, "run", target, "--limit", 80, "--dry-run", "--json")
    assert code == 0
    for row in json.loads(out):
        assert row["positions run"] > 0 and row["FLOPs"] > 0 and row["seconds, at least"] >= 0
    code, out, _ = call(capsys, "run", target, "--limit", 80, "--dry-run")
    assert code == 0 and "positions run" in out
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_inside_the_loop(specs, tmp_path, monkeypatch, capsys):
    from prosect.cli import run as verb

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(verb, "conduct", interrupted)
    code, out, complaints = call(capsys, "run", specs["heads"], "--out", tmp_path / "run")
    assert code == 130 and out == ""
    assert "the same command resumes where it stopped" in complaints


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT")
def test_ctrl_c_in_the_middle_of_a_run_and_the_same_command_again(finished, specs, tmp_path, capsys):
    out = tmp_path / "run"
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    process = spawn("run", specs["heads"], "--out", out, code=f"{code}from prosect.cli import run; run()")
    deadline = time.monotonic() + 120
    while not (out / "run.json").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    printed, complaints = process.communicate(timeout=60)
    assert process.returncode == 130, complaints
    assert "the same command resumes" in complaints and "Traceback" not in complaints
    assert printed.strip() == ""
    assert not (out / "done.json").exists()
    code, printed, _ = call(capsys, "run", specs["heads"], "--out", out, "--json", "--quiet")
    assert code == 0
    assert json.loads(printed)["head"] == verify(finished[0]).hash


def test_an_error_that_nobody_meant_is_not_hidden(specs, tmp_path, monkeypatch):
    from prosect.cli import run as verb

    def broken(*_, **__):
        raise ZeroDivisionError

    monkeypatch.setattr(verb, "conduct", broken)
    with pytest.raises(ZeroDivisionError):
        main(["run", str(specs["heads"]), "--out", str(tmp_path / "run")])


@pytest.mark.parametrize("arguments", [[], ["--help"], ["run", "--help"], ["--version"]])
def test_help_is_no_error_and_nothing_is_bad_input(arguments, capsys):
    code, out, complaints = call(capsys, *arguments)
    assert code == (0 if arguments else 2)
    assert "prosect" in (out if arguments else complaints)


@pytest.mark.parametrize(
    "arguments", [["jump"], ["run"], ["run", "induction", "--colour"], ["run", "induction", "--seed", "x"]]
)
def test_arguments_that_do_not_exist(arguments, capsys):
    code, out, complaints = call(capsys, *arguments)
    assert code == 2 and out == "" and "Error" in complaints


def test_help_answers_without_heavy_imports():
    code = (
        "import sys\nfrom prosect.cli import main\nmain(['run', '--help'])\n"
        "bad = [m for m in ('torch', 'transformers', 'scipy', 'sklearn', 'interp_engine', 'numpy') "
        "if m in sys.modules]\nsys.exit(', '.join(bad) or 0)"
    )
    process = spawn(code=code)
    out, complaints = process.communicate(timeout=60)
    assert process.returncode == 0, complaints
    assert "--dry-run" in out
