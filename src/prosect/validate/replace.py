"""Level 3: parts of the network are replaced by the description's own code, and the network must still work.

A replacement claim is a ``composite`` description: a list of parts, each a site, a unit or head of it, and
the executable that takes its place. The metric is the share of task answers that stay right. It must beat
mean ablation of the same parts, keep nearly all of the intact network's score, not be worse than a simple
fit with no more free parameters in distribution, and be better than that fit on the registered shift.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from prosect.core.canonical import digest
from prosect.core.errors import BadInput
from prosect.core.intervals import Mean
from prosect.core.records import Evidence, Executable
from prosect.data.batch import Batch
from prosect.model import Edit, mean, replace
from prosect.validate.subject import Captured, Subject, runnable
from prosect.validate.sums import UnitSums
from prosect.validate.tester import DrawCache, Item, compare

KIND = "replace"
METRIC = "share of answers that are right"
ABLATED, INTACT, FIT, FIT_SHIFT = "mean-ablation", "intact-network", "simple-fit", "simple-fit-on-shift"
COMPOSITE = "composite"

REPLACED = 3
"""Passes that each row of a fold takes beside its own: the code, the means, and the simple fit."""


class Replace:
    """Runs the network with parts replaced, on the fold and on the shift."""

    def __init__(self, items: Sequence[Item], subject: Subject, fold: str) -> None:
        if subject.task is None:
            raise BadInput("a subject without a task", "right answers, for a test by replacement")
        self.items, self.subject = list(items), subject
        self.units = subject.source.units[fold]
        self.variants: list[tuple[str, Executable]] = []  # how, parts
        self.plan: list[tuple[int, list[int]]] = []
        for item in self.items:
            cause = item.hypothesis.description.cause
            if cause is None or cause.kind != COMPOSITE:
                raise BadInput(
                    f"hypothesis {item.hypothesis.id}", "a composite description to replace parts with"
                )
            own = self._variant("code", cause)
            rivals = []
            for rival in item.plan.rivals:
                if rival.name in (ABLATED, INTACT):
                    rivals.append(self._variant(rival.name, cause))
                else:
                    rivals.append(self._variant("code", rival.descriptions[0]))
            self.plan.append((own, rivals))
        self.sums = UnitSums(self.units, len(self.variants), 2)
        shift = subject.source.units.get("shift", 0)
        self.shifted = UnitSums(shift, len(self.variants), 2) if shift else None

    def _variant(self, how: str, parts: Executable) -> int:
        if (how, parts) not in self.variants:
            self.variants.append((how, parts))
        return self.variants.index((how, parts))

    def sites(self) -> tuple[str, ...]:
        """Nothing beyond the output."""
        return ()

    def update(self, batch: Batch, trace: Captured, output: Tensor) -> None:
        """Score every variant on one batch of the fold."""
        self._score(batch, output, self.sums)

    def _score(self, batch: Batch, output: Tensor, sums: UnitSums) -> None:
        assert self.subject.task is not None
        wanted = self.subject.task(batch)
        for v, (how, parts) in enumerate(self.variants):
            if how == INTACT:
                answer = output
            else:
                edits = edits_for(parts, batch, self.subject, ablate=how == ABLATED)
                answer = self.subject.model.run(batch, edits=edits).output
                self.subject.spend(batch, "validate")
            right = (answer.argmax(dim=-1) == wanted) & (wanted >= 0)
            asked = (wanted >= 0).reshape(len(batch), -1).sum(dim=-1)
            got = right.reshape(len(batch), -1).sum(dim=-1)
            sums.add_means(v, batch.units, asked.cpu().double().numpy(), got.cpu().double().numpy())

    def finish(self, draws: DrawCache) -> list[Evidence]:
        """Evidence for each item; the shift is opened here, after the fold."""
        if self.shifted is not None:
            for batch in self.subject.batches("shift"):
                self._score(batch, self.subject.model.run(batch).output, self.shifted)
                self.subject.spend(batch, "validate")
        out = []
        for item, (own, rivals) in zip(self.items, self.plan, strict=True):
            statistic = Mean(low=0.0, high=1.0)
            here = [(r, v) for r, v in zip(item.plan.rivals, rivals, strict=True) if r.name != FIT_SHIFT]
            there = [(r, v) for r, v in zip(item.plan.rivals, rivals, strict=True) if r.name == FIT_SHIFT]
            found = compare(
                item,
                self.sums.total[own],
                [(r, [self.sums.total[v]]) for r, v in here],
                statistic,
                draws,
            )
            if there and self.shifted is not None:
                moved = compare(
                    item,
                    self.shifted.total[own],
                    [(r, [self.shifted.total[v]]) for r, v in there],
                    statistic,
                    draws,
                    note=f"on the shift {self.shifted.total[own][:, 1].sum() / max(self.shifted.total[own][:, 0].sum(), 1):.4f} are right",
                )
                ps = (found.p, moved.p)
                found = found.model_copy(
                    update={
                        "comparisons": (*found.comparisons, *moved.comparisons),
                        "p": None if None in ps else max(p for p in ps if p is not None),
                        "enough": found.enough and moved.enough,
                        "note": "; ".join(n for n in (found.note, moved.note) if n),
                    }
                )
            elif there:
                found = found.model_copy(update={"enough": False, "note": "no shifted inputs to test on"})
            out.append(found)
        return out


def edits_for(parts: Executable, batch: Batch, subject: Subject, *, ablate: bool = False) -> list[Edit]:
    """The edits that put the parts of a composite description in place, or their means.

    Each part is ``{"site": ..., "index": ..., "code": executable or null}``; without code the part is set to
    its mean over explore, as all parts are with ``ablate``.
    """
    units: dict[str, list[dict[str, Any]]] = {}
    edits: list[Edit] = []
    for part in parts.parameters["parts"]:
        units.setdefault(part["site"], []).append(part)
    for site, members in units.items():
        if site.startswith("probs."):
            layer = int(site.split(".")[1])
            for part in members:
                head = int(part["index"])
                if ablate or part["code"] is None:
                    z = f"z.{layer}"
                    edits.append(mean(f"{z}.h{head}", subject.means[z][head]))
                else:
                    role = _code(part, subject)
                    weights = torch.from_numpy(role.attention(batch))
                    edits.append(replace(f"{site}.h{head}", _constant(weights)))
            continue
        values = {}
        for part in members:
            index = int(part["index"])
            if ablate or part["code"] is None:
                values[index] = subject.means[site][index]
            else:
                values[index] = batch.unflat(torch.from_numpy(_code(part, subject).activation(batch)))
        edits.append(replace(site, _columns(values)))
    return edits


def _code(part: Mapping[str, Any], subject: Subject) -> Any:
    executable = Executable.model_validate(part["code"])
    key = digest(executable)
    cache = subject.code
    if key not in cache:
        cache[key] = runnable(executable, subject.shelf)
    return cache[key]


def _constant(value: Tensor) -> Callable[[Tensor], Tensor]:
    def edit(x: Tensor) -> Tensor:
        return value.to(x.device, x.dtype).reshape(x.shape)

    return edit


def _columns(values: Mapping[int, Tensor]) -> Callable[[Tensor], Tensor]:
    def edit(x: Tensor) -> Tensor:
        out = x.clone()
        for index, value in values.items():
            out[..., index] = torch.as_tensor(value).to(x.device, x.dtype)
        return out

    return edit
