"""What claims are about: a model, its data, the decompositions in use, and how a component is measured.

Explaining and testing measure components through the same functions here, so that a null that breaks the
link between inputs and activations (`Subject.null`) breaks it for both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from prosect.core.errors import OutOfScope, UnknownName
from prosect.core.records import Component, Executable, Hypothesis, Scope
from prosect.core.registries import DESCRIPTIONS
from prosect.core.seeds import Seed
from prosect.data.batch import Batch
from prosect.data.source import Source
from prosect.data.tokens import TokenSource, tokenizer_digest
from prosect.decompose.contract import Codes, Decomposition
from prosect.model import Model
from prosect.store.shelf import Shelf

STATISTICAL = "statistical"


@runtime_checkable
class Captured(Protocol):
    """What was at the captured sites of a batch, by site name."""

    def __getitem__(self, site: str) -> Tensor:
        """The value at a site."""


@dataclass
class Subject:
    """A model under study.

    Attributes:
        model: the model.
        source: its inputs, cut into parts.
        seed: of everything random in measuring.
        shelf: tensors that descriptions refer to.
        decompositions: by name; components refer to them.
        means: site → mean activation over explore, for mean ablation.
        null: empty, or ``statistical``: codes, attention and effects are re-linked to other inputs, so that
            every claim that anything predicts them is false.
        untrained: the same architecture with fresh random weights, each with its own decompositions.
        task: batch → the right answer at each row or position, -1 where nothing is asked.
        answers: batch → the output that is right at each position, -1 where nothing is asked, or a number that the
            first output should be, NaN where nothing is; None where the next token is right.
        rows: rows in a batch.
        cost: forward passes and tokens spent so far, by purpose.
    """

    model: Model
    source: Source
    seed: Seed
    shelf: Shelf
    decompositions: dict[str, Decomposition] = field(default_factory=dict)
    means: dict[str, Tensor] = field(default_factory=dict)
    null: str = ""
    untrained: Sequence[Subject] = ()
    task: Callable[[Batch], Tensor] | None = None
    answers: Callable[[Batch], Tensor] | None = None
    rows: int = 32
    cost: dict[str, int] = field(default_factory=dict)
    code: dict[str, Any] = field(default_factory=dict, repr=False)

    @cached_property
    def scope(self) -> Scope:
        """What a claim made here holds for."""
        tokenizer = self.source.tokenizer if isinstance(self.source, TokenSource) else None
        return Scope(
            model=self.model.digest,
            data=self.source.digest,
            dtype=str(self.model.dtype).removeprefix("torch."),
            tokenizer=None if tokenizer is None else tokenizer_digest(tokenizer),
        )

    def check_scope(self, hypothesis: Hypothesis) -> None:
        """Refuse a claim made about something else.

        Raises:
            OutOfScope: the model, data, dtype or tokenizer differs from the claim's.
        """
        for name in ("model", "data", "dtype", "tokenizer"):
            mine, its = getattr(self.scope, name), getattr(hypothesis.scope, name)
            if mine != its:
                raise OutOfScope(
                    f"hypothesis {hypothesis.id}, made for {name} {str(its)[:16]}",
                    f"{name} {str(mine)[:16]}, which is what is open here",
                    "testing it anew: a claim says nothing outside its scope",
                )

    def batches(self, part: str) -> Iterator[Batch]:
        """The batches of a part, on the model's device."""
        for batch in self.source.batches(part, self.rows):
            yield batch.to(self.model.device)

    def spend(self, batch: Batch, purpose: str, times: int = 1) -> None:
        """Count forward passes and positions."""
        for key, amount in (
            ("forwards", times),
            ("rows", times * len(batch)),
            ("positions", times * batch.count),
        ):
            name = f"{purpose} {key}"
            self.cost[name] = self.cost.get(name, 0) + amount

    def add(self, purpose: str, rows: int | float, gradients: int | float = 0) -> None:
        """Count computing, in whole passes of one row, and rows whose gradients were taken."""
        for key, amount in (("rows computed", rows), ("rows with gradients", gradients)):
            if amount > 0:
                name = f"{purpose} {key}"
                self.cost[name] = self.cost.get(name, 0) + round(amount)

    @contextmanager
    def metered(self, purpose: str) -> Iterator[None]:
        """Count what the model computes for as long as the block lasts, whoever runs it."""
        meter = self.model.runner.meter
        rows, backward = meter.rows, meter.backward
        try:
            yield
        finally:
            self.add(purpose, meter.rows - rows, meter.backward - backward)

    def decomposition(self, name: str) -> Decomposition:
        """The decomposition of that name.

        Raises:
            UnknownName: there is none.
        """
        if name not in self.decompositions:
            raise UnknownName("decomposition", name, self.decompositions)
        return self.decompositions[name]

    def reads(self, components: Iterable[Component]) -> tuple[str, ...]:
        """The sites that must be captured to measure these components."""
        names = dict.fromkeys(c.decomposition for c in components)
        return tuple(dict.fromkeys(s for n in names for s in self.decomposition(n).reads))

    def codes(self, name: str, batch: Batch, trace: Captured) -> Codes:
        """The codes of one decomposition at the scored positions of a batch."""
        decomposition = self.decomposition(name)
        return decomposition.encode({site: batch.flat(trace[site]) for site in decomposition.reads})

    def measure(
        self, components: Sequence[Component], batch: Batch, trace: Captured
    ) -> tuple[Float[Tensor, "n components"], Bool[Tensor, " n"]]:
        """Activations of components at scored positions, and where they are valid.

        Under the statistical null each row's activations are those of a row of another unit; positions that
        the other row does not have are invalid.
        """
        by_name: dict[str, list[int]] = {}
        for i, c in enumerate(components):
            by_name.setdefault(c.decomposition, []).append(i)
        out = torch.zeros((batch.count, len(components)), dtype=torch.float64)
        for name, places in by_name.items():
            found = self.codes(name, batch, trace).columns([components[i].index for i in places])
            out[:, places] = found.to("cpu", torch.float64)
        if self.null != STATISTICAL:
            return out, torch.ones(batch.count, dtype=torch.bool)
        source, valid = relink(batch, self.seed.child("null"))
        return out[source], valid


