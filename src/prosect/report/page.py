"""`build`: one HTML file from the records of a run, with nothing to fetch and nothing to run but its own script."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from prosect.core.errors import VerificationFailed
from prosect.core.exhibits import Exhibit
from prosect.report import words
from prosect.report.atlas import atlas
from prosect.report.budget import MOST_BYTES, SLACK, Fit, fit
from prosect.report.cards import body, heading
from prosect.report.claims import Card, Claim, claims_of, gather
from prosect.report.drawings import outcome_bar
from prosect.report.failures import falls
from prosect.report.pictures import SHARE, Drawn, Refused, explored
from prosect.report.procedure import costs, drawn, flat, notes, rounds, scopes, scores
from prosect.report.reading import Run, read_run
from prosect.report.tally import (
    SHORT_DRAWS,
    Tally,
    against_truth,
    by_draw,
    by_level,
    drawn_as,
    reasons,
    refinements,
)
from prosect.report.text import code, prose
from prosect.store.atomic import write_bytes

MOST_CHAINS = 8
MOST_TABLES = 24
MOST_LAYERS = 400
NAME = "report.html"


def build(run: Path, *, allow_broken: bool = False, most_bytes: int = MOST_BYTES) -> Path:
    """Write ``report.html`` into a run folder, from its records alone.

    The same records give the same bytes on any machine. Build it when the run has ended: an unfinished
    run's page says that it is one.

    Args:
        run: the folder.
        allow_broken: build even though the ledger does not hold; the page then says so at its very top.
        most_bytes: the page is never larger; what does not fit is chosen by a stated rule and counted.

    Raises:
        VerificationFailed: the ledger does not hold, and ``allow_broken`` is not set; nothing is written.
        BadInput: this is no run folder, or a file in it is malformed.
        NewerSchema: a later prosect wrote it.
        UnsafeFile: a file in it is a link that leads out.
    """
    found = read_run(Path(run))
    if found.broken and not allow_broken:
        raise VerificationFailed(f"{found.broken}; no report was made of it")
    path = Path(run) / NAME
    write_bytes(path, render(found, most_bytes).encode("utf-8", "replace"))
    return path


def render(run: Run, most_bytes: int = MOST_BYTES) -> str:
    """The page."""
    environment = templates()
    template, line = environment.get_template("page.html.j2"), environment.get_template("card.html.j2")
    picture = environment.get_template("picture.html.j2")
    claims = claims_of(run)
    cards = gather(run, claims)

    def as_figure(drawn: Drawn | Refused) -> Markup:
        return Markup(picture.render(p=drawn))  # made by a template that escapes, as are the cards

    context = _context(run, claims, cards)
    context["explored"] = explored(run.findings.pictures, most_bytes // SHARE, as_figure)

    def as_line(card: Card) -> str:
        return line.render(h=heading(card), body=None)

    def as_whole(card: Card) -> str:
        exhibit = _exhibit(run, card)
        return line.render(h=heading(card), body=body(card, exhibit, context["scopes"]))

    bare = template.render(**context, fit=Fit((), 0, 0, len(cards), len(claims), 0), explain_fit="")
    room = most_bytes - len(bare.encode("utf-8", "replace")) - SLACK
    found = fit(cards, run.head.hash, room, as_line, as_whole)
    marked = [Markup(card) for card in found.html]  # made by the same templates, so already escaped
    return template.render(
        **context, fit={**vars(found), "html": marked}, explain_fit=_explain(found, len(cards), len(claims))
    )


def policy(style: str, script: str) -> str:
    """The content security policy that allows this style and this script, and data images, and no more."""
    return (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def asset(name: str) -> str:
    """A file of the folder of templates, with line ends as they are everywhere."""
    text = files("prosect.report").joinpath("templates", name).read_text(encoding="utf-8")
    return text.replace("\r\n", "\n")


@cache
def templates() -> Environment:
    """The templates, compiled once in a process."""
    environment = Environment(
        loader=FunctionLoader(asset),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.globals.update(
        prose=prose,
        code=code,
        num=words.number,
        count=words.count,
        estimate=words.estimate,
        share_words=words.share_words,
        words=words.WORDS,
        letters=words.LETTERS,
        outcomes=words.OUTCOMES,
        outcome_bar=outcome_bar,
        most_chains=MOST_CHAINS,
    )
    return environment


def _context(run: Run, claims: Sequence[Claim], cards: Sequence[Card]) -> dict[str, Any]:
    style, script = asset("style.css"), asset("script.js")
    scored, scores_axis = scores(run, claims)
    draws = {c.draw for c in cards if c.draw}
    return {
        "run": run,
        "title": prose(run.findings.title, 200),
        "broken": prose(run.broken, 600).rstrip("."),
        "policy": policy(style, script),
        "style": Markup(style),
        "script": Markup(script),
        "facts": flat(run.findings.model_facts)[:24] if run.findings.model_facts else [],
        "total": Tally.of(c.outcome for c in claims),
        "claimed": len({c.hypothesis.component.name for c in claims}),
        "at_level": _at_level(claims),
        "unearned": _unearned(claims),
        "truth": against_truth(claims),
        "at_random": drawn_as(claims, "random"),
        "chosen": drawn_as(claims, "chosen"),
        "levels": by_level(claims),
        "draws": by_draw(cards, run.findings)[:40],
        "falls": falls(claims),
        "refined": refinements(claims),
        "reasons": reasons(claims),
        "slugs": {claim.id: card.slug for card in cards for claim in card.claims},
        "atlas": atlas(run.findings, cards),
        "cards": len(cards),
        "layers": sorted({c.place.layer for c in cards})[:MOST_LAYERS],
        "kinds": sorted({prose(c.place.kind, 60) for c in cards})[:40],
        "draw_names": [(d, said) for d, said in SHORT_DRAWS.items() if d in draws],
        "rounds": rounds(run, claims)[:60],
        "scopes": scopes(claims),
        "notes": notes(run),
        "tables": [drawn(t) for t in run.findings.tables[:MOST_TABLES]],
        "costs": costs(run),
        "scores": scored,
        "scores_axis": scores_axis,
        "provenance": flat(run.header.get("provenance", {}))[:80],
        "spec": flat(run.header.get("spec", {})),
        "metrics": flat(run.metrics) if run.metrics else [],
    }


def _exhibit(run: Run, card: Card) -> Exhibit | None:
    shelved = run.exhibits.get(card.name)
    return shelved.read() if shelved else None


def _at_level(claims: Sequence[Claim]) -> str:
    asked = {p.level for c in claims for p in c.hypothesis.tests if p.level is not None}
    if len(asked) == 1:
        return f"at level {asked.pop()}"
    return "at every level they were registered for" if asked else "by tests that belong to no level"


def _unearned(claims: Sequence[Claim]) -> str:
    """What is to be said of level 4, or nothing if every claim's method earned it."""
    earned = sum(c.verdict.earned for c in claims)
    if earned == len(claims):
        return ""
    never = sum(not c.verdict.method for c in claims)
    if never == len(claims):
        return (
            "The methods that made these claims were never measured where the truth is known, so level 4 "
            "is not tested."
        )
    said = (
        f"Level 4 is earned by the methods behind {earned:,} of {len(claims):,} claims"
        if earned
        else ("Level 4 is earned by none of the methods that made these claims")
    )
    return f"{said}; for {never:,} the method was never measured." if never else f"{said}."


def _explain(found: Fit, cards: int, claims: int) -> str:
    if not found.absent and found.opened == found.lines:
        return ""
    size = "This page is kept small enough to send. "
    told = f"{found.opened:,} of {cards:,} cards open to their tests and examples: failures first, for at most half of the room, then a random sample seeded with the ledger’s head"
    rest = "; the others are one line here and whole in the run folder. "
    if not found.absent:
        return size + told + rest
    return (
        f"{size}{told}{rest}{found.absent:,} components with {found.claims_absent:,} of {claims:,} claims are "
        f"in the run folder alone ({found.failures_absent:,} of them with a refuted claim): failures were "
        "listed first, then a random sample."
    )
