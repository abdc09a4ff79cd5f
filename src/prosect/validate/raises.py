"""The effect side of directions: does removing a component lower the outputs it is said to raise?

Where the component is active its own contribution, code × direction, is taken out of the site it writes.
The metric is how much the logits of the outputs it is said to raise fall, relative to those it is said to
lower, for a removal of a fixed size (a tenth of the site's mean norm), so that components of different
strength and random directions can be compared. Deciding rivals: random directions with the outputs that the
same explainer found for them, and this component's removal scored on other components' outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from prosect.core.errors import BadInput
from prosect.core.intervals import INTERVAL_DRAWS, Contrast, Mean, Term
from prosect.core.records import Component, Evidence, Executable, Measured
from prosect.core.seeds import Seed
from prosect.data.batch import Batch
from prosect.model import After, replace
from prosect.validate.subject import STATISTICAL, Captured, Subject, runnable
from prosect.validate.sums import UnitSums
from prosect.validate.tester import DrawCache, Illustrations, Item, compare

KIND = "raise-outputs"
METRIC = "fall of raised against lowered logits when a tenth of the site's norm is removed (nats)"
RANDOM, SHUFFLED = "random-direction", "shuffled-outputs"


@dataclass(frozen=True)
class Removal:
    """What taking a component out did at the positions where it was active.

    Attributes:
        unit: of each position.
        size: norm of what was removed there.
        change: intact minus ablated logits, centred over outputs, (n, outputs).
    """

    unit: np.ndarray
    size: np.ndarray
    change: Tensor


class Remover:
    """Takes components out of a model, many (component, row) pairs in one forward pass.

    Args:
        subject: the model and its decompositions.
        components: what to take out; each needs a direction and one site it writes.
        rows: most rows for each component.
        per_unit: most rows of one unit for each component.
    """

    def __init__(
        self, subject: Subject, components: Sequence[Component], rows: int, per_unit: int = 1
    ) -> None:
        self.subject, self.components, self.rows, self.per_unit = subject, list(components), rows, per_unit
        self._used = [dict[int, int]() for _ in components]
        self.directions = [
            subject.decomposition(c.decomposition).directions[c.index].detach().float() for c in components
        ]
        self.written = [subject.decomposition(c.decomposition).writes[0] for c in components]
        self._begin = {site: subject.model.before(site) for site in dict.fromkeys(self.written)}

    @property
    def sites(self) -> tuple[str, ...]:
        """What must be captured of the intact model."""
        streams = (f"resid_post.{n}" for n in self._begin.values() if n is not None)
        return tuple(dict.fromkeys([*self.subject.reads(self.components), *streams]))

    @property
    def done(self) -> bool:
        """Whether every component has been taken out of as many rows as are wanted."""
        return all(sum(used.values()) >= self.rows for used in self._used)

    def remove(
        self, batch: Batch, trace: Captured, output: Tensor, purpose: str
    ) -> list[tuple[int, Removal]]:
        """(component, what its removal did) for the rows of this batch that are still wanted."""
        if batch.scored is None:
            raise BadInput("inputs without positions", "text, for effects on the next token")
        codes = {
            name: self.subject.codes(name, batch, trace)
            for name in dict.fromkeys(c.decomposition for c in self.components)
        }
        work: list[tuple[int, int, Tensor]] = []
        for j, component in enumerate(self.components):
            code = batch.unflat(codes[component.decomposition].columns([component.index])[:, 0])
            active = (code != 0).any(dim=-1).cpu().numpy()
            used = self._used[j]
            for row in np.flatnonzero(active).tolist():
                unit = batch.rows[row].unit
                if sum(used.values()) >= self.rows:
                    break
                if used.get(unit, 0) < self.per_unit:
                    used[unit] = used.get(unit, 0) + 1
                    work.append((j, row, code[row]))
        found: list[tuple[int, Removal]] = []
        work.sort(key=lambda w: self.written[w[0]])
        for site in dict.fromkeys(self.written[j] for j, _, _ in work):
            here = [w for w in work if self.written[w[0]] == site]
            for start in range(0, len(here), self.subject.rows):
                chunk = here[start : start + self.subject.rows]
                rows = [row for _, row, _ in chunk]
                some = batch.select(rows)
                begin = self._begin[site]
                after = None if begin is None else After(begin, trace[f"resid_post.{begin}"][rows])
                delta = torch.stack(
                    [-code[:, None] * self.directions[j].to(code.device) for j, _, code in chunk]
                ).to(output.dtype)
                where = torch.stack([code != 0 for _, _, code in chunk])
                ablated = self.subject.model.run(
                    some, edits=[replace(site, partial(torch.add, delta))], after=after, where=where
                ).output
                self.subject.spend(some, purpose)
                each = torch.split(ablated, where.sum(dim=1).tolist())
                for (j, row, code), without in zip(chunk, each, strict=True):
                    at = code != 0
                    change = (output[row][at] - without).float()
                    size = (code[at].abs() * self.directions[j].norm().to(code.device)).cpu().double().numpy()
                    units = np.full(len(size), batch.rows[row].unit)
                    found.append((j, Removal(units, size, change - change.mean(dim=-1, keepdim=True))))
        return found


def relabel(removal: Removal, seed: Seed) -> Tensor:
    """The statistical null for effects: outputs renamed at random, anew for every unit.

    One renaming for a whole part would leave what is claimed some effect by chance, the same in every unit.
    """
    change = removal.change.clone()
    for unit in np.unique(removal.unit).tolist():
        at = torch.from_numpy(np.flatnonzero(removal.unit == unit)).to(change.device)
        order = torch.from_numpy(seed.child(unit).numpy().permutation(change.shape[-1]))
        change[at] = change[at][:, order.to(change.device)]
    return change


class RaiseOutputs:
    """Effects of removing components, and of their rivals, on named outputs."""

    def __init__(self, items: Sequence[Item], subject: Subject, fold: str) -> None:
        self.items, self.subject, self.fold = list(items), subject, fold
        self.units = subject.source.units[fold]
        self._components: dict[str, int] = {}
        held: list[Component] = []

        def place(component: Component) -> int:
            if component.name not in self._components:
                self._components[component.name] = len(held)
                held.append(component)
            return self._components[component.name]

        self.quantities: list[tuple[int, Executable]] = []
        self.plan: list[tuple[int, list[list[int]]]] = []
        for item in self.items:
            effect = item.hypothesis.description.effect
            if effect is None:
                raise BadInput(f"hypothesis {item.hypothesis.id} without an effect side", "outputs to test")
            own = place(item.hypothesis.component)
            rivals = []
            for rival in item.plan.rivals:
                members = rival.components or (item.hypothesis.component,) * len(rival.descriptions)
                rivals.append(
                    [self._quantity(place(c), e) for c, e in zip(members, rival.descriptions, strict=True)]
                )
            self.plan.append((self._quantity(own, effect), rivals))
        rows = max(int(i.plan.parameters.get("rows", 48)) for i in self.items)
        self.remover = Remover(subject, held, rows)
        self.sets = [runnable(e, subject.shelf).outputs() for _, e in self.quantities]
        self.scale = float(self.items[0].plan.parameters.get("scale", 1.0))
        self.sums = UnitSums(self.units, len(self.quantities), 2)
        self.named = [[i for side in self.sets[own] for i in side] for own, _ in self.plan]
        self.each = [UnitSums(self.units, len(named), 2) for named in self.named]
        self._falls: dict[str, dict[int, Measured]] = {}

    def _quantity(self, component: int, effect: Executable) -> int:
        if (component, effect) not in self.quantities:
            self.quantities.append((component, effect))
        return self.quantities.index((component, effect))

    def sites(self) -> tuple[str, ...]:
        """What the components read."""
        return self.remover.sites

    def update(self, batch: Batch, trace: Captured, output: Tensor) -> None:
        """Remove components on some rows and score every set of outputs."""
        for j, removal in self.remover.remove(batch, trace, output, "validate"):
            change = removal.change
            if self.subject.null == STATISTICAL:
                change = relabel(removal, self.subject.seed.child("null", "outputs", self.fold, j))
            for q, (component, _) in enumerate(self.quantities):
                if component != j:
                    continue
                gap = contrast(change, *self.sets[q]) * self.scale
                self.sums.add_means(q, removal.unit, removal.size, gap.cpu().double().numpy())
            for (own, _), named, sums in zip(self.plan, self.named, self.each, strict=True):
                if self.quantities[own][0] == j:
                    falls = (change[:, named] * self.scale).cpu().double().numpy()
                    for k in range(len(named)):
                        sums.add_means(k, removal.unit, removal.size, falls[:, k])

    def finish(self, draws: DrawCache) -> list[Evidence]:
        """Evidence for each item; random directions are active in other documents than the component."""
        out = []
        for item, (own, rivals) in zip(self.items, self.plan, strict=True):
            mine = self.sums.total[own]
            pairs = [
                (rival, [self.sums.total[i] for i in members])
                for rival, members in zip(item.plan.rivals, rivals, strict=True)
            ]
            out.append(compare(item, mine, pairs, Mean(), draws, paired=False))
        for item, named, sums in zip(self.items, self.named, self.each, strict=True):
            self._falls[item.hypothesis.id] = _falls(named, sums, draws)
        return out

    def illustrate(self) -> Illustrations:
        """How far each named output fell."""
        return Illustrations(outputs=dict(self._falls))


def _falls(named: Sequence[int], sums: UnitSums, draws: DrawCache) -> dict[int, Measured]:
    """How far each named output fell, in the test's metric; for illustration, so nothing is corrected for."""
    present = np.flatnonzero(sums.total[0, :, 0]) if len(named) else np.zeros(0)
    if not len(present):
        return {}
    resamples = draws.get(len(present), INTERVAL_DRAWS, "outputs")
    terms = [Term([total[present]]) for total in sums.total]
    found = resamples.contrasts(terms, [Contrast(k) for k in range(len(terms))], Mean())
    return {i: result.measured for i, result in zip(named, found, strict=True)}


def contrast(change: Tensor, raised: Sequence[int], lowered: Sequence[int]) -> Tensor:
    """Mean change over the raised outputs minus mean over the lowered; a missing side counts as 0."""
    up = change[:, list(raised)].mean(dim=-1) if raised else change.new_zeros(len(change))
    down = change[:, list(lowered)].mean(dim=-1) if lowered else change.new_zeros(len(change))
    return up - down
