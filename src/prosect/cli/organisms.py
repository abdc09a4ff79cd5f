"""`prosect ls organisms`: the zoo from its recorded cards, and whether it still builds to them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from prosect.cli.show import sheet, table
from prosect.core.errors import ProsectError, UnknownName, VerificationFailed
from prosect.core.registries import ORGANISMS
from prosect.organisms.card import Card
from prosect.organisms.recorded import cards

NOT_RECORDED = "not recorded"


def listed(*, as_json: bool) -> None:
    """A line for every organism, from what was recorded; nothing is built. JSON has more of each card than fits a line."""
    found = cards()
    rows = []
    for name in ORGANISMS:
        card = found.get(name)
        made = None if card is None else card.build()
        rows.append(
            {
                "organism": name,
                "about": ORGANISMS.about(name),
                "size": NOT_RECORDED if card is None else card.size,
                "known": None if card is None else card.says(),
                "hash": None if made is None else made.digest[:12],
                "seconds": None if made is None else round(made.seconds, 2),
            }
        )
    short = ("organism", "about", "seconds")
    table(rows if as_json else [{k: row[k] for k in short} for row in rows], as_json=as_json)


def whole(names: Sequence[str], *, as_json: bool) -> None:
    """The whole cards of some organisms.

    Raises:
        UnknownName: no such organism.
    """
    found = cards()
    rows = []
    for name in names:
        _known(name)
        card = found.get(name)
        shown = [("organism", name), ("about", ORGANISMS.about(name)), ("made", NOT_RECORDED)]
        rows.append(dict(shown if card is None else card.rows()))
    if as_json:
        table(rows, as_json=True)
        return
    for row in rows:  # one after the other: their texts are long
        sheet([row], as_json=False)


def rebuilt(names: Sequence[str], *, as_json: bool, quiet: bool) -> None:
    """Build organisms again from their seeds and compare them with their cards.

    Raises:
        UnknownName: no such organism.
        VerificationFailed: one or more came out as another or not at all; the table is printed first.
    """
    from prosect.core.progress import shown, step

    for name in names:
        _known(name)
    wanted, found = list(names) or list(ORGANISMS), cards()
    rows, failed = [], []
    with shown(quiet), step("building", len(wanted), "organisms") as progress:
        for name in wanted:
            progress.note(name)
            row, wrong = _again(name, found.get(name))
            rows.append(row)
            failed += wrong
            progress.advance()
    table(rows, as_json=as_json)
    if failed:
        raise VerificationFailed("; ".join(failed))


def _again(name: str, recorded: Card | None) -> tuple[dict[str, Any], list[str]]:
    """The line of one organism, and what is wrong with it."""
    from prosect.organisms.card import card

    row: dict[str, Any] = {"organism": name, "found": NOT_RECORDED, "hash": None, "recorded": None}
    try:
        made = card(name, 0 if recorded is None else recorded.seed)
        ((where, now),) = made.builds.items()
        row |= {"hash": now.digest[:16], "seconds": round(now.seconds, 2)}
        if recorded is not None:
            before = recorded.build(where)
            row["recorded"] = None if before is None else before.digest[:16]
            row["found"] = made.verify(recorded)
    except VerificationFailed as error:
        row["found"] = "another"
        return row, [str(error)]
    except ProsectError as error:
        row["found"] = "does not build"
        return row, [f"{name} does not build: {error}"]
    return row, []


def _known(name: str) -> None:
    if name not in ORGANISMS:
        raise UnknownName("organism", name, ORGANISMS)
