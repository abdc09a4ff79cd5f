"""What follows from the evidence: one pure function of the ledger, never stored.

draft → registered → tested; then for each level supported / refuted / inconclusive / not tested. Levels
are a set: none implies another.

- supported: Holm over every test that the round registered, at the share of the error budget that the
  round was given.
- refuted: not supported, and the 95 % interval of its difference to some deciding rival lies below the
  margin it agreed to clear.
- inconclusive: neither, or fewer units than it asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from prosect.core.families import benjamini_hochberg, holm
from prosect.core.records import (
    Calibration,
    Evidence,
    Family,
    Hypothesis,
    Record,
    TestPlan,
    TruthCheck,
)

Outcome = Literal["supported", "refuted", "inconclusive", "not tested"]
State = Literal["draft", "registered", "tested"]
LEVEL_FOUR_FLOOR = 0.8


@dataclass(frozen=True)
class TestVerdict:
    """What one test says: the outcome, its p as measured, after Holm, and the exploratory q."""

    __test__ = False

    outcome: Outcome
    p: float | None = None
    holm: float | None = None
    q: float | None = None
    why: str = ""


@dataclass(frozen=True)
class Verdict:
    """Where one hypothesis stands.

    Attributes:
        tests: by the plan's name.
        levels: 1, 2, 3 and 5 as far as the hypothesis has tests for them.
        overall: over the tests that belong to a level (over all, where none does): supported if every one
            is, refuted if any is, else inconclusive or not tested.
        truth: what the organism's truth says, where there is one.
        method: level 4: the calibrations of the method that made the claim.
        earned: whether level 4 is earned: some calibration of this method on this side has a precision
            whose interval starts at .8 or above, and none lies wholly below it.
    """

    hypothesis: Hypothesis
    state: State
    tests: Mapping[str, TestVerdict] = field(default_factory=dict)
    levels: Mapping[int, Outcome] = field(default_factory=dict)
    overall: Outcome = "not tested"
    truth: TruthCheck | None = None
    method: tuple[Calibration, ...] = ()
    earned: bool = False


def combine(outcomes: Iterable[Outcome]) -> Outcome:
    """Several tests that must all pass."""
    found = list(outcomes)
    if not found or "not tested" in found:
        return "refuted" if "refuted" in found else "not tested"
    for outcome in ("refuted", "inconclusive"):
        if outcome in found:
            return "refuted" if outcome == "refuted" else "inconclusive"
    return "supported"


def judge(plan: TestPlan, evidence: Evidence | None, adjusted: float, q: float, alpha: float) -> TestVerdict:
    """One test's verdict, given its p-values after correction over its family."""
    if evidence is None:
        return TestVerdict("not tested")
    if not evidence.enough:
        return TestVerdict("inconclusive", evidence.p, adjusted, q, evidence.note or "too few units")
    if evidence.p is not None and adjusted <= alpha:
        return TestVerdict("supported", evidence.p, adjusted, q)
    for c in evidence.comparisons:
        if c.decides and c.difference.high is not None and c.difference.high <= c.margin:
            return TestVerdict(
                "refuted", evidence.p, adjusted, q, f"does not exceed {c.rival} by {c.margin:g}"
            )
    return TestVerdict("inconclusive", evidence.p, adjusted, q, "the interval includes the margin")


def verdicts(records: Iterable[Record]) -> dict[str, Verdict]:
    """Every hypothesis of a ledger with its verdict, in order of registration."""
    hypotheses: dict[str, Hypothesis] = {}
    evidence: dict[tuple[str, str], Evidence] = {}
    truths: dict[str, TruthCheck] = {}
    calibrations: list[Calibration] = []
    families: list[Family] = []
    for record in records:
        match record:
            case Hypothesis():
                hypotheses[record.id] = record
            case Evidence():
                evidence.setdefault((record.hypothesis, record.test), record)  # the first opening counts
            case TruthCheck():
                truths[record.hypothesis] = record
            case Calibration():
                calibrations.append(record)
            case Family():
                families.append(record)
            case _:
                pass

    judged: dict[str, dict[str, TestVerdict]] = {}
    for family in families:
        plans = [(hid, plan) for hid in family.hypotheses for plan in hypotheses[hid].tests]
        p = [_p_of(evidence.get((hid, plan.name))) for hid, plan in plans]
        adjusted, q = holm(p, family.tests), benjamini_hochberg(p, family.tests)
        for i, (hid, plan) in enumerate(plans):
            found = judge(plan, evidence.get((hid, plan.name)), float(adjusted[i]), float(q[i]), family.alpha)
            judged.setdefault(hid, {})[plan.name] = found

    out: dict[str, Verdict] = {}
    for hid, hypothesis in hypotheses.items():
        tests = judged.get(hid, {plan.name: TestVerdict("not tested") for plan in hypothesis.tests})
        by_level: dict[int, list[Outcome]] = {}
        for plan in hypothesis.tests:
            if plan.level is not None:
                by_level.setdefault(plan.level, []).append(tests[plan.name].outcome)
        method = tuple(
            c for c in calibrations if c.method == hypothesis.explainer and c.side == hypothesis.side
        )
        tested = any(t.outcome != "not tested" for t in tests.values())
        out[hid] = Verdict(
            hypothesis=hypothesis,
            state="tested" if tested else "registered",
            tests=tests,
            levels={level: combine(found) for level, found in sorted(by_level.items())},
            overall=combine(_deciding(hypothesis, tests)),
            truth=truths.get(hid),
            method=method,
            earned=earns_level_four(method),
        )
    return out


def earns_level_four(method: Iterable[Calibration]) -> bool:
    """Whether a method's precision on organisms reaches the floor with its whole interval."""
    measured = [c.precision for c in method]
    reach = [m.low is not None and m.low >= LEVEL_FOUR_FLOOR for m in measured]
    below = [m.high is not None and m.high < LEVEL_FOUR_FLOOR for m in measured]
    return any(reach) and not any(below)


def _deciding(hypothesis: Hypothesis, tests: Mapping[str, TestVerdict]) -> list[Outcome]:
    """The outcomes of the tests that belong to a level; of all tests where none does."""
    leveled = [tests[p.name].outcome for p in hypothesis.tests if p.level is not None]
    return leveled or [t.outcome for t in tests.values()]


def _p_of(evidence: Evidence | None) -> float:
    """The p that enters the correction: 1 where a test gave none or had too little to go on."""
    if evidence is None or evidence.p is None or not evidence.enough:
        return 1.0
    return evidence.p
