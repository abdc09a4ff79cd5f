"""The end of a run in a terminal, 80 columns wide: counts, the strongest claims, the most surprising failures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from prosect.report.claims import Claim, claims_of
from prosect.report.failures import strongest, widest
from prosect.report.page import NAME
from prosect.report.reading import read_run
from prosect.report.tally import Tally
from prosect.report.text import prose
from prosect.report.words import WORDS, count, estimate, number, share_words

SHOWN = 3
WIDTH = 80
SIGNS = {"supported": "●", "refuted": "○", "inconclusive": "◐", "not tested": "–"}


def summary(run: Path) -> RenderableType:
    """What a run found, for a terminal. Text from the run is shown, never interpreted.

    Raises:
        BadInput: this is no run folder, or a file in it is malformed.
        NewerSchema: a later prosect wrote it.
    """
    run = Path(run)
    found = read_run(run, exhibits=False)
    claims = claims_of(found)
    parts: list[RenderableType] = []
    if found.broken:
        parts.append(Text(f"The ledger does not hold: {prose(found.broken)}", style="bold"))
    parts.append(Text(prose(found.findings.title, 200), style="bold"))
    if not found.finished:
        parts.append(Text("This run has not ended."))
    if found.findings.partial:
        parts.append(Text(f"Partial: {prose(found.findings.partial, 300)}"))
    parts.append(_counts(Tally.of(c.outcome for c in claims)))
    best, worst = strongest(claims, SHOWN), widest(claims, SHOWN)
    if best:
        parts += [Text("\nStrongest support", style="bold"), _claims(best)]
    if worst:
        parts += [Text("\nMost surprising failures", style="bold"), _claims(worst)]
    page = run / NAME
    parts.append(Text(f"\nReport: {page}" if page.exists() else f"\nNo report yet: prosect report {run}"))
    return Group(*parts)


def _counts(tally: Tally) -> RenderableType:
    if not tally.registered:
        return Text("No claim was registered.")
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(justify="right")
    table.add_column()
    for outcome, n in tally.counts:
        more = f" ({share_words(tally.share)})" if outcome == "supported" else ""
        table.add_row(f"{n:,}", Text(f"{SIGNS[outcome]} {WORDS[outcome]}{more}"))
    table.add_row(
        f"{tally.registered:,}", Text(count(tally.registered, "claim").split(" ", 1)[1] + " registered")
    )
    return table


def _claims(claims: Sequence[Claim]) -> RenderableType:
    table = Table(box=None, show_header=False, padding=(0, 1, 0, 0), width=WIDTH)
    table.add_column(width=1)
    table.add_column(ratio=1, overflow="fold")
    table.add_column(width=26, justify="right")
    for claim in claims:
        said = Text(prose(claim.hypothesis.description.words, 160))
        said.append(f"\n{prose(claim.hypothesis.component.name, 60)}", style="dim")
        table.add_row(SIGNS[claim.outcome], said, _number(claim))
    return table


def _number(claim: Claim) -> Text:
    if claim.gap is not None and claim.outcome == "refuted":
        return Text(f"{estimate(claim.gap.measured)}\nexplored {number(claim.gap.explored)}")
    found = claim.evidence.get(claim.main.name) if claim.main else None
    return Text(estimate(found.measured) if found else "")
