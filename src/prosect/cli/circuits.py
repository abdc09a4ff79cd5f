"""`prosect induction` and `prosect names`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from prosect.assay.circuits import PAGE, Wanted, reproduced
from prosect.core.progress import shown


def command(wanted: Wanted, *, out: Path | None, as_json: bool, quiet: bool) -> None:
    """Look for a circuit, print what was found and where its page is."""
    named = wanted.target.removeprefix("organism:").rstrip("/").replace("\\", "/").split("/")
    folder = out if out is not None else Path("runs") / f"{wanted.circuit}-{'-'.join(named[-2:])}"
    with shown(quiet):
        found = reproduced(wanted, folder)
    if as_json:
        content = {**found.content, "folder": str(found.folder)}
        sys.stdout.write(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
        return
    from rich.console import Console

    from prosect.report.circuits import tables

    console = Console()
    console.print(tables(found.account))
    console.print(f"{found.folder / PAGE}", highlight=False, soft_wrap=True)
