"""`prosect spec`."""

from __future__ import annotations

import json
from typing import Any

import typer

from prosect.assay.presets import resolve
from prosect.assay.spec import dump, to_toml


def command(target: str, changes: dict[str, Any], *, as_json: bool) -> None:
    """Print the resolved spec."""
    found = resolve(target, changes)
    typer.echo(json.dumps(dump(found), indent=1) if as_json else to_toml(found), nl=as_json)
