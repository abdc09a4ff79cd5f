"""The page says what the ledger says, all of it, in words that follow the state of each claim."""

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

import prosect
from conftest import RUNS
from prosect.core.proportions import clopper_pearson
from prosect.core.verdicts import verdicts
from prosect.report import build
from prosect.report.words import WORDS
from prosect.store.ledger import parse, read

NAMES = sorted(RUNS)
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(prosect.__file__).parent.parent)}
SUBSTANTIAL = [n for n in NAMES if n not in ("empty",)]


def judged(folder):
    return verdicts(read(folder / "ledger.jsonl"))


def numbers(text):
    return [int(n.replace(",", "")) for n in re.findall(r"(?<![\d.])\d[\d,]*(?![\d.])", text)]


@pytest.mark.parametrize("name", NAMES)
def test_it_is_well_formed_and_its_links_lead_somewhere(pages, name):
    _, page = pages(name)
    ids = [n.attributes["id"] for n in page.walk() if "id" in n.attributes]
    assert len(ids) == len(set(ids))
    for link in page.all("a"):
        target = link.attributes["href"]
        assert target.startswith("#")
        assert target.startswith("#?") or target[1:] in ids, target


@pytest.mark.parametrize("name", SUBSTANTIAL)
def test_every_registered_claim_is_there_once_with_its_verdict(pages, runs, name):
    _, page = pages(name)
    found = judged(runs(name))
    lines = page.all("span", "line", data_claim=...)
    assert Counter(n.attributes["data-claim"] for n in lines) == Counter(found.keys())
    for line in lines:
        assert line.one("span", "verdict").words == WORDS[found[line.attributes["data-claim"]].overall]


@pytest.mark.parametrize("name", SUBSTANTIAL)
def test_every_registered_test_is_there_with_its_ruling(pages, runs, name):
    _, page = pages(name)
    found = judged(runs(name))
    told = page.all("section", "claim")
    assert {n.attributes["data-told"] for n in told} == set(found)
    starts = {
        "supported": "Supported",
        "refuted": "Refuted",
        "inconclusive": "Could not",
        "not tested": "Registered",
    }
    for node in told:
        verdict = found[node.attributes["data-told"]]
        trials = node.all("figure", "trial")
        assert len(trials) == len(verdict.hypothesis.tests)
        for trial, plan in zip(trials, verdict.hypothesis.tests, strict=True):
            ruling = trial.one("p", "ruling").words
            assert ruling.startswith(starts[verdict.tests[plan.name].outcome])
            assert (f"at level {plan.level}" in ruling) == (plan.level is not None)


@pytest.mark.parametrize("name", SUBSTANTIAL)
def test_counts_are_the_ledgers(pages, runs, name):
    _, page = pages(name)
    found = Counter(v.overall for v in judged(runs(name)).values())
    shown = {n.attributes["data-total"]: numbers(n.words)[0] for n in page.all("b", data_total=...)}
    assert shown.pop("registered") == sum(found.values())
    assert shown == {o: found[o] for o in WORDS}
    draws = page.one("table", "compact")
    for label, outcome in (("supported", "supported"), ("could not be judged", "inconclusive")):
        cells = draws.all("td", data_label=label)
        assert sum(numbers(c.words)[0] for c in cells) == found[outcome]
    assert sum(numbers(c.words)[0] for c in draws.all("td", data_label="claims")) == sum(found.values())


@pytest.mark.parametrize("name", SUBSTANTIAL)
def test_the_map_accounts_for_every_claim(pages, runs, name):
    _, page = pages(name)
    found = Counter(v.overall for v in judged(runs(name)).values())
    atlas = page.one("table", "atlas")
    shown = Counter()
    for item in atlas.all("span", "key"):
        count, words = item.words.split(" ", 1)
        shown[words] += numbers(count)[0]
    assert shown == {WORDS[o]: n for o, n in found.items() if n}


def test_places_left_alone_are_drawn(pages):
    _, page = pages("normal")
    alone = page.one("table", "atlas").all("td", "alone")
    assert len(alone) == 4  # three layers of neurons, and the embeddings
    assert all("0 of" in cell.words and cell.all("svg", "seen-bar") for cell in alone)


@pytest.mark.parametrize("name", ["normal", "nothing-supported", "all-supported"])
def test_the_answer_has_denominator_and_exact_interval(pages, runs, name):
    _, page = pages(name)
    found = [v.overall for v in judged(runs(name)).values()]
    supported, refuted = found.count("supported"), found.count("refuted")
    low, high = clopper_pearson(supported, len(found))
    answer = page.one("p", "answer").words
    assert numbers(answer)[0] == len(found)
    assert (str(refuted) if refuted else "None was refuted") in answer

    def percent(x):
        return f"{100 * x:.1f}" if 0 < x < 0.01 or 0.99 < x < 1 else f"{100 * x:.0f}"

    assert f"interval {percent(low)} to {percent(high)}" in answer


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_ever_called_proved(pages, name):
    page = pages(name)[1]
    if name != "hostile":
        assert not re.search(r"\b(proved|proven|proves|confirmed|confirms|verified)\b", page.text, re.I)


def test_failures_come_before_everything_that_worked(pages):
    _, page = pages("normal")
    sections = [n.attributes["id"] for n in page.one("main").all("section", id=...) if n.parent.tag == "main"]
    assert sections[:3] == ["failed", "map", "components"]
    cards = page.one("div", id="cards").all(None, "card")
    refuted = ["r" in c.attributes["data-out"].split() for c in cards]
    assert any(refuted) and refuted == sorted(refuted, reverse=True)
    gaps = [float(c.attributes["data-gap"]) for c in cards if c.attributes["data-gap"]]
    assert gaps == sorted(gaps, reverse=True)


