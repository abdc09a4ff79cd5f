"""`prosect verify`."""

from __future__ import annotations

from pathlib import Path

import typer

from prosect.cli.show import table
from prosect.store.verify import verify


def command(run: Path, head: str | None, *, as_json: bool) -> None:
    """Verify a run folder and print count and head."""
    found = verify(run, head)
    if as_json:
        table([{"run": run.name, "holds": True, "entries": found.count, "head": found.hash}], as_json=True)
        return
    typer.echo(f"{run.name}: the ledger holds: {found.count} entries, head {found.hash}")
    if head is None:
        typer.echo(
            "A ledger that was rewritten whole, with the head kept beside it, would hold too: compare with a "
            "head that was published elsewhere (--head)."
        )
