"""`prosect run`."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Any

import typer

from prosect.assay.loop import conduct
from prosect.assay.opening import open_target
from prosect.assay.presets import folder_of, resolve


def command(
    target: str,
    changes: dict[str, Any],
    *,
    out: Path | None,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
    verb: str = "",
) -> None:
    """Resolve the spec, run the loop, print what was found and where.

    ``verb`` is a command with a question of its own; its name goes before the folder's.
    """
    spec = resolve(target, changes, verb)
    folder = out if out is not None else Path("runs") / folder_of(spec, target, verb)
    if dry_run:
        from prosect.assay.forecast import forecast
        from prosect.cli.show import sheet

        sheet(forecast(spec), as_json=as_json, title=f"{target}: what a run would do")
        return
    given = shlex.join(["prosect", *sys.argv[1:]])
    run = conduct(spec, folder, open_target, command=given, quiet=quiet)
    if as_json:
        content = json.loads((run.path / "metrics.json").read_text(encoding="utf-8"))
        content |= {"run": str(run.path), "entries": run.head.count, "head": run.head.hash}
        typer.echo(json.dumps(content, indent=1))
        return
    from rich.console import Console

    from prosect.report import summary

    Console().print(summary(run.path))
