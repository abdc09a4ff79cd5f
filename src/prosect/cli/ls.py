"""`prosect ls`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from prosect.cli.show import table
from prosect.core.errors import BadInput, UnknownName
from prosect.core.registries import (
    BASELINES,
    DECOMPOSITIONS,
    DESCRIPTIONS,
    METHODS,
    ORGANISMS,
    PRESETS,
    TASKS,
    TESTS,
)

SHAPES = {
    "transcoder": "a dictionary that writes another site than it reads (prosect fit --site A --writes B)",
    "skip transcoder": "the same with a linear path around the latents (prosect fit --writes B --skip)",
    "crosscoder": "one dictionary that reads and writes several sites (prosect fit --site A --site B --joint)",
    "cross-layer transcoder": "one whose latents read a layer, and write it and later ones (prosect fit --site A "
    "--site B --writes C --writes D --joint --cross-layer)",
}
"""What a sparse dictionary of any kind is called by what it reads and writes, and how it is asked for."""


def command(
    what: str, targets: Sequence[str], *, check: bool = False, as_json: bool = False, quiet: bool = False
) -> None:
    """List presets, organisms, methods, the sites of a model, or which architectures open.

    Raises:
        UnknownName: no such list, no such type of model, or no such organism.
        BadInput: a target or ``--check`` where there is no use for it, or no model whose sites to list.
        VerificationFailed: an organism that came out as another than was recorded.
    """
    rows: list[dict[str, Any]]
    if check and what not in ("models", "organisms"):
        raise BadInput(f"--check with {what}", "prosect ls models --check, or prosect ls organisms --check")
    if targets and not check and what != "organisms" and (what != "sites" or len(targets) > 1):
        raise BadInput(f"{what} {' '.join(targets)}", f"prosect ls {what}", "prosect ls sites TARGET")
    if what == "organisms":
        from prosect.cli.organisms import listed, rebuilt, whole

        if check:
            rebuilt(targets, as_json=as_json, quiet=quiet)
        elif targets:
            whole(targets, as_json=as_json)
        else:
            listed(as_json=as_json)
        return
    if check:
        rows = architectures(targets, quiet=quiet)
    elif what in ("presets", "models"):
        rows = [{"target": n, "about": PRESETS.about(n)} for n in PRESETS]
        if what == "models":
            rows += [{"target": f"organism:{n}", "about": ORGANISMS.about(n)} for n in ORGANISMS]
            rows.append(
                {"target": "a folder or hub id", "about": "any causal language model of transformers"}
            )
    elif what == "methods":
        rows = [
            {"kind": kind, "name": n, "about": registry.about(n)}
            for kind, registry in (
                ("decomposition", DECOMPOSITIONS),
                ("description", DESCRIPTIONS),
                ("test", TESTS),
                ("task of the bench", TASKS),
                ("method on the bench", METHODS),
                ("baseline on the bench", BASELINES),
            )
            for n in registry
        ]
        rows += [{"kind": "shape of a dictionary", "name": n, "about": about} for n, about in SHAPES.items()]
    elif what == "sites":
        if not targets:
            raise BadInput("no model", "whose sites to list", "prosect ls sites organism:induction")
        rows = sites(targets[0])
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


def architectures(types: Sequence[str], *, quiet: bool) -> list[dict[str, Any]]:
    """Which types of causal language models open, each tried on a small random network."""
    from prosect.core.progress import shown
    from prosect.model.coverage import cover

    with shown(quiet):
        found = list(cover(types or None))
    return [
        {
            "type": one.type,
            "opens": {"opens": "yes", "refused": "no"}.get(one.outcome, one.outcome),
            "layers": one.layers,
            "sites": one.sites,
            "inside attention": one.interior,
            "additive error": one.additive,
            "self-check": one.check,
            "why not": one.reason,
        }
        for one in found
    ]
