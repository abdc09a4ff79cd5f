"""Level 1 for activations: does a description predict when, and how strongly, its component is active?

The metric is the correlation of predicted with measured activation over positions, resampled by unit.
Rivals are the same number for: random directions explained by the same explainer at a matched firing
rate, the explainer's description of shuffled activations, and plain tables (token, position, frequency).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prosect.core.canonical import digest
from prosect.core.errors import BadInput
from prosect.core.exhibits import Scatter
from prosect.core.intervals import Correlation
from prosect.core.records import Component, Evidence, Executable
from prosect.data.batch import Batch
from prosect.validate.subject import Captured, Subject, runnable
from prosect.validate.sums import UnitSums
from prosect.validate.tester import DrawCache, Illustrations, Item, compare

KIND = "predict-activations"
METRIC = "correlation of predicted with measured activation"


TRAINED = -1


def home(component: Component) -> tuple[int, Component]:
    """Which network a component belongs to, `TRAINED` or the number of an untrained one, and its name there.

    Components of untrained networks are written ``untrained.N:decomposition``.
    """
    prefix, colon, name = component.decomposition.partition(":")
    if not colon or not prefix.startswith("untrained."):
        return TRAINED, component
    return int(prefix.split(".")[1]), component.model_copy(update={"decomposition": name})


class PredictActivations:
    """Predicted against measured activation, for every plan of a family and every rival, in one pass."""

    def __init__(self, items: Sequence[Item], subject: Subject, fold: str) -> None:
        self.items, self.subject = list(items), subject
        self.units = subject.source.units[fold]
        self._pairs: dict[tuple[str, str], int] = {}
        self._components: list[Component] = []
        self._networks: dict[int, list[int]] = {}
        self._column: dict[str, int] = {}
        self._measured_at: list[int] = []
        self._predictors: list[Any] = []
        self.own: list[int] = []
        self.rivals: list[list[list[int]]] = []
        for item in self.items:
            cause = item.hypothesis.description.cause
            if cause is None:
                raise BadInput(
                    f"hypothesis {item.hypothesis.id} without a cause side", "a cause to predict with"
                )
            self.own.append(self._pair(item.hypothesis.component, cause))
            self.rivals.append(
                [
                    [
                        self._pair(c, e)
                        for c, e in zip(
                            rival.components or (item.hypothesis.component,) * len(rival.descriptions),
                            rival.descriptions,
                            strict=True,
                        )
                    ]
                    for rival in item.plan.rivals
                ]
            )
        self.sums = UnitSums(self.units, len(self._predictors), 6)
        self._points: list[list[tuple[float, float]]] = [[] for _ in self._predictors]
        self._draw = subject.seed.child("scatter", fold).numpy()
        self.fired = np.zeros((len(self._components), self.units), dtype=bool)

    def _pair(self, component: Component, executable: Executable) -> int:
        """The number of a (component, description) pair; each is evaluated once however often it is used."""
        key = (component.name, digest(executable))
        if key not in self._pairs:
            if component.name not in self._column:
                network, own = home(component)
                self._networks.setdefault(network, []).append(len(self._components))
                self._column[component.name] = len(self._components)
                self._components.append(own)
            self._pairs[key] = len(self._predictors)
            self._measured_at.append(self._column[component.name])
            self._predictors.append(runnable(executable, self.subject.shelf))
        return self._pairs[key]

    def sites(self) -> tuple[str, ...]:
        """The sites that components of the network itself read."""
        return self.subject.reads(self._components[i] for i in self._networks.get(TRAINED, ()))

    def _measure(self, batch: Batch, trace: Captured) -> tuple[Tensor, Tensor]:
        """Every component at scored positions, those of untrained networks by running them."""
        values = torch.zeros((batch.count, len(self._components)), dtype=torch.float64)
        valid = torch.ones(batch.count, dtype=torch.bool)
        for network, places in self._networks.items():
            components = [self._components[i] for i in places]
            subject: Subject = self.subject
            seen: Captured = trace
            if network != TRAINED:
                subject = self.subject.untrained[network]
                seen = subject.model.run(batch, capture=subject.reads(components), stop_early=True)
                self.subject.spend(batch, "untrained")
            values[:, places], valid = subject.measure(components, batch, seen)
        return values, valid

    def update(self, batch: Batch, trace: Captured, output: Tensor) -> None:
        """Measure and predict on one batch."""
        measured, valid = self._measure(batch, trace)
        values = measured[valid].numpy()
        keep = valid.numpy()
        unit = batch.flat_units[keep]
        for c in range(values.shape[1]):
            self.fired[c, unit[values[:, c] > 0]] = True
        predicted = np.stack(
            [np.asarray(p.activation(batch), dtype=float)[keep] for p in self._predictors],
            axis=1,
        )
        self.sums.add_moments(unit, values[:, self._measured_at], predicted)
        self._sample(values, predicted)

    def _sample(self, values: np.ndarray, predicted: np.ndarray) -> None:
        """Keep a few positions of the batch for the scatter: half of those drawn are active or predicted so."""
        for i in {*self.own, *(m[0] for r in self.rivals for m in r[:1] if m)}:
            x, y = predicted[:, i], values[:, self._measured_at[i]]
            lively = np.flatnonzero((x > x.min()) | (y > 0)) if len(x) else np.empty(0, dtype=int)
            picks = [self._draw.integers(len(x), size=2)] if len(x) else []
            if len(lively):
                picks.append(self._draw.choice(lively, size=min(6, len(lively)), replace=False))
            for at in np.concatenate(picks).astype(int).tolist() if picks else []:
                self._points[i].append((float(x[at]), float(y[at])))

    def illustrate(self) -> Illustrations:
        """For each claim a sample of points, its first control's behind them."""
        out = {}
        for item, own, rivals in zip(self.items, self.own, self.rivals, strict=True):
            mine = self._some(own)
            control = self._some(rivals[0][0]) if rivals and rivals[0] else []
            out[item.hypothesis.id] = Scatter(
                predicted=tuple(p for p, _ in mine),
                measured=tuple(m for _, m in mine),
                control_predicted=tuple(p for p, _ in control),
                control_measured=tuple(m for _, m in control),
                population=int(self.sums.total[own][:, 0].sum()),
            )
        return Illustrations(scatters=out)

    def _some(self, pair: int, most: int = 160) -> list[tuple[float, float]]:
        points = self._points[pair]
        step = max(1, len(points) // most)
        return [(round(p, 5), round(m, 5)) for p, m in points[::step][:most]]

    def finish(self, draws: DrawCache) -> list[Evidence]:
        """Evidence for each item."""
        out = []
        for item, own, rivals in zip(self.items, self.own, self.rivals, strict=True):
            fired = int(self.fired[self._measured_at[own]].sum())
            pairs = [
                (rival, [self.sums.total[i] for i in members])
                for rival, members in zip(item.plan.rivals, rivals, strict=True)
            ]
            out.append(compare(item, self.sums.total[own], pairs, Correlation(), draws, firing=fired))
        return out
