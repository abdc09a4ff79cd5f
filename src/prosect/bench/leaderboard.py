"""From cells to one leaderboard for each task: means with intervals, what they cost, and the best baseline beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from prosect.bench.answers import Cell
from prosect.bench.plan import ORACLE, RANDOM, Plan, task_of
from prosect.bench.statistics import FLIPS, over_seeds, paired
from prosect.bench.task import Metric, Task
from prosect.core.canonical import Json
from prosect.core.families import holm
from prosect.core.records import Measured
from prosect.core.seeds import Seed

Kind = Literal["method", "baseline", "reference"]
Scores = dict[str, list[float]]
"""Organism → a score for each seed."""


@dataclass(frozen=True)
class Against:
    """A method against the best baseline of its task.

    Attributes:
        baseline: which.
        difference: of the first metric, on the same organisms and seeds.
        p: of "there is no difference", by sign flips.
        adjusted: the same after Holm's correction over all methods of the task.
    """

    baseline: str
    difference: Measured
    p: float
    adjusted: float


@dataclass(frozen=True)
class Line:
    """One method.

    Attributes:
        name: of it.
        kind: what it is.
        scores: metric → mean over organisms, with its interval over seeds.
        failed: cases that it failed on; each counts as its floor.
        cases: of how many.
        reasons: why, each once.
        seconds: that it took for a case, mean over those it answered.
        passes: of the network, likewise.
        at_random: whether its interval overlaps that of random answers.
        against: beside the best baseline; None for baselines and references.
        by_organism: organism → mean of the first metric over its seeds.
    """

    name: str
    kind: Kind
    scores: Mapping[str, Measured]
    failed: int
    cases: int
    reasons: tuple[str, ...]
    seconds: float
    passes: float
    at_random: bool
    against: Against | None
    by_organism: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Board:
    """The leaderboard of a task.

    Attributes:
        task: its name.
        metrics: what was measured; the first decides.
        floor: what random answers score on average, in closed form, mean over organisms and seeds.
        lines: the best first; references apart, at the ends.
        organisms: organism → its seeds.
    """

    task: str
    metrics: tuple[Metric, ...]
    floor: float
    lines: tuple[Line, ...]
    organisms: Mapping[str, int]

    def line(self, name: str) -> Line:
        """The line of a method."""
        return next(line for line in self.lines if line.name == name)


def boards(plan: Plan, cells: Sequence[Cell]) -> list[Board]:
    """One leaderboard for each task that anything was asked in."""
    out = []
    for name in plan.tasks:
        mine = [c for c in cells if c.task == name]
        if mine:
            out.append(_board(plan, task_of(name), mine))
    return out


def _board(plan: Plan, task: Task, cells: Sequence[Cell]) -> Board:
    baselines = {m.name for m in plan.methods[task.name] if m.baseline}
    names = [ORACLE, RANDOM, *(m.name for m in plan.methods[task.name])]
    first = task.metrics[0]
    of = {name: [c for c in cells if c.method == name] for name in names}
    scores = {name: _scores(of[name], first.name, True) for name in names}
    means = {name: over_seeds(s, first.low, first.high) for name, s in scores.items()}
    best = max(baselines, key=lambda n: (_value(means[n]), n), default=None)
    chance = means[RANDOM]
    methods = [n for n in names[2:] if n not in baselines]
    seed = Seed(0).child("bench", "flips", task.name)
    beside = (
        {}
        if best is None
        else {n: paired(scores[n], scores[best], seed, first.high - first.low) for n in methods}
    )
    adjusted = dict(zip(beside, holm([p for _, p in beside.values()]).tolist(), strict=True))
    lines = []
    for name in names:
        kind: Kind = (
            "reference" if name in (ORACLE, RANDOM) else "baseline" if name in baselines else "method"
        )
        against = None
        if name in beside and best is not None:
            difference, p = beside[name]
            against = Against(best, difference, p, adjusted[name])
        at_random = name not in (ORACLE, RANDOM) and _overlap(means[name], chance)
        lines.append(_line(name, kind, task, of[name], means[name], at_random, against))
    ordered = sorted(lines, key=lambda n: (n.name == RANDOM, n.name != ORACLE, -_value(n.scores[first.name])))
    floors = [float(np.mean([case["floor"] for case in c.cases.values()])) for c in of[ORACLE]]
    organisms = {o: len(v) for o, v in scores[ORACLE].items()}
    each = {o: [f for f, c in zip(floors, of[ORACLE], strict=True) if c.organism == o] for o in organisms}
    floor = float(np.mean([np.mean(v) for v in each.values()]))
    return Board(task.name, task.metrics, floor, tuple(ordered), organisms)


def _line(
    name: str,
    kind: Kind,
    task: Task,
    cells: Sequence[Cell],
    mean: Measured,
    at_random: bool,
    against: Against | None,
) -> Line:
    cases = [case for c in cells for case in c.cases.values()]
    good = [case for case in cases if case["scores"] is not None]
    rest = {m.name: over_seeds(_scores(cells, m.name, False), m.low, m.high) for m in task.metrics[1:]}
    own = _scores(cells, task.metrics[0].name, True)
    return Line(
        name=name,
        kind=kind,
        scores={task.metrics[0].name: mean, **rest},
        failed=len(cases) - len(good),
        cases=len(cases),
        reasons=tuple(dict.fromkeys(r for c in cells for r in c.failures.values())),
        seconds=float(np.mean([c["seconds"] for c in good])) if good else 0.0,
        passes=float(np.mean([c["passes"] for c in good])) if good else 0.0,
        at_random=at_random,
        against=against,
        by_organism={o: float(np.mean(v)) for o, v in own.items()},
    )


def _scores(cells: Sequence[Cell], metric: str, first: bool) -> Scores:
    out: Scores = {}
    for cell in cells:
        value = cell.score(metric, first)
        if value is not None:
            out.setdefault(cell.organism, []).append(value)
    return out


def _value(measured: Measured) -> float:
    return -np.inf if measured.estimate is None else measured.estimate


def _overlap(a: Measured, b: Measured) -> bool:
    """Whether two intervals share a point; without intervals, whether the first is not above the second."""
    low = a.estimate if a.low is None else a.low
    high = b.estimate if b.high is None else b.high
    return low is None or high is None or low <= high


def content(board: Board) -> dict[str, Json]:
    """A board as JSON."""
    return {
        "task": board.task,
        "metrics": [
            {
                "name": m.name,
                "about": m.about,
                "better": m.better,
                **({"feature": m.feature} if m.feature else {}),
            }
            for m in board.metrics
        ],
        "floor": board.floor,
        "organisms": dict(board.organisms),
        "lines": [
            {
                "name": line.name,
                "kind": line.kind,
                "scores": {k: v.model_dump(mode="json") for k, v in line.scores.items()},
                "by organism": dict(line.by_organism),
                "failed": line.failed,
                "cases": line.cases,
                "reasons": list(line.reasons),
                "seconds": line.seconds,
                "passes": line.passes,
                "overlaps random": line.at_random,
                "against": None
                if line.against is None
                else {
                    "baseline": line.against.baseline,
                    "difference": line.against.difference.model_dump(mode="json"),
                    "p": line.against.p,
                    "p, Holm": line.against.adjusted,
                    "how": FLIPS,
                },
            }
            for line in board.lines
        ],
    }


def rows(board: Board) -> list[dict[str, Json]]:
    """A board as rows for a table that fits a terminal; ``*`` and ``~`` after a name are explained by `MARKS`."""
    out = []
    failed = any(line.failed for line in board.lines)
    for line in board.lines:
        row: dict[str, Json] = {"method": f"{line.name} {_mark(line)}".strip()}
        row[board.metrics[0].name] = shown(line.scores[board.metrics[0].name])
        for m in board.metrics[1:]:  # their intervals are in the JSON and on the page
            value = line.scores[m.name].estimate
            row[m.name] = "–" if value is None else f"{value:.2f}"
        if line.against is not None:
            row[f"beats {line.against.baseline} by"] = shown(line.against.difference, signed=True)
            row["p"] = f"{line.against.adjusted:.3f}"
        if line.kind != "reference":
            row |= {"passes": f"{line.passes:.0f}", "s": f"{line.seconds:.1f}"}
            if failed:
                row["failed"] = f"{line.failed}/{line.cases}" if line.failed else ""
        out.append(row)
    return out


MARKS = "* baseline   ~ its interval overlaps that of random answers   s: seconds a case"


def _mark(line: Line) -> str:
    return "*" * (line.kind == "baseline") + "~" * line.at_random


def shown(measured: Measured, signed: bool = False) -> str:
    """A number with its interval."""
    if measured.estimate is None:
        return "–"
    sign = "+" if signed else ""
    middle = f"{measured.estimate:{sign}.2f}"
    if measured.low is None or measured.high is None:
        return middle
    return f"{middle} [{measured.low:.2f}, {measured.high:.2f}]"
