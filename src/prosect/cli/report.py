"""`prosect report`."""

from __future__ import annotations

from pathlib import Path

import typer


def command(run: Path) -> None:
    """Rebuild the report of a run."""
    from prosect.report import build

    typer.echo(build(run))
