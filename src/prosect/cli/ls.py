"""`prosect ls`."""

from __future__ import annotations

from typing import Any

from prosect.cli.show import table
from prosect.core.errors import BadInput, UnknownName
from prosect.core.registries import DECOMPOSITIONS, DESCRIPTIONS, ORGANISMS, PRESETS, TESTS


def command(what: str, target: str | None, *, as_json: bool) -> None:
    """List presets, organisms, methods, or the sites of a model."""
    rows: list[dict[str, Any]]
    if what in ("presets", "models"):
        rows = [{"target": n, "about": PRESETS.about(n)} for n in PRESETS]
        if what == "models":
            rows += [{"target": f"organism:{n}", "about": ORGANISMS.about(n)} for n in ORGANISMS]
            rows.append(
                {"target": "a folder or hub id", "about": "any causal language model of transformers"}
            )
    elif what == "organisms":
        rows = [{"organism": n, "about": ORGANISMS.about(n)} for n in ORGANISMS]
    elif what == "methods":
        rows = [
            {"kind": kind, "name": n, "about": registry.about(n)}
            for kind, registry in (
                ("decomposition", DECOMPOSITIONS),
                ("description", DESCRIPTIONS),
                ("test", TESTS),
            )
            for n in registry
        ]
    elif what == "sites":
        if target is None:
            raise BadInput("no model", "whose sites to list", "prosect ls sites organism:induction")
        rows = sites(target)
    else:
        raise UnknownName("list", what, ["models", "sites", "organisms", "methods", "presets"])
    table(rows, as_json=as_json)


def sites(target: str) -> list[dict[str, Any]]:
    """Every site of a model, with its shape and what it is."""
    from prosect.model import load

    model = load(target)
    out = []
    for name in model.sites.names():
        info = model.sites.info(name)
        out.append(
            {"site": name, "kind": info.kind, "width": info.width, "heads": info.heads, "about": info.about}
        )
    return out
