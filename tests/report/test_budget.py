"""The page has a largest size: what does not fit is chosen by the rule that the page states, and counted."""

import dataclasses
import re
from collections import Counter

import pytest
from fabricate import fabricate
from reader import read_page

from prosect.core.records import Component, Evidence, Family, Hypothesis, Opening
from prosect.core.verdicts import verdicts
from prosect.report.budget import MOST_CARD, fit
from prosect.report.claims import Card, claims_of, gather
from prosect.report.page import render
from prosect.report.places import Place
from prosect.report.reading import read_run
from prosect.store.ledger import GENESIS, Entry

HEAD = "ab" * 32


class Fake(Card):
    """A card whose outcomes are given."""

    @property
    def outcomes(self):
        return frozenset({self.draw})


def cards(n, refuted):
    return [
        Fake(
            Component(decomposition="d", index=i),
            f"card{i}",
            Place("latent", "s", 0),
            "refuted" if i < refuted else "supported",
            i,
        )
        for i in range(n)
    ]


def line(card):
    return f"<{card.slug}>".ljust(100)


def whole(card):
    return f"<{card.slug}>" + "x" * 893


def shown(found):
    return {re.match("<(card\\d+)>", h).group(1): len(h) for h in found.html}


def test_everything_fits_where_there_is_room():
    found = fit(cards(30, 10), HEAD, 100_000, line, whole)
    assert (found.lines, found.opened, found.absent) == (30, 30, 0)
    assert [re.match("<(card\\d+)>", h).group(1) for h in found.html] == [f"card{i}" for i in range(30)]


def test_failures_get_their_lines_first_and_all_of_them():
    found = fit(cards(1000, 40), HEAD, 6_000, line, whole)
    kept = shown(found)
    assert {f"card{i}" for i in range(40)} <= set(kept)
    assert found.absent == 1000 - len(kept) and found.failures_absent == 0
    assert sum(kept.values()) <= 6_000
    found = fit(cards(1000, 100), HEAD, 6_000, line, whole)
    assert list(shown(found)) == [f"card{i}" for i in range(60)]
    assert found.failures_absent == 40


def test_half_of_the_room_opens_failures_in_order_and_half_a_sample():
    found = fit(cards(100, 60), HEAD, 10_000 + 20 * 801, line, whole)
    opened = [name for name, size in shown(found).items() if size > 500]
    assert opened[:10] == [f"card{i}" for i in range(10)]
    assert len(opened) == found.opened >= 19
    assert any(int(name[4:]) >= 60 for name in opened)


def test_the_sample_is_the_ledgers_and_nobodys():
    def sample(head):
        return list(shown(fit(cards(1000, 0), head, 6_000, line, whole)))

    assert sample(HEAD) == sample(HEAD) != sample("cd" * 32)
    counts = Counter(int(n[4:]) // 250 for k in range(20) for n in sample(f"{k:02x}" * 32))
    assert min(counts.values()) > 200  # of 1,200 draws, every quarter of the cards has its share


def test_one_enormous_card_keeps_no_other_closed():
    def huge(card):
        return "y" * (MOST_CARD + 1000) if card.slug == "card0" else whole(card)

    found = fit(cards(10, 10), HEAD, 3_000_000, line, huge)
    assert found.opened == 9


@pytest.mark.parametrize("most", [300_000, 400_000])
def test_a_small_page_says_what_it_leaves_out(runs, most):
    run = read_run(runs("normal"))
    html = render(run, most)
    assert len(html.encode()) <= most
    page = read_page(html)
    total = len(gather(run, claims_of(run)))
    lines = page.one("div", id="cards").all(None, "card")
    opened = page.all("details", "card")
    assert 0 < len(opened) < len(lines) == total
    said = page.one("section", id="components").words
    assert f"{len(opened)} of {total} cards open" in said and "random sample" in said
    assert {b.attributes["data-total"]: b.words for b in page.all("b", data_total=...)}["registered"] == str(
        len(run.verdicts)
    )


def test_strings_of_any_length_do_not_burst_it(tmp_path):
    long = "<x>" * 700_000
    run = fabricate(
        tmp_path / "run", latents=1, heads=0, neurons=0, rounds=1, title=long, question=long, data=long,
        limits=(long, *["short"] * 200), decisions=(long, *["short"] * 200), command=long, decomposition="d" * 100,
    )  # fmt: skip
    html = render(read_run(run), 10_000_000)
    assert len(html) < 500_000
    read_page(html)


def crowded(run, components):
    """A run's records over again, of as many components; nothing is hashed, so ids are plain numbers."""
    made = [e.record for e in run.entries if isinstance(e.record, Hypothesis)]
    tests = {e.record.hypothesis: e.record for e in run.entries if isinstance(e.record, Evidence)}
    opening = next(e.record for e in run.entries if isinstance(e.record, Opening))
    frozen, evidence = [], []
    for i in range(components):
        like = made[i % len(made)]
        found = tests[like.id]
        copy = like.model_copy(update={"component": like.component.model_copy(update={"index": i})})
        copy.__dict__["id"] = f"{i:016x}"
        frozen.append(copy)
        evidence.append(found.model_copy(update={"hypothesis": copy.id}))
    family = Family(round=1, alpha=0.025, hypotheses=tuple(h.id for h in frozen), tests=components)
    records = [*frozen, family, opening, *evidence]
    entries = tuple(Entry(n, r, GENESIS, f"{n:064x}") for n, r in enumerate(records))
    return dataclasses.replace(run, entries=entries, verdicts=verdicts(records), exhibits={})


@pytest.mark.slow
def test_ten_thousand_components_fit_and_are_all_listed(tmp_path):
    few = fabricate(tmp_path / "run", latents=200, heads=0, neurons=0, rounds=1, small=True, exhibits=False)
    html = render(crowded(read_run(few), 10_000))
    assert len(html.encode()) <= 10_000_000
    page = read_page(html)
    assert len(page.one("div", id="cards").all(None, "card")) == 10_000
    assert len(page.all("div", "lot")) == 250
