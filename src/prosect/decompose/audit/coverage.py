"""L6: how much of the model one dictionary speaks of, counted in parameters and measured in what modules write.

A dictionary of a sublayer's output, or of what goes into that output, describes that sublayer. One of the residual
stream describes the block whose output it is and no earlier one: it says what has arrived, not what earlier blocks did.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from prosect.core.errors import Unsupported
from prosect.core.exhibits import Figure
from prosect.core.intervals import INTERVAL_DRAWS, Mean, Resamples
from prosect.core.records import Measured
from prosect.decompose.audit.case import Case
from prosect.decompose.audit.lines import Line, exact
from prosect.decompose.audit.modules import coverage_of_modules
from prosect.model.sites import SUBLAYERS, Site, parse

CONTROLS = {
    "absent": "a dictionary for every module that writes to the stream",
    "present": "no dictionary",
    "null": "a module that writes, drawn at random: mean share",
}
ATTENTION = ("q", "k", "v", "scores", "probs", "z")


def coverage(case: Case) -> Line:
    """L6; of a model without a residual stream, by its modules.

    Raises:
        Unsupported: the model has neither named writes to a residual stream nor modules with weights.
    """
    model = case.model
    sites: Any = getattr(model, "sites", None)
    if sites is None:
        raise Unsupported("the sites of this model", "a model that was opened, with named sites")
    writers = [n for n in sites.names() if _writer(n)]
    if not writers:
        return coverage_of_modules(case)
    described = {w for w in writers if any(describes(site, w) for site in case.dictionary.writes)}
    norms: dict[str, list[torch.Tensor]] = {w: [] for w in writers}
    units = []
    with torch.no_grad():
        for batch in case.sample.batches(case.part, case.effort.rows):
            trace = model.run(batch, capture=tuple(writers))
            units.append(batch.flat_units)
            for w in writers:
                norms[w].append(batch.flat(trace[w]).double().flatten(1).norm(dim=1).cpu())
    unit = np.unique(np.concatenate(units), return_inverse=True)[1]
    written = {w: np.bincount(unit, weights=torch.cat(parts).numpy()) for w, parts in norms.items()}
    total = np.sum(list(written.values()), axis=0)
    left = total - np.sum([written[w] for w in described], axis=0) if described else total
    resamples = Resamples(len(total), INTERVAL_DRAWS, case.seed.child("L6"))
    measured = resamples.measure([np.stack([total, left], axis=1)], Mean(0.0, 1.0)).measured
    one = 1.0 - 1.0 / len(writers)
    share = parameters_of(model, described)
    named = len(sites.names())
    figures = (
        Figure(
            name="parameters of the modules it describes", measured=exact(share), unit="share of the model"
        ),
        Figure(
            name="modules that write to the stream, described",
            measured=exact(float(len(described))),
            unit=f"of {len(writers)}",
        ),
        Figure(name="sites that a dictionary could be fitted at", measured=exact(float(named)), unit="sites"),
        Figure(
            name="sites refused",
            measured=exact(float(len(sites.refused))),
            unit="sites",
            about=_refused(sites.refused),
        ),
    )
    return Line(
        "L6",
        measured,
        exact(0.0),
        exact(1.0),
        Measured(estimate=one, note="an exact mean over modules"),
        controls=CONTROLS,
        figures=figures,
        remarks=(
            f"described: {', '.join(sorted(described)) or 'none'}",
            f"supported kinds: {', '.join(kinds(sites.names()))}",
        ),
    )


def describes(site: str, writer: str) -> bool:
    """Whether a dictionary that writes ``site`` describes the module that writes ``writer``."""
    at, module = parse(site), parse(writer)
    if at.base == module.base:
        return True
    if at.layer is None:
        return False
    if at.kind == "resid_pre":
        return writer == "embeddings" if at.layer == 0 else module.layer == at.layer - 1
    if at.layer != module.layer:
        return False
    if at.kind == "resid_post":
        return True
    return _sublayer(module) == ("attn" if at.kind == "resid_mid" else _sublayer(at))


def parameters_of(model: Any, described: set[str]) -> float:
    """Share of the model's parameters that lie in the modules with these writes."""
    module = model.module
    whole = sum(p.numel() for p in module.parameters())
    found: set[str] = set()
    for name in described:
        path = _path(model, name)
        found |= {n for n, _ in module.named_parameters() if n.startswith(f"{path}.")}
    return float(sum(p.numel() for n, p in module.named_parameters() if n in found) / max(whole, 1))


def kinds(names: tuple[str, ...]) -> list[str]:
    """Kinds of sites, in the order in which they are named."""
    return list(dict.fromkeys(parse(name).kind for name in names))


def _writer(name: str) -> bool:
    site = parse(name)
    return site.kind == "embeddings" or (
        site.kind.endswith("_out_post") and site.kind[: -len("_out_post")] in SUBLAYERS
    )


def _sublayer(site: Site) -> str:
    if site.kind in ATTENTION:
        return "attn"
    return next(
        (s for s in sorted(SUBLAYERS, key=len, reverse=True) if site.kind.startswith(f"{s}_")), site.kind
    )


def _path(model: Any, writer: str) -> str:
    """The module that computes a write: that of the sublayer's own output, before any norm on it."""
    sites = model.sites
    own = writer.replace("_out_post", "_out")
    found = sites.info(own if own in sites else writer).path
    return str(found)


def _refused(refused: Mapping[str, str]) -> str:
    shown = [f"{name}: {why}" for name, why in list(refused.items())[:3]]
    return "; ".join(shown)[:300]