def relink(batch: Batch, seed: Seed) -> tuple[Int[Tensor, " n"], Bool[Tensor, " n"]]:
    """For each scored position, the same position in a row of another unit, and whether it is there.

    The pairing of rows depends on the rows' documents alone, so the same batch is always re-linked alike.
    """
    partner = partners(batch, seed)
    scored = batch.scored
    if scored is None:
        return torch.from_numpy(partner), torch.ones(len(batch), dtype=torch.bool)
    scored = scored.cpu()
    number = torch.full(scored.shape, -1, dtype=torch.long)
    number[scored] = torch.arange(int(scored.sum()))
    source = number[torch.from_numpy(partner)][scored]
    return source.clamp(min=0), source >= 0


def partners(batch: Batch, seed: Seed) -> Int[np.ndarray, " rows"]:
    """A row of another unit for each row; itself where the batch has only one unit."""
    units = batch.units
    key = ",".join(f"{r.document}@{r.offset}" for r in batch.rows)
    start = int(seed.child("relink", key).numpy().integers(1, max(len(units), 2)))
    out = np.arange(len(units))
    for i in range(len(units)):
        for step in range(len(units)):
            j = (i + start + step) % len(units)
            if units[j] != units[i]:
                out[i] = j
                break
    return out


def rekeyed(weights: Float[Tensor, "rows *h q k"], batch: Batch, seed: Seed) -> Float[Tensor, "rows *h q k"]:
    """Attention with each query's keys put in random order, anew for every query.

    This breaks the link of attention to distance as well as to content; attention of another document would keep
    the first.
    """
    n = weights.shape[-1]
    later = torch.triu(torch.ones(n, n, dtype=torch.bool), diagonal=1)
    out = torch.empty_like(weights)
    for i, row in enumerate(batch.rows):
        noise = torch.rand(n, n, generator=seed.child("rekey", f"{row.document}@{row.offset}").torch())
        order = noise.masked_fill(later, 2.0).argsort(dim=-1, stable=True).to(weights.device)
        out[i] = weights[i].gather(-1, order.expand(weights[i].shape))
    return out


def runnable(executable: Executable, shelf: Shelf) -> Any:
    """The code of a description, found by its registered kind."""
    return DESCRIPTIONS.get(executable.kind).of(executable, shelf)
