"""A ledger that does not hold stops the report, or heads the page that was asked for all the same."""

import json

import pytest
from reader import read_page

from prosect.core.canonical import canonical_json
from prosect.core.errors import VerificationFailed
from prosect.core.records import Evidence
from prosect.core.verdicts import verdicts
from prosect.report import build, run_card, summary
from prosect.store.ledger import line_of, parse


def lines(run):
    return (run / "ledger.jsonl").read_bytes().splitlines(keepends=True)


def rewrite(run, changed):
    (run / "ledger.jsonl").write_bytes(b"".join(changed))


def first_evidence(run):
    entries, _ = parse(run / "ledger.jsonl")
    return next(e.n for e in entries if isinstance(e.record, Evidence))


def edit(run):
    raw, n = lines(run), first_evidence(run) + 3
    content = json.loads(raw[n])
    content["body"]["p"] = 1e-9
    raw[n] = canonical_json(content) + b"\n"
    rewrite(run, raw)
    return n


def lose_the_end(run):
    rewrite(run, lines(run)[:-3])


def rechain_without_a_family(run):
    entries, _ = parse(run / "ledger.jsonl")
    out, prev = [], "0" * 64
    kept = [e.record for e in entries if type(e.record).__name__ != "Family"]
    for n, record in enumerate(kept):
        raw, prev = line_of(n, prev, record)
        out.append(raw)
    rewrite(run, out)
    for path in (run.parent / f"{run.name}.head", run / "done.json"):
        content = json.loads(path.read_text())
        path.write_text(json.dumps({**content, "entries": len(out), "head": prev}))


@pytest.mark.parametrize("tamper", [edit, lose_the_end, rechain_without_a_family])
def test_it_is_an_error_and_nothing_is_written(copy, tamper):
    run = copy("slight")
    (run / "report.html").unlink(missing_ok=True)
    tamper(run)
    with pytest.raises(VerificationFailed):
        build(run)
    assert not (run / "report.html").exists()


@pytest.mark.parametrize("tamper", [edit, lose_the_end, rechain_without_a_family])
def test_the_page_says_so_before_anything_else(copy, tamper):
    run = copy("slight")
    tamper(run)
    page = read_page(build(run, allow_broken=True).read_text(encoding="utf-8"))
    words = page.one("body").words.removeprefix("Skip to the components ")
    assert words.startswith("The ledger of this run does not hold.")
    assert "Nothing on this page should be relied on" in page.one("div", "alarm").words
    assert "The ledger does not hold" in run_card(run)


def test_lines_after_the_break_count_for_nothing(copy):
    run = copy("slight")
    n = edit(run)
    whole = len(lines(run))
    page = read_page(build(run, allow_broken=True).read_text(encoding="utf-8"))
    assert f"{n} lines before the break" in page.one("div", "alarm").words
    assert f"{whole - n} lines after it" in page.one("div", "alarm").words
    kept = copy_of_the_beginning(run, n)
    shown = {b.attributes["data-total"]: b.words for b in page.all("b", data_total=...)}
    assert shown["supported"] == str(sum(v.overall == "supported" for v in kept.values()))
    assert shown["registered"] == str(len(kept))


def copy_of_the_beginning(run, n):
    path = run / "beginning.jsonl"
    path.write_bytes(b"".join(lines(run)[:n]))
    entries, _ = parse(path)
    return verdicts(e.record for e in entries)


def test_a_finished_ledger_with_a_torn_line_does_not_hold(copy):
    run = copy("slight")
    with (run / "ledger.jsonl").open("ab") as file:
        file.write(b'{"n":')
    with pytest.raises(VerificationFailed, match="cut short"):
        build(run)


def test_a_head_that_is_not_there_breaks_nothing(copy):
    run = copy("slight")
    (run.parent / "slight.head").unlink()
    assert "alarm" not in [
        c for n in read_page(build(run).read_text(encoding="utf-8")).walk() for c in n.classes
    ]


def test_a_missing_ledger_of_a_finished_run_is_found(copy):
    run = copy("slight")
    (run / "ledger.jsonl").unlink()
    with pytest.raises(VerificationFailed, match="missing"):
        build(run)
    assert summary(run) is not None
