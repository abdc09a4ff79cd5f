"""L6 where there is no residual stream: recurrent nets, state spaces, denoisers, plain stacks of layers.

Their modules are their sites, and what a module computes is counted by its weights and how often each is used: an LSTM uses
all of its matrices at every step. A dictionary of a module's output describes that module; one of what has no weights,
such as an activation function, or of what a module is given, describes the module whose output that is made of.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from prosect.core.errors import Unsupported
from prosect.core.exhibits import Figure
from prosect.core.records import Measured
from prosect.decompose.audit.case import Case
from prosect.decompose.audit.lines import Line, exact
from prosect.model.sites import parse

CONTROLS = {
    "absent": "a dictionary for every module with weights",
    "present": "no dictionary",
    "null": "a module with weights, drawn at random: mean share",
}


def coverage_of_modules(case: Case) -> Line:
    """L6 of a model whose sites are its modules: share of the multiplications of a pass that it does not describe.

    Raises:
        Unsupported: no module with weights ran.
    """
    model = case.model
    batch = next(iter(case.sample.batches(case.part, case.effort.rows)))
    seen, uses = _seen(model, batch), {}
    for path, module in model.module.named_modules():
        if path in seen.outputs and multiplied(module):
            uses[path] = multiplied(module) * rows_of(module, seen.outputs[path])
    if not uses:
        raise Unsupported("a model without a module that has weights", "one that has some")
    described = {w for site in case.dictionary.writes for w in describes_modules(model, site, seen, uses)}
    total = sum(uses.values())
    left = 1.0 - sum(uses[w] for w in described) / total
    held = sum(p.numel() for p in model.module.parameters())
    own = {n for n, _ in model.module.named_parameters() if any(n.startswith(f"{w}.") for w in described)}
    share = sum(p.numel() for n, p in model.module.named_parameters() if n in own) / max(held, 1)
    figures = (
        Figure(
            name="parameters of the modules it describes", measured=exact(share), unit="share of the model"
        ),
        Figure(
            name="modules with weights, described",
            measured=exact(float(len(described))),
            unit=f"of {len(uses)}",
            about="; ".join(f"{path} {n / total:.3f}" for path, n in sorted(uses.items()))[:300],
        ),
        Figure(
            name="sites that a dictionary could be fitted at",
            measured=exact(float(len(model.sites.names()))),
            unit="sites",
        ),
    )
    return Line(
        "L6",
        exact(left),
        exact(0.0),
        exact(1.0),
        Measured(estimate=1.0 - 1.0 / len(uses), note="an exact mean over modules"),
        controls=CONTROLS,
        figures=figures,
        remarks=(
            f"described: {', '.join(sorted(described)) or 'none'}",
            "no residual stream: shares are of the multiplications by weights in a pass",
        ),
    )


class _Seen:
    """Outputs and inputs of the modules that ran once."""

    def __init__(self, outputs: Mapping[str, Tensor], inputs: Mapping[str, Tensor]) -> None:
        self.outputs, self.inputs = outputs, inputs


def _seen(model: Any, batch: Any) -> _Seen:
    paths = [path for path, _ in model.module.named_modules() if path and path in model.sites]
    ends = [end for path in paths for end in (f"{path}?", f"{path}:in?")]
    with torch.no_grad():
        trace = model.run(batch, capture=tuple(ends))
    found = {end: trace[end] for end in ends if end in trace}
    return _Seen(
        {p: found[f"{p}?"] for p in paths if f"{p}?" in found},
        {p: found[f"{p}:in?"] for p in paths if f"{p}:in?" in found},
    )


def multiplied(module: nn.Module) -> int:
    """Weights of a module's own that its input is multiplied by; looking up a row multiplies by none."""
    if isinstance(module, nn.Embedding):
        return 0
    own = module.named_parameters(recurse=False)
    return sum(p.numel() for name, p in own if "bias" not in name)


def rows_of(module: nn.Module, output: Tensor) -> int:
    """How often each weight is used: once for every vector that the module gives."""
    channels = 1 if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d) else -1
    return int(output.numel() // output.shape[channels])


def describes_modules(model: Any, site: str, seen: _Seen, weighted: Mapping[str, int]) -> set[str]:
    """Modules with weights whose output a dictionary that writes ``site`` describes."""
    at = parse(site)
    inside = {w for w in weighted if w == at.path or w.startswith(f"{at.path}.")}
    if at.side == "out" and inside:
        return inside
    return _sources(at.path, seen, weighted, set())


def _sources(path: str, seen: _Seen, weighted: Mapping[str, int], tried: set[str]) -> set[str]:
    """Modules with weights that gave what a module was given, through others that have none."""
    given, found = seen.inputs.get(path), set()
    tried.add(path)
    for other, output in seen.outputs.items():
        alike = given is not None and output.shape == given.shape and torch.equal(output, given)
        if alike and other not in tried:
            found |= {other} if other in weighted else _sources(other, seen, weighted, tried)
    return found
