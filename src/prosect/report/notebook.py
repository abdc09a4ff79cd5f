"""A finished run in a notebook: a small card without script."""

from __future__ import annotations

from pathlib import Path

from prosect.core.markup import card
from prosect.report.claims import claims_of
from prosect.report.failures import strongest, widest
from prosect.report.page import NAME
from prosect.report.pictures import tally
from prosect.report.reading import read_run
from prosect.report.tally import Tally
from prosect.report.text import prose
from prosect.report.words import WORDS, number, share_words


def run_card(run: Path) -> str:
    """HTML for a run: its question, counts with denominators, the widest failure, the ledger's head.

    Raises:
        BadInput: this is no run folder, or a file in it is malformed.
        NewerSchema: a later prosect wrote it.
    """
    run = Path(run)
    found = read_run(run, exhibits=False)
    claims = claims_of(found)
    total = Tally.of(c.outcome for c in claims)
    rows: list[tuple[str, object]] = [("question", prose(found.findings.question, 300))]
    rows.append(("claims registered", f"{total.registered:,}"))
    for outcome, n in total.counts:
        more = f" ({share_words(total.share)})" if outcome == "supported" and total.registered else ""
        rows.append((WORDS[outcome], f"{n:,}{more}"))
    for claim in strongest(claims, 1):
        rows.append(("strongest support", prose(claim.hypothesis.description.words, 160)))
    for claim in widest(claims, 1):
        if claim.gap is not None:
            said = prose(claim.hypothesis.description.words, 160)
            rows.append(
                (
                    "widest failure",
                    f"{said}: explored {number(claim.gap.explored)}, "
                    f"measured {number(claim.gap.measured.estimate)}",
                )
            )
    if found.findings.pictures:
        rows.append(("pictures of explore", tally(found.findings.pictures)))
    rows.append(("ledger", f"{found.head.count:,} lines, head {found.head.hash[:16]}"))
    rows.append(("report", NAME if (run / NAME).exists() else "not built yet"))
    caveats = [f"The ledger does not hold: {prose(found.broken)}."] if found.broken else []
    if not found.finished:
        caveats.append("This run has not ended.")
    if found.findings.partial:
        caveats.append(prose(found.findings.partial, 300))
    return str(card(prose(found.findings.title, 120), rows, " ".join(caveats)))
