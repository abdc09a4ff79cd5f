"""Options that several verbs share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Target = Annotated[
    str, typer.Argument(help="a preset, a spec file, organism:NAME, a local Hugging Face folder or a hub id")
]
Seed = Annotated[int | None, typer.Option(help="root of every random choice")]
Text = Annotated[Path | None, typer.Option(help="folder or .jsonl of texts; else Python's standard library")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, mps or auto")]
Limit = Annotated[
    int | None, typer.Option(help="most documents or inputs in each part; the run is marked as partial")
]
Remote = Annotated[bool, typer.Option("--trust-remote-code", help="let the model's own code run")]
Pickle = Annotated[bool, typer.Option("--allow-pickle", help="load weights from pickles")]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON")]
Quiet = Annotated[bool, typer.Option("--quiet", help="show no progress")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="print sites, tokens, FLOPs, bytes and time; do nothing")
]


def path(given: Path | None) -> str | None:
    """A path as specs hold it."""
    return None if given is None else str(given)
