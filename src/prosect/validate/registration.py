"""Registering a round: every claim frozen, the family closed, before any test of it opens.

The run's error budget (.05) is divided evenly over the rounds that the spec plans, so that all rounds
together stay within it; a refined hypothesis spends its lineage's share of the next round.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from prosect.core.errors import BadInput, Conflict, TooLittleData
from prosect.core.families import draws_needed
from prosect.core.records import Family, Hypothesis, TestPlan
from prosect.validate.subject import Subject

ALPHA = 0.05
UNITS_FLOOR = 40
"""No plan may ask for fewer units: below this, intervals on skewed data no longer cover."""
FIRING_FLOOR = 20
RANKED = frozenset({"learned"})
"""Tests whose smallest p is set by the size of a pool, not by resampling."""


def register(
    drafts: Sequence[tuple[Hypothesis, Subject]],
    *,
    round: int,
    rounds: int,
    known: Mapping[str, Hypothesis],
) -> tuple[list[Hypothesis], Family]:
    """Freeze the drafts of a round.

    The number of resamples is raised to what the corrected threshold needs.

    Args:
        drafts: the claims, each with what it is about; their plans' ``draws`` are a lower bound.
        round: of the loop, from 1.
        rounds: how many the spec plans.
        known: every hypothesis registered before, by id.

    Returns:
        The frozen hypotheses and their family, to be appended in this order.

    Raises:
        BadInput: nothing to register, a claim without a test, a test that could not reach its corrected
            threshold, or an unknown parent.
        TooLittleData: a fold has fewer units than a plan asks for, or a plan asks for too few.
        Conflict: a component's claim is made again without naming the one it refines, or a lineage's
            fold was opened before.
        OutOfScope: a claim names another model or data.
    """
    if not drafts:
        raise BadInput(f"no claim in round {round}", "at least one")
    if round > rounds:
        raise BadInput(f"round {round} of {rounds}", "no more rounds than the error budget was divided over")
    alpha = ALPHA / rounds
    tests = sum(len(d.tests) for d, _ in drafts)
    needed = draws_needed(tests, alpha)
    frozen: list[Hypothesis] = []
    for draft, subject in drafts:
        subject.check_scope(draft)
        if not draft.tests:
            raise BadInput(f"the claim {draft.description.words!r} without a test", "at least one test")
        plans = tuple(_frozen_plan(p, subject, tests, alpha, needed) for p in draft.tests)
        frozen.append(draft.model_copy(update={"round": round, "tests": plans}))
    _check_lineages(frozen, known)
    return frozen, Family(round=round, alpha=alpha, hypotheses=tuple(h.id for h in frozen), tests=tests)


def _frozen_plan(plan: TestPlan, subject: Subject, tests: int, alpha: float, needed: int) -> TestPlan:
    if plan.fold not in subject.source.units:
        raise BadInput(f"fold {plan.fold!r}", f"one of {', '.join(subject.source.units)}")
    if not plan.fold.startswith("validate."):
        raise BadInput(
            f"a test on {plan.fold!r}", "a fold of validate: explore was looked at, sealed is for the end"
        )
    if plan.units_min < UNITS_FLOOR:
        raise TooLittleData(f"a test asking for {plan.units_min} units", f"at least {UNITS_FLOOR}")
    if plan.kind in RANKED:
        if plan.smallest_p > alpha / tests:
            raise BadInput(
                f"a rank test whose smallest p is {plan.smallest_p:.2g}",
                f"one that can reach {alpha / tests:.2g} after correction over {tests} tests",
                "more untrained networks, or fewer claims",
            )
        return plan
    return plan.model_copy(update={"draws": max(plan.draws, needed)})


def _check_lineages(frozen: Sequence[Hypothesis], known: Mapping[str, Hypothesis]) -> None:
    seen: dict[tuple[str, str, str], str] = {}
    for h in known.values():
        seen.setdefault((h.component.name, h.side, h.explainer), h.id)
    ids: set[str] = set(known)
    for h in frozen:
        if h.id in ids:
            raise Conflict(f"hypothesis {h.id} registered twice", "each claim once")
        ids.add(h.id)
        if h.parent is None:
            before = seen.get((h.component.name, h.side, h.explainer))
            if before is not None and known[before].round != h.round:
                raise Conflict(
                    f"a new claim about the {h.side} of {h.component.name}",
                    f"the hypothesis it refines as its parent ({before} or a descendant)",
                    "naming the parent: a lineage has one error budget",
                )
        elif h.parent not in known:
            raise BadInput(f"parent {h.parent}", "the id of a registered hypothesis")
        opened = {p.fold for a in _ancestors(h, known) for p in a.tests}
        again = opened & {p.fold for p in h.tests}
        if again:
            raise Conflict(
                f"hypothesis {h.id} on {min(again)}, which its lineage opened before",
                "a fold it has not seen",
            )


def _ancestors(h: Hypothesis, known: Mapping[str, Hypothesis]) -> list[Hypothesis]:
    out: list[Hypothesis] = []
    while h.parent is not None and h.parent in known:
        h = known[h.parent]
        out.append(h)
    return out
