"""One test of one claim as the page shows it: dots with whiskers on one axis, and the same in numbers."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from prosect.core.records import Comparison, Evidence, TestPlan
from prosect.core.verdicts import Outcome, TestVerdict
from prosect.report.axis import Axis, axis_for
from prosect.report.claims import Claim, explored_key
from prosect.report.drawings import axis_row, whisker
from prosect.report.text import prose
from prosect.report.words import LEVELS, UNITS, WORDS, chance, count, estimate, number, short

MOST_RIVALS = 16
MOST_TRIALS = 16


@dataclass(frozen=True)
class Line:
    """One row: who was measured, the drawing, the number, and how the component stands to it."""

    name: str
    role: str
    drawing: Markup
    value: str
    against: str = ""


@dataclass(frozen=True)
class Trial:
    """A registered test, run or not; or a re-estimate on the sealed split, which decides nothing.

    Attributes:
        anchor: its id on the page, where a level mark leads.
        title: level and name.
        sentence: the verdict in words.
        facts: p-values, units, fold: short pairs.
        lines: the figure's rows; empty if the test was not run.
    """

    anchor: str
    title: str
    metric: str
    outcome: Outcome
    sentence: str
    facts: tuple[tuple[str, str], ...]
    lines: tuple[Line, ...]
    axis: Markup | None
    left_out: int = 0


def trials(claim: Claim) -> tuple[Trial, ...]:
    """Every test that a claim registered, in order, then re-estimates on the sealed split."""
    out = []
    for k, plan in enumerate(claim.hypothesis.tests):
        verdict = claim.verdict.tests[plan.name]
        out.append(_trial(claim, plan, verdict, claim.evidence.get(plan.name), f"{claim.anchor}-{k}"))
    registered = {plan.name: plan for plan in claim.hypothesis.tests}
    for name, found in claim.evidence.items():
        if name not in registered:
            out.append(_sealed(claim, registered.get(name.removesuffix("@sealed")), found, len(out)))
    return tuple(out[:MOST_TRIALS])


def anchor_of(claim: Claim, level: int) -> str:
    """Where the mark of a level leads: its first test, the calibrations for 4, else the claim."""
    if level == 4:
        return "method"
    for k, plan in enumerate(claim.hypothesis.tests):
        if plan.level == level:
            return f"{claim.anchor}-{k}"
    return claim.anchor


def sentence(level: int | None, verdict: TestVerdict) -> str:
    """The verdict of one test in words that follow its state."""
    where = "" if level is None else f" at level {level}"
    why = f": {prose(verdict.why, 200)}" if verdict.why else ""
    match verdict.outcome:
        case "supported" | "refuted":
            said = f"{WORDS[verdict.outcome].capitalize()}{where}{why}"
        case "inconclusive":
            said = f"Could not be judged{where}{why}"
        case _:
            said = f"Registered and not tested{where}"
    return f"{said}." if level is not None else f"{said}. Belongs to no level and decides nothing."


def _trial(claim: Claim, plan: TestPlan, verdict: TestVerdict, found: Evidence | None, anchor: str) -> Trial:
    level = "Beside the levels" if plan.level is None else f"Level {plan.level} · {LEVELS[plan.level][0]}"
    name = prose(plan.name, 80)
    key = explored_key(plan, claim.hypothesis.explored)
    explored = None if key is None else float(claim.hypothesis.explored[key])
    facts = [
        ("p", chance(verdict.p)),
        ("after Holm", chance(verdict.holm)),
        ("q, exploratory", chance(verdict.q)),
    ]
    facts = [f for f in facts if f[1] != "–"]
    if found is not None:
        firing = f", active in {found.firing:,}" if found.firing else ""
        facts.append(("units", f"{count(found.units, UNITS[plan.unit])}{firing}"))
    facts.append(("test", name))
    facts.append(("asked for", f"{plan.units_min:,} units{_firing(plan)}"))
    facts.append(("fold", prose(plan.fold, 60)))
    facts.append(("smallest p possible", chance(plan.smallest_p)))
    if found is not None and found.note and found.note != verdict.why:
        facts.append(("note", prose(found.note, 300)))
    lines, axis = _lines(found, explored)
    return Trial(
        anchor=anchor,
        title=level,
        metric=prose(plan.metric, 200),
        outcome=verdict.outcome,
        sentence=sentence(plan.level, verdict),
        facts=tuple(facts),
        lines=lines,
        axis=axis,
        left_out=max(0, len(found.comparisons) - MOST_RIVALS) if found else 0,
    )


def _sealed(claim: Claim, plan: TestPlan | None, found: Evidence, k: int) -> Trial:
    lines, axis = _lines(found, None)
    return Trial(
        anchor=f"{claim.anchor}-{k}",
        title=f"Sealed split: {prose(found.test.removesuffix('@sealed'), 80)}",
        metric=prose(plan.metric, 200) if plan else "",
        outcome="not tested",
        sentence="Measured again on the sealed split; this decides nothing.",
        facts=(("units", f"{found.units:,}"),),
        lines=lines,
        axis=axis,
    )


def _firing(plan: TestPlan) -> str:
    return f", {plan.firing_min:,} of them active" if plan.firing_min else ""


def _lines(found: Evidence | None, explored: float | None) -> tuple[tuple[Line, ...], Markup | None]:
    if found is None:
        return (), None
    own = found.measured
    rivals = found.comparisons[:MOST_RIVALS]
    axis = _axis(found, rivals, explored)
    beside = f"explore promised {number(explored)}" if explored is not None else ""
    lines = [Line("this component", "", whisker(axis, own, explored=explored), estimate(own), beside)]
    for c in rivals:
        bar = None if c.measured.estimate is None else c.measured.estimate + c.margin
        drawing = whisker(axis, c.measured, shape=c.role, bar=bar, line=own.estimate)
        role = c.role if c.decides else f"{c.role}, shown only"
        lines.append(Line(prose(c.rival, 120), role, drawing, estimate(c.measured), standing(c)))
    return tuple(lines), axis_row(axis)


def _axis(found: Evidence, rivals: tuple[Comparison, ...], explored: float | None) -> Axis:
    values = [explored] if explored is not None else []
    for m in (found.measured, *(c.measured for c in rivals)):
        values += [v for v in (m.estimate, m.low, m.high) if v is not None]
    values += [c.measured.estimate + c.margin for c in rivals if c.measured.estimate is not None]
    return axis_for(values)


def standing(c: Comparison) -> str:
    """How the component stands to a rival: the paired difference, and the margin it had to clear."""
    d = c.difference
    if d.estimate is None:
        return d.note or "no difference could be computed"
    gap = f"{'+' if d.estimate > 0 else ''}{estimate(d)}"
    if not c.decides:
        return gap
    if d.low is not None and d.low > c.margin:
        verb = "clears"
    elif d.high is not None and d.high <= c.margin:
        verb = "does not clear"
    else:
        verb = "undecided at"
    return f"{gap}, {verb} {short(c.margin)}"
