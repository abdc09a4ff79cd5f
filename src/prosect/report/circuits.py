"""What was found of a known circuit, as a page and as tables in a terminal: every figure with its interval and its n."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from prosect.core.canonical import Json
from prosect.core.exhibits import Figure, FigureTable
from prosect.core.markup import element
from prosect.core.records import Measured
from prosect.report.axis import Axis, axis_for
from prosect.report.drawings import axis_row, whisker
from prosect.report.page import asset, policy
from prosect.report.procedure import flat
from prosect.report.text import prose
from prosect.report.words import estimate, number

if TYPE_CHECKING:
    from rich.console import RenderableType

STYLE = (
    ".circuit td.fig{min-width:14rem}.circuit td,.circuit th{padding:.25rem .7rem .25rem 0;text-align:left;"
    "font-variant-numeric:tabular-nums}table.plain.circuit thead th{text-align:left}"
)
LISTED = 64
"""Heads that a table lists, at most."""
IN_TERMINAL = 16
"""Rows of a table that are printed, at most."""
CONTROL = "control: "
"""What the names of rows that are controls begin with."""


@dataclass(frozen=True)
class Account:
    """What was found.

    Attributes:
        title: in one line.
        says: the outcome in words, a sentence each.
        facts: of model and data.
        tables: figures; those of one table have one unit.
        notes: what has to be known to read them.
        provenance: what it was made with.
    """

    title: str
    says: tuple[str, ...]
    facts: Mapping[str, Json]
    tables: tuple[FigureTable, ...]
    notes: tuple[str, ...]
    provenance: Mapping[str, Json]

    def content(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "schema": 1,
            "title": self.title,
            "says": list(self.says),
            "facts": dict(self.facts),
            "tables": [t.model_dump(mode="json") for t in self.tables],
            "notes": list(self.notes),
            "provenance": dict(self.provenance),
        }

    @classmethod
    def read(cls, content: Mapping[str, Any]) -> Account:
        """What `content` gave."""
        return cls(
            content["title"],
            tuple(content["says"]),
            content["facts"],
            tuple(FigureTable.model_validate(t) for t in content["tables"]),
            tuple(content["notes"]),
            content["provenance"],
        )


def page(account: Account) -> str:
    """One HTML file with nothing to fetch; the same account gives the same bytes."""
    style, script = asset("style.css") + STYLE, ""
    body = [
        element(
            "header",
            element("p", "prosect", class_="kicker"),
            element("h1", prose(account.title, 200)),
            [element("p", prose(s, 600)) for s in account.says],
            class_="top",
        ),
        *(_table(t) for t in account.tables),
        element(
            "section",
            element("h2", "To read this"),
            element("ul", [element("li", prose(n, 600)) for n in account.notes]),
        ),
        element(
            "section",
            element("h2", "Model and data"),
            _listed([(k, _said(v)) for k, v in account.facts.items()]),
        ),
        element("section", element("h2", "Made with"), _listed(flat(dict(account.provenance))[:80])),
    ]
    head = element(
        "head",
        Markup('<meta charset="utf-8">'),
        Markup(f'<meta http-equiv="Content-Security-Policy" content="{policy(style, script)}">'),
        Markup('<meta name="viewport" content="width=device-width, initial-scale=1">'),
        element("title", prose(account.title, 200)),
        element("style", Markup(style)),
    )
    whole = element("html", head, element("body", element("main", body)), lang="en")
    return Markup("<!doctype html>\n") + whole + "\n"


def tables(account: Account) -> RenderableType:
    """The same in a terminal. Text from models is shown, never interpreted."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    parts: list[RenderableType] = [Text(prose(account.title, 200), style="bold")]
    parts += [Text(prose(s, 600)) for s in account.says]
    for table in account.tables:
        shown = Table(box=None, pad_edge=False, title=Text(prose(table.title, 200)), title_justify="left")
        for name in ("", "value", "n", ""):
            shown.add_column(name, overflow="fold")
        for row in table.rows[:IN_TERMINAL]:
            shown.add_row(
                *map(
                    Text,
                    (prose(row.name, 120), _value(row), str(row.measured.n or ""), prose(row.about, 200)),
                )
            )
        parts += [Text(""), shown]
        if len(table.rows) > IN_TERMINAL:
            parts.append(Text(f"and {len(table.rows) - IN_TERMINAL} more on the page", style="dim"))
    return Group(*parts, Text(""), *(Text(prose(n, 600), style="dim") for n in account.notes))


def few(heads: tuple[str, ...] | list[str], most: int = 8) -> str:
    """The first of some heads in words, and how many more there are."""
    more = f" and {len(heads) - most} more" if len(heads) > most else ""
    return ", ".join(heads[:most]) + more


def percent(measured: Measured) -> str:
    """A share with its interval, in per cent."""
    if measured.estimate is None:
        return "nothing measured"
    value, *ends = (
        None if x is None else f"{round(x, 3) + 0.0:.1%}"  # so that nothing is -0.0 %
        for x in (measured.estimate, measured.low, measured.high)
    )
    return f"{value} [{ends[0]}, {ends[1]}]" if None not in ends else str(value)


def _table(table: FigureTable) -> Markup:
    ends = [
        x for r in table.rows for x in (r.measured.estimate, r.measured.low, r.measured.high) if x is not None
    ]
    axis = axis_for([0.0, *ends])
    rows: Sequence[Markup] = [_row(r, axis) for r in table.rows]
    heads = ("", table.rows[0].unit if table.rows else "", "with its 95 % interval", "n", "")
    return element(
        "section",
        element("h2", prose(table.title, 200)),
        element("p", prose(table.about, 600)),
        element(
            "div",
            element(
                "table",
                element("thead", element("tr", [element("th", h) for h in heads])),
                element(
                    "tbody", rows, element("tr", element("td"), element("td", axis_row(axis), class_="fig"))
                ),
                class_="plain circuit",
            ),
            class_="scroll wide",
        ),
    )


def _row(row: Figure, axis: Axis) -> Markup:
    shape = "control" if row.name.startswith(CONTROL) else "own"
    return element(
        "tr",
        element("th", prose(row.name, 120), scope="row"),
        element("td", whisker(axis, row.measured, shape=shape, line=0.0), class_="fig"),
        element("td", _value(row)),
        element("td", row.measured.n or ""),
        element("td", prose(row.about, 300)),
    )


def _value(row: Figure) -> str:
    if row.measured.estimate is None:
        return prose(row.measured.note or "none", 200)
    return estimate(row.measured)


def _said(value: Json) -> str:
    return number(value) if isinstance(value, int | float) else str(value)


def _listed(rows: Sequence[tuple[str, str]]) -> Markup:
    said = [
        element("tr", element("th", prose(k, 80), scope="row"), element("td", prose(v, 300))) for k, v in rows
    ]
    return element("table", element("tbody", said), class_="plain circuit")
