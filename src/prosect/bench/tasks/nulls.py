"""False discoveries: what methods claim where there is nothing to claim.

*Statistical*: what ties activations to inputs is destroyed, so every claim is false. *Untrained*: the network has random
weights; what is said of its activations may well be true, but not that it was learned. The methods are those of another
task, and their answers are looked at for one thing: of how many components anything is claimed at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from prosect.bench.given import Answer, Given
from prosect.bench.subject import Subject
from prosect.bench.task import Case, Metric, Setup, Task
from prosect.bench.tasks.roles import RoleLabels
from prosect.bench.tasks.rules import TokenRules
from prosect.bench.tasks.waves import Waves
from prosect.core.seeds import Seed
from prosect.core.truth import Truth

Kind = Literal["null", "untrained"]
QUIET = "quiet"
NETWORKS = 2
"""Untrained networks for each organism's seed."""


@runtime_checkable
class Claiming(Task, Protocol):
    """A task whose answers claim something of components, or nothing."""

    def claims(self, answer: Answer) -> Bool[np.ndarray, " n"]:
        """Of which components anything is claimed."""

    def nothing(self, given: Given) -> Answer:
        """The answer that claims nothing."""

    def silence(self, given: Given) -> float:
        """Share of components that a random answer says nothing of, on average."""

    def unlinked(self, given: Given, rng: torch.Generator) -> dict[str, Tensor]:
        """The data with the link between activations and inputs destroyed."""


@dataclass(frozen=True)
class FalseDiscoveries:
    """The methods of a task where there is nothing to find; named after it, with ``-null`` or ``-untrained``.

    Attributes:
        base: the task.
        kind: which null.
    """

    base: Claiming
    kind: Kind
    version: int = 1

    @property
    def name(self) -> str:
        """``roles-null`` and the like."""
        return f"{self.base.name}-{self.kind}"

    @property
    def methods(self) -> str:
        """The task whose methods these are."""
        return self.base.name

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The share of components that nothing is claimed of."""
        return (
            Metric(QUIET, "share of components of which nothing is claimed; the rest are false discoveries"),
        )

    def suits(self, truth: Truth) -> bool:
        """Where the other task does."""
        return self.base.suits(truth)

    def cases(self, subject: Subject, setup: Setup) -> Sequence[Case]:
        """One for each case of the other task, or for each untrained network; the network is kept back."""
        if self.kind == "null":
            return [self._unlinked(case) for case in self.base.cases(subject, setup)]
        if subject.null is None or subject.model is None:
            return ()
        out = []
        for i in range(NETWORKS):
            other = self.base.cases(_opened(subject, i), setup)
            out += [replace(c, name=f"{c.name} {i}".strip(), truth={}) for c in other]
        return out

    def _unlinked(self, case: Case) -> Case:
        rng = Seed(0).child("bench", self.name, case.name).torch()
        given = Given(self.base.unlinked(case.given, rng), case.given.about, seconds=case.given.seconds)
        return Case(case.name, given, {})

    def check(self, given: Given, answer: Answer) -> None:
        """As the other task does."""
        self.base.check(given, answer)

    def score(self, case: Case, answer: Answer) -> dict[str, float]:
        """How much is left unsaid."""
        return {QUIET: float(1.0 - self.base.claims(answer).mean())}

    def oracle(self, case: Case) -> Answer:
        """Nothing."""
        return self.base.nothing(case.given)

    def random(self, given: Given, rng: torch.Generator) -> Answer:
        """As for the other task."""
        return self.base.random(given, rng)

    def floor(self, case: Case) -> float:
        """How much a random answer leaves unsaid."""
        return self.base.silence(case.given)


def _opened(subject: Subject, i: int) -> Subject:
    """The organism with an untrained network in place of its own."""
    from prosect.model import Model

    assert subject.null is not None and subject.model is not None
    module = subject.null(Seed(i).child("bench", "untrained").integer % 2**31)
    inputs = dict(subject.model.example.tensors)
    return replace(
        subject, model=Model.of(module, name="untrained", inputs=inputs, tokenizer=None, check=False)
    )


def roles_null() -> FalseDiscoveries:
    """Roles of heads whose attention is another sequence's."""
    return FalseDiscoveries(RoleLabels(), "null")


def rules_null() -> FalseDiscoveries:
    """Rules of neurons whose activations are another text's."""
    return FalseDiscoveries(TokenRules(), "null")


def waves_null() -> FalseDiscoveries:
    """Frequencies of neurons whose activations are other pairs'."""
    return FalseDiscoveries(Waves(), "null")


def roles_untrained() -> FalseDiscoveries:
    """Roles of the heads of untrained networks."""
    return FalseDiscoveries(RoleLabels(), "untrained")


def rules_untrained() -> FalseDiscoveries:
    """Rules of the neurons of untrained networks."""
    return FalseDiscoveries(TokenRules(), "untrained")


def waves_untrained() -> FalseDiscoveries:
    """Frequencies of the neurons of untrained networks."""
    return FalseDiscoveries(Waves(), "untrained")
