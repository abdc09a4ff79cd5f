"""What a task is: what methods are handed, what they must give back, and how that is scored against the truth.

Adding one is a class with these members in `prosect.bench.tasks` and a line in `prosect.core.registries.TASKS`. The
oracle and the random answer go through the same check and the same score as any method's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from prosect.bench.given import Answer, Given
from prosect.bench.subject import Subject
from prosect.core.errors import BadInput, NotFinite, ShapeMismatch
from prosect.core.truth import Truth


@dataclass(frozen=True, eq=False)
class Case:
    """One question about one organism.

    Attributes:
        name: tells the questions about one organism apart, such as the ablation; may be empty.
        given: what methods are handed.
        truth: what answers are scored against. It never leaves the process that scores.
    """

    name: str
    given: Given
    truth: Mapping[str, np.ndarray] = field(repr=False)


@dataclass(frozen=True)
class Metric:
    """A number that answers get; the first of a task decides, and has an analytic floor.

    Attributes:
        name: short.
        about: what it is, with its unit.
        low: its smallest possible value.
        high: its largest.
        better: whether more of it is better (``higher``) or less (``lower``).
        feature: what it means by a feature (`prosect.decompose.definitions`), where it is about features.
    """

    name: str
    about: str
    low: float = 0.0
    high: float = 1.0
    better: str = "higher"
    feature: str = ""


@dataclass(frozen=True)
class Setup:
    """How much of everything there is.

    Attributes:
        seconds: that a method has, from the start of its process.
        rows: inputs or positions that it sees, at most.
    """

    seconds: float = 60.0
    rows: int = 8192


@runtime_checkable
class Task(Protocol):
    """A kind of question.

    Attributes:
        name: as on the command line.
        methods: the task whose methods are asked: this one, or the one that it is a null of.
        version: changes whenever scores would.
        metrics: what answers get; the first decides.
    """

    @property
    def name(self) -> str: ...

    @property
    def methods(self) -> str: ...

    @property
    def version(self) -> int: ...

    @property
    def metrics(self) -> tuple[Metric, ...]: ...

    def suits(self, truth: Truth) -> bool:
        """Whether this truth answers the question."""

    def cases(self, subject: Subject, setup: Setup) -> Sequence[Case]:
        """The questions about one organism; none where the truth does not answer it."""

    def check(self, given: Given, answer: Answer) -> None:
        """Refuse an answer that cannot be scored: `ShapeMismatch`, `NotFinite` or `BadInput`."""

    def score(self, case: Case, answer: Answer) -> dict[str, float]:
        """Every metric."""

    def oracle(self, case: Case) -> Answer:
        """The truth as an answer: the first metric is 1."""

    def random(self, given: Given, rng: torch.Generator) -> Answer:
        """An answer by someone who has looked at nothing."""

    def floor(self, case: Case) -> float:
        """What the first metric of `random` is on average, in closed form."""


def expect(answer: Answer, shapes: Mapping[str, tuple[int | None, ...]]) -> None:
    """Check the names, shapes and values of an answer; None stands for any length.

    Raises:
        BadInput: a tensor is missing, or there is another.
        ShapeMismatch: one has another shape.
        NotFinite: one holds NaN or infinity.
    """
    if set(answer) != set(shapes):
        raise BadInput(f"an answer of {', '.join(sorted(answer)) or 'nothing'}", ", ".join(sorted(shapes)))
    for name, shape in shapes.items():
        found = tuple(answer[name].shape)
        if len(found) != len(shape) or any(w not in (None, g) for g, w in zip(found, shape, strict=True)):
            said = ", ".join("any" if n is None else str(n) for n in shape)
            raise ShapeMismatch(f"{name} of shape {found}", f"({said})")
        if answer[name].is_floating_point() and not bool(torch.isfinite(answer[name]).all()):
            raise NotFinite(f"NaN or infinity in {name}", "finite numbers")


def array(x: Tensor) -> np.ndarray:
    """A tensor of an answer as float64."""
    return np.asarray(x.detach().cpu().double().numpy())
