"""The effect side of units in a network with few outputs: is every output changed as the description says?

The unit is set to zero; the metric is the correlation of predicted with measured change over outputs and
inputs (changes centred over outputs, since only differences between logits matter).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prosect.core.canonical import digest
from prosect.core.errors import BadInput
from prosect.core.intervals import Correlation
from prosect.core.records import Evidence
from prosect.data.batch import Batch
from prosect.model import replace
from prosect.validate.subject import STATISTICAL, Captured, Subject, partners, runnable
from prosect.validate.sums import UnitSums
from prosect.validate.tester import DrawCache, Item, compare

KIND = "change-outputs"
METRIC = "correlation of predicted with measured change of the outputs when the unit is silenced"


def silence(index: int) -> Any:
    """A function that sets one unit of a site to zero."""

    def edit(x: Tensor) -> Tensor:
        out = x.clone()
        out[..., index] = 0
        return out

    return edit


class ChangeOutputs:
    """Predicted against measured change of every output."""

    def __init__(self, items: Sequence[Item], subject: Subject, fold: str) -> None:
        self.items, self.subject = list(items), subject
        self.units = subject.source.units[fold]
        self._predictors: dict[str, Any] = {}
        self.quantities: list[tuple[str, int, str]] = []
        self.plan: list[tuple[int, list[list[int]]]] = []
        for item in self.items:
            effect = item.hypothesis.description.effect
            if effect is None:
                raise BadInput(f"hypothesis {item.hypothesis.id} without an effect side", "a change to test")
            c = item.hypothesis.component
            site = c.writes[0]
            own = self._quantity(site, c.index, effect)
            rivals = [[self._quantity(site, c.index, e) for e in r.descriptions] for r in item.plan.rivals]
            self.plan.append((own, rivals))
        self.sums = UnitSums(self.units, len(self.quantities), 6)

    def _quantity(self, site: str, index: int, effect: Any) -> int:
        key = digest(effect)
        if key not in self._predictors:
            self._predictors[key] = runnable(effect, self.subject.shelf)
        if (site, index, key) not in self.quantities:
            self.quantities.append((site, index, key))
        return self.quantities.index((site, index, key))

    def sites(self) -> tuple[str, ...]:
        """Nothing beyond the output."""
        return ()

    def update(self, batch: Batch, trace: Captured, output: Tensor) -> None:
        """Silence each unit on this batch."""
        order = torch.arange(len(batch))
        if self.subject.null == STATISTICAL:
            order = torch.from_numpy(partners(batch, self.subject.seed.child("null")))
        measured: dict[tuple[str, int], Tensor] = {}
        for site, index in dict.fromkeys((s, i) for s, i, _ in self.quantities):
            run = self.subject.model.run(batch, edits=[replace(site, silence(index))])
            self.subject.spend(batch, "validate")
            measured[site, index] = _centred(run.output - output).cpu()[order]
        predicted = {k: _centred(torch.from_numpy(p.change(batch))) for k, p in self._predictors.items()}
        outputs = output.shape[-1]
        unit = np.repeat(batch.flat_units, outputs)
        x = np.stack([measured[s, i].double().numpy().ravel() for s, i, _ in self.quantities], axis=1)
        y = np.stack([predicted[k].double().numpy().ravel() for _, _, k in self.quantities], axis=1)
        self.sums.add_moments(unit, x, y)

    def finish(self, draws: DrawCache) -> list[Evidence]:
        """Evidence for each item."""
        return [
            compare(
                item,
                self.sums.total[own],
                [
                    (rival, [self.sums.total[i] for i in members])
                    for rival, members in zip(item.plan.rivals, rivals, strict=True)
                ],
                Correlation(),
                draws,
            )
            for item, (own, rivals) in zip(self.items, self.plan, strict=True)
        ]


def _centred(change: Tensor) -> Tensor:
    return change - change.mean(dim=-1, keepdim=True)
