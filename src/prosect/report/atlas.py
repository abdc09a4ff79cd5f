"""The map of the model, layers by places: what was there, what was looked at, and what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from prosect.core.exhibits import Findings
from prosect.report.claims import Card
from prosect.report.drawings import outcome_bar, share_bar
from prosect.report.tally import Tally
from prosect.report.text import prose

MOST_ROWS, MOST_COLUMNS = 160, 12


@dataclass(frozen=True)
class Cell:
    """One place of one layer.

    Attributes:
        components: how many are there; None where the run did not say.
        examined: how many had a claim registered, or were looked at.
        tally: of the claims about them.
    """

    components: int | None
    examined: int
    tally: Tally
    seen: Markup | None
    bar: Markup | None
    query: str


@dataclass(frozen=True)
class Atlas:
    """The table: a name for each column and, for each layer, a cell or None where there is no such place."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell | None, ...]], ...]
    components: int
    examined: int
    left_out: int


def atlas(findings: Findings, cards: Sequence[Card]) -> Atlas:
    """Every cell that the run knows of, and those that only the claims know of."""
    claimed: dict[tuple[int, str], list[Card]] = {}
    for card in cards:
        claimed.setdefault((card.place.layer, card.place.column), []).append(card)
    known = {(cell.layer, cell.place): cell for cell in findings.map}
    columns = list(dict.fromkeys([*(c.place for c in findings.map), *(p for _, p in claimed)]))
    layers = sorted({*(c.layer for c in findings.map), *(layer for layer, _ in claimed)})
    rows = []
    for layer in layers[:MOST_ROWS]:
        cells: list[Cell | None] = []
        for place in columns[:MOST_COLUMNS]:
            cell, here = known.get((layer, place)), claimed.get((layer, place), [])
            if (cell is None or cell.components == 0) and not here:
                cells.append(None)
                continue
            total = cell.components if cell else None
            examined = max(cell.examined if cell else 0, len(here))
            cells.append(_cell(total, examined, here, layer))
        rows.append((f"layer {layer}" if layer >= 0 else "outside layers", tuple(cells)))
    return Atlas(
        columns=tuple(prose(c, 60) for c in columns[:MOST_COLUMNS]),
        rows=tuple(rows),
        components=sum(c.components for c in findings.map),
        examined=sum(c.examined if c else 0 for _, row in rows for c in row),
        left_out=max(0, len(layers) - MOST_ROWS) + max(0, len(columns) - MOST_COLUMNS),
    )


def _cell(total: int | None, examined: int, cards: Sequence[Card], layer: int) -> Cell:
    tally = Tally.of(claim.outcome for card in cards for claim in card.claims)
    kind = cards[0].place.kind if cards else ""
    return Cell(
        components=total,
        examined=examined,
        tally=tally,
        seen=share_bar(examined, total) if total else None,
        bar=outcome_bar(tally, width=96.0, height=11.0) if tally.registered else None,
        query=f"layer={layer}&kind={kind}" if cards else "",
    )