def test_what_explore_promised_is_labelled_and_never_the_estimate(pages, runs):
    _, page = pages("normal")
    records = list(read(runs("normal") / "ledger.jsonl"))
    measured = {(r.hypothesis, r.test): r.measured.estimate for r in records if hasattr(r, "comparisons")}
    for row in page.one("section", id="failed").all("table", "falls"):
        for line in row.one("tbody").all("tr"):
            if "axis-row" not in line.classes:
                explored, estimate, fell = (
                    line.one("td", data_label=k).words for k in ("explored", "measured", "fell by")
                )
                value = float(estimate.split(" ")[0].replace("−", "-"))
                assert any(abs(value - m) < 0.006 for m in measured.values())
                gap = float(fell.replace("−", "-"))
                assert gap == pytest.approx(value - float(explored.replace("−", "-")), abs=0.011)


def test_every_mark_has_words(pages):
    _, page = pages("normal")
    for marks in page.all("span", "marks", role="img"):
        label = marks.attributes["aria-label"]
        assert len(marks.all("i", "mk")) == 5
        told = re.findall(r"level (\d) (supported|refuted|could not be judged)", label)
        rest = re.search(r"levels? ([\d, ]+) not tested", label)
        levels = [n for n, _ in told] + (rest.group(1).split(", ") if rest else [])
        assert sorted(levels) == ["1", "2", "3", "4", "5"]
        shapes = {"supported": "s", "refuted": "r", "could not be judged": "i"}
        drawn = [n.classes[1] for n in marks.all("i", "mk")]
        assert drawn == [{int(n): shapes[o] for n, o in told}.get(k, "n") for k in range(1, 6)]
    for ladder in page.all("span", "ladder"):
        links = ladder.all("a")
        assert [numbers(a.one("span", "sr").words)[0] for a in links] == [1, 2, 3, 4, 5]


def test_level_four_is_the_methods(pages):
    _, page = pages("normal")
    method = page.one("section", id="method").words
    assert "512 neurons, 64 tokens" in method and "0.949 [0.893, 0.981]" in method
    assert "never measured" in method  # the heads' explainer
    _, page = pages("nothing-supported")
    assert "never measured where the truth is known" in page.one("section", id="answer").words


def test_truth_is_reported_where_it_is_known(pages, runs):
    _, page = pages("truth")
    found = [v for v in judged(runs("truth")).values() if v.overall == "supported"]
    true = sum(v.truth.holds is True for v in found)
    false = sum(v.truth.holds is False for v in found)
    assert f"of {len(found)} supported claims {true}" in page.one("section", id="answer").words
    row = next(r for r in page.one("section", id="method").all("tr") if r.words.startswith("supported"))
    assert [int(cell.words) for cell in row.all("td")][:2] == [true, false]
    assert "The mechanism" not in pages("normal")[1].text


def test_empty_unfinished_and_limited_runs_say_so(pages):
    assert "No claim was registered" in pages("empty")[1].one("p", "answer").words
    assert "Nothing was tested, so nothing could fail" in pages("empty")[1].text
    unfinished = pages("unfinished")[1]
    assert "none has been tested" in unfinished.one("p", "answer").words
    assert "had not ended" in unfinished.one("p", "caution").words
    assert "Limited to 2 latents" in pages("limited")[1].one("p", "caution").words
    assert "No claim was refuted" in pages("all-supported")[1].one("section", id="failed").words


def test_lineages_show_every_step(pages, runs):
    _, page = pages("normal")
    found = judged(runs("normal"))
    children = [h for h, v in found.items() if v.hypothesis.parent]
    assert children
    said = page.one("section", id="failed").words
    assert f"{len(children)} claims were refined" in said
    assert len(page.one("ol", "lineages").all("li", "step")) == 2 * min(8, len(children))


def test_ledger_count_and_head_are_given(pages, runs):
    _, page = pages("normal")
    entries, _ = parse(runs("normal") / "ledger.jsonl")
    provenance = page.one("section", id="provenance").words
    assert f"{len(entries)} lines" in provenance and entries[-1].hash in provenance
    assert f"--head {entries[-1].hash[:16]}" in page.one("section", id="check").words


def test_all_text_is_there_without_script(pages, runs):
    html, page = pages("normal")
    page.one("script").children.clear()
    said = page.words
    for verdict in judged(runs("normal")).values():
        assert " ".join(verdict.hypothesis.description.words.split()) in said
    assert "hidden" in page.one("form").attributes  # what only script can do is not shown without it
    assert not [d for d in page.all("details", "card") if "hidden" in d.attributes]
    assert "application/json" not in html


def test_the_same_records_give_the_same_bytes_anywhere(runs, tmp_path):
    first = build(runs("normal")).read_bytes()
    moved = tmp_path / "elsewhere" / "renamed"
    shutil.copytree(runs("normal"), moved)
    (moved / "report.html").unlink()
    code = "import sys; from pathlib import Path; from prosect.report import build; build(Path(sys.argv[1]))"
    environment = {**ENVIRONMENT, "PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo", "LC_ALL": "C"}
    subprocess.run([sys.executable, "-c", code, str(moved)], check=True, env=environment, cwd=tmp_path)
    assert (moved / "report.html").read_bytes() == first


def test_torch_stays_unimported(runs):
    code = (
        "import sys; from pathlib import Path; from prosect.report import build, summary, run_card;"
        "run = Path(sys.argv[1]); build(run); summary(run); run_card(run);"
        "bad = [m for m in ('torch', 'transformers', 'sklearn') if m in sys.modules]; sys.exit(', '.join(bad) or 0)"
    )
    command = [sys.executable, "-c", code, str(runs("normal"))]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
