"""One method on one organism: every case answered, checked and scored; what goes wrong is written down, and only that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from prosect.bench.given import Answer
from prosect.bench.handover import Order
from prosect.bench.isolation import Isolated
from prosect.bench.plan import ORACLE, RANDOM, Entry
from prosect.bench.task import Case, Task
from prosect.core.canonical import Json
from prosect.core.errors import BadInput, ProsectError
from prosect.core.seeds import Seed

DRAWS = 50
"""Random answers that the reference's score is the mean of."""


@dataclass(frozen=True)
class Cell:
    """What came of one method on one organism of one seed.

    Attributes:
        task, organism, seed, method: which.
        cases: case → ``scores`` (None where it failed), ``floor``, ``reason``, ``passes``, ``seconds``.
    """

    task: str
    organism: str
    seed: str
    method: str
    cases: dict[str, dict[str, Json]]

    def score(self, metric: str, first: bool) -> float | None:
        """Mean over cases; a case that failed counts as its floor where the metric has one, and else as nothing."""
        values = []
        for case in self.cases.values():
            if case["scores"] is not None:
                values.append(case["scores"][metric])
            elif first:
                values.append(case["floor"])
        return float(np.mean(values)) if values else None

    @property
    def failures(self) -> dict[str, str]:
        """Case → why it failed."""
        return {name: case["reason"] for name, case in self.cases.items() if case["scores"] is None}

    def record(self) -> dict[str, Json]:
        """For the ledger: everything but seconds, which no two runs agree on."""
        return {
            "task": self.task,
            "organism": self.organism,
            "seed": self.seed,
            "method": self.method,
            "cases": {
                name: {k: v for k, v in case.items() if k != "seconds"} for name, case in self.cases.items()
            },
        }


def answered(
    task: Task, cases: Sequence[Case], entry: Entry, seed: Seed, isolated: Isolated, withheld: tuple[str, ...]
) -> dict[str, dict[str, Json]]:
    """Run a method on every case, in a process of its own."""
    out: dict[str, dict[str, Json]] = {}
    order = Order(entry.where, seed.integer, withheld)
    for case in cases:
        ran = isolated.run(case.given, order)
        scores, reason = None, ran.reason
        if ran.answer is not None:
            scores, reason = _scored(task, case, ran.answer)
        out[case.name] = _line(task, case, scores, reason, ran.passes, ran.seconds)
    return out


def referred(task: Task, cases: Sequence[Case], name: str, seed: Seed) -> dict[str, dict[str, Json]]:
    """The scores of a reference."""
    out: dict[str, dict[str, Json]] = {}
    for case in cases:
        if name == ORACLE:
            answers = [task.oracle(case)]
        else:
            assert name == RANDOM
            answers = [task.random(case.given, seed.child(case.name, i).torch()) for i in range(DRAWS)]
        found = []
        for answer in answers:
            task.check(case.given, answer)
            found.append(task.score(case, answer))
        scores = {m.name: float(np.mean([f[m.name] for f in found])) for m in task.metrics}
        out[case.name] = _line(task, case, scores, "", 0, 0.0)
    return out


def _scored(task: Task, case: Case, answer: Answer) -> tuple[dict[str, float] | None, str]:
    try:
        task.check(case.given, answer)
        scores = task.score(case, answer)
    except (ProsectError, BadInput) as error:
        return None, f"{type(error).__name__}: {error}"
    return scores, ""


def _line(
    task: Task, case: Case, scores: dict[str, float] | None, reason: str, passes: int, seconds: float
) -> dict[str, Json]:
    return {
        "scores": scores,
        "floor": task.floor(case),
        "reason": reason,
        "passes": passes,
        "seconds": seconds,
    }
