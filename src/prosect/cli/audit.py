"""`prosect audit`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from prosect.assay.auditing import Audited, Question, audited
from prosect.core.progress import shown


def command(question: Question, *, out: Path | None, as_json: bool, quiet: bool) -> None:
    """Audit, print the scorecard and where its page is."""
    folder = out if out is not None else Path("runs") / f"audit-{_name(question.dictionaries[0])}"
    with shown(quiet):
        found = audited(question, folder)
    if as_json:
        content = {**found.content, "folder": str(found.folder)}
        sys.stdout.write(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
        return
    _print(found)


def _name(where: str) -> str:
    """A folder name from a path or a hub id."""
    path = Path(where)
    stem = path.stem if path.suffix == ".safetensors" else path.name
    return stem.replace("/", "-") or "dictionary"


def _print(found: Audited) -> None:
    from rich.console import Console

    from prosect.report.scorecard import table

    console = Console()
    console.print(table(found.card))
    console.print(f"{found.folder / 'audit.html'}", highlight=False, soft_wrap=True)
