"""Optimal ablation: the constant whose place in a component costs least, beside its mean and zero.

An ablation should delete what a component says about the input and add nothing else. Zero and the mean can
be constants that the rest of the network never meets, so that their cost is partly the shock; the constant
with the least loss bounds from below what the component's information is worth, as constants go (Li & Janson
2024, "Optimal ablation for interpretability", section 2). It is fitted on some rows and judged on others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from prosect.core.errors import BadInput, TooLittleData, Unsupported
from prosect.core.records import Measured
from prosect.core.seeds import Seed
from prosect.data.batch import Batch
from prosect.model.edits import Edit, patch, zero
from prosect.model.patching.gradients import checked_scores, refuse_quantised
from prosect.model.patching.metrics import Metric, by_row
from prosect.model.patching.nodes import Node, nodes_of
from prosect.model.patching.pairs import digest_of
from prosect.model.patching.scores import Cost, RowScores

if TYPE_CHECKING:
    from prosect.model.inputs import Inputs
    from prosect.model.model import Model

ABLATIONS = ("optimal", "mean", "zero")
START = 1e-6
"""Least step, where a component does not vary."""


@dataclass(frozen=True, eq=False)
class OptimalAblation:
    """A fitted constant and what it costs on rows it was not fitted on.

    Attributes:
        node: what is ablated.
        value: the constant, with the axes of one position of the site.
        mean: the mean over the rows that it was fitted on.
        fitted: loss on those rows at each step.
        excess: (ablations, rows): loss with each of `ABLATIONS` minus loss without, on held-out rows.
        cost: of fitting and judging.
        settings: steps and step size, as they were used.
        what: the node as it was found.
    """

    node: str
    value: Tensor = field(repr=False)
    mean: Tensor = field(repr=False)
    fitted: tuple[float, ...] = field(repr=False)
    excess: RowScores = field(repr=False)
    cost: Cost
    settings: dict[str, float]
    what: Node = field(repr=False)

    def loss(self, ablation: str) -> Measured:
        """Excess loss of one ablation on held-out rows; mean and zero are the controls."""
        return self.excess.measured(ABLATIONS.index(ablation))

    def saved(self, against: str = "mean") -> Measured:
        """Loss of another ablation minus that of the optimal one, row by row."""
        other = self.excess.values[ABLATIONS.index(against)]
        return RowScores(other - self.excess.values[0], self.excess.units, self.excess.seed).measured()

    def edit(self) -> Edit:
        """The ablation."""
        return _edit(self.what, self.value)


def divergence(model: Model, batch: Inputs) -> Metric:
    """Kullback-Leibler divergence in nats from the model's own output on these rows, mean over real positions."""
    rows = model.batch(batch)
    reference = model.run(rows).output.log_softmax(dim=-1)

    def metric(output: Tensor, some: Batch, which: list[int]) -> Tensor:
        truth = reference[which]
        per = (truth.exp() * (truth - output.log_softmax(dim=-1))).sum(dim=-1)
        if some.mask is None:
            return per.reshape(len(which), -1).mean(dim=1)
        real = some.mask.to(per.device, per.dtype)
        return (per * real).sum(dim=1) / real.sum(dim=1)

    return by_row(rows, metric)


def optimal_ablation(
    model: Model,
    node: str,
    fit: Inputs,
    held_out: Inputs,
    loss: Callable[[Model, Batch], Metric] = divergence,
    *,
    steps: int = 200,
    rate: int | float = 0.05,
    seed: int = 0,
    budget_mb: int | float = 512.0,
) -> OptimalAblation:
    """Find the constant at a site, or one head of it, with the least mean loss, by gradient descent from the mean.

    Args:
        node: a site or a head.
        fit: rows to fit on.
        held_out: other rows, to judge on.
        loss: model and rows → a loss for each row, lower where less is lost; by default `divergence`.
        steps: of Adam, on all rows at once.
        rate: step size, as a share of the component's standard deviation.
        seed: of the intervals.

    Raises:
        TooLittleData: a held-out row that was fitted on.
        BadInput: no steps; a loss without gradient.
        Unsupported: units, patterns, a quantised model.
    """
    (what,) = nodes_of(model, node)
    if what.unit is not None or what.layout == "pattern":
        raise Unsupported(
            f"an optimal constant at {node}", "a site with one vector for each position, or a head"
        )
    if steps < 1 or not rate > 0:
        raise BadInput(f"{steps} steps of {rate}", "at least one step, of a size above 0")
    refuse_quantised(model)
    rows, others = model.batch(fit), model.batch(held_out)
    seen = {digest_of(rows, i) for i in range(len(rows))}
    if any(digest_of(others, i) in seen for i in range(len(others))):
        raise TooLittleData("held-out rows that the constant is fitted on", "rows not seen")
    real = rows.flat(model.run(rows, [what.site])[what.site]).detach()
    real = real if what.head is None else real[:, what.head]
    mean = real.mean(dim=0)
    value, fitted = _descended(
        model, what, rows, loss(model, rows), mean, steps, float(rate) * float(real.std())
    )
    judged = [_edit(what, value), _edit(what, mean), zero(what.site, heads=what.head)]
    found = model.sweep([[], *([e] for e in judged)], others, loss(model, others), budget_mb)
    excess = RowScores(np.asarray(found[1:] - found[0]), others.units, Seed(seed).child("rows"))
    cost = Cost(forward=steps + 1 + 2 + len(judged) + 1, backward=steps + 1)
    settings = {"steps": float(steps), "rate": float(rate)}
    return OptimalAblation(str(what), value, mean, tuple(fitted), excess, cost, settings, what)


def _descended(
    model: Model, node: Node, rows: Batch, metric: Metric, start: Tensor, steps: int, size: float
) -> tuple[Tensor, list[float]]:
    """The best constant met on the way, and the loss at each step."""
    value = start.clone().requires_grad_(True)
    optimiser = torch.optim.Adam([value], lr=max(size, START))
    best, least, losses = start, np.inf, []
    for step in range(steps + 1):
        for group in optimiser.param_groups:
            group["lr"] = max(size, START) * (1 - step / (steps + 1))
        trace = model.run(rows, [], [_edit(node, value)], grad=True)
        with torch.enable_grad():
            loss = checked_scores(metric(trace.output, trace.batch), len(rows)).mean()
        losses.append(float(loss.detach()))
        if losses[-1] < least:
            best, least = value.detach().clone(), losses[-1]
        (value.grad,) = torch.autograd.grad(loss, [value])
        optimiser.step()
    return best, losses


def _edit(node: Node, value: Tensor) -> Edit:
    shaped = value if value.ndim == 1 else value[None, None]
    return patch(node.site, shaped, heads=node.head)
