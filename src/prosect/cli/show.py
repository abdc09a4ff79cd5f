"""How results are printed: tables for people, JSON for programs, errors on standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence

from prosect.core.canonical import Json, plain

LONGEST_NAME = 36
"""Characters up to which the first column, what a row is called, stays on one line."""


def complain(text: str) -> None:
    """An error, on standard error."""
    from rich.console import Console
    from rich.text import Text

    Console(stderr=True).print(Text("prosect: ", style="bold red") + Text(text), soft_wrap=True)


def table(rows: Sequence[Mapping[str, Json]], *, as_json: bool, title: str = "") -> None:
    """Rows as a table, or as a JSON list."""
    if as_json:
        sys.stdout.write(json.dumps([plain(r) for r in rows], indent=1, ensure_ascii=False) + "\n")
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    shown = Table(title=title or None, title_justify="left", box=None, pad_edge=False)
    names = list(dict.fromkeys(k for r in rows for k in r))
    for i, name in enumerate(names):
        said = max(len(str(row.get(name, ""))) for row in rows)
        shown.add_column(name, overflow="fold", no_wrap=i == 0 and said <= LONGEST_NAME)
    for row in rows:
        shown.add_row(*[Text("" if row.get(n) is None else str(row[n])) for n in names])
    Console().print(shown)


def sheet(rows: Sequence[Mapping[str, Json]], *, as_json: bool, title: str = "") -> None:
    """Rows as columns, for a few rows of many values; or as a JSON list."""
    if as_json:
        table(rows, as_json=True)
        return
    names = list(dict.fromkeys(k for r in rows for k in r))
    turned = [{"": n, **{str(i): _said(r.get(n)) for i, r in enumerate(rows)}} for n in names]
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    shown = Table(title=title or None, title_justify="left", box=None, pad_edge=False, show_header=False)
    for name in turned[0] if turned else ():
        shown.add_column(name, overflow="fold")
    for row in turned:
        shown.add_row(*[Text(str(v)) for v in row.values()])
    Console().print(shown)


def _said(value: Json) -> str:
    """Numbers with their thousands apart."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "" if value is None else str(value)
    return f"{value:,}" if abs(value) < 1e9 else f"{value:.3g}"
