"""What one component's card shows, in one line and opened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from prosect.core.canonical import canonical_json
from prosect.core.exhibits import Exhibit, InputExample, OutputEffect
from prosect.core.records import Description, Executable, Measured, Scope
from prosect.report.axis import axis_for
from prosect.report.claims import Card, Claim
from prosect.report.drawings import axis_row, whisker
from prosect.report.grid import drawable, grids
from prosect.report.marks import linked_marks, row_of_marks
from prosect.report.passages import MOST_EACH, STRATA, Stratum, attention, scale_of, strata
from prosect.report.scatter import MOST as MOST_POINTS
from prosect.report.scatter import scatter
from prosect.report.tally import DRAWS
from prosect.report.text import code, prose, visible
from prosect.report.trials import Trial, trials
from prosect.report.words import LETTERS, WORDS, estimate, levels, number

MOST_EFFECTS = 24
MOST_FACTS = 24
MOST_CLAIMS = 24
SIDES = {"cause": "Cause: when it is active", "effect": "Effect: what it changes"}


@dataclass(frozen=True)
class Summed:
    """One claim in one line."""

    id: str
    marks: Markup
    words: str
    outcome: str
    number: str


@dataclass(frozen=True)
class Heading:
    """The line that stands for a component in the list, and what filters need to know of it."""

    slug: str
    name: str
    about: str
    claims: tuple[Summed, ...]
    earlier: tuple[Summed, ...]
    left_out: int
    outcomes: str
    levels: str
    kind: str
    layer: int
    draw: str
    gap: str
    clearance: str
    order: int


def heading(card: Card) -> Heading:
    """A line for each claim: those that nothing refines, then what they refine; cause before effect."""
    current = sorted(card.current, key=lambda c: (c.hypothesis.side, c.line))
    before = [c for c in card.claims if c.successor is not None]
    shown, earlier = current[:MOST_CLAIMS], before[:MOST_CLAIMS]
    clear = [c.clearance for c in card.claims if c.outcome == "supported" and c.clearance is not None]
    layer = f"layer {card.place.layer}" if card.place.layer >= 0 else ""
    about = [card.place.kind, layer, DRAWS.get(card.draw, "")]
    return Heading(
        slug=card.slug,
        name=prose(card.name, 120),
        about=" · ".join(prose(a, 60) for a in about if a),
        claims=tuple(_summed(c) for c in shown),
        earlier=tuple(_summed(c) for c in earlier),
        left_out=len(card.claims) - len(shown) - len(earlier),
        outcomes=" ".join(sorted(LETTERS[o] for o in card.outcomes)) or "none",
        levels=" ".join(
            sorted(
                {
                    f"{n}{LETTERS[o]}"
                    for c in card.claims
                    for n, o in levels(c.verdict).items()
                    if o != "not tested"
                }
            )
        ),
        kind=prose(card.place.kind, 60),
        layer=card.place.layer,
        draw=card.draw,
        gap="" if card.gap is None else f"{card.gap:.4g}",
        clearance=f"{max(clear):.4g}" if clear else "",
        order=card.order,
    )


def _summed(claim: Claim) -> Summed:
    words = prose(claim.hypothesis.description.words, 240)
    return Summed(claim.id, row_of_marks(claim), words, claim.outcome, _main_number(claim))


def _main_number(claim: Claim) -> str:
    found = claim.evidence.get(claim.main.name) if claim.main else None
    return estimate(found.measured) if found else ""


@dataclass(frozen=True)
class Told:
    """One claim, opened."""

    claim: Claim
    side: str
    words: str
    rule: tuple[tuple[str, str], ...]
    marks: Markup
    outcome: str
    origin: str
    truth: str
    method: tuple[str, ...]
    scope: int
    trials: tuple[Trial, ...]
    explored: tuple[tuple[str, str], ...]


def told(claim: Claim, scopes: Mapping[Scope, int], by_id: Mapping[str, Claim]) -> Told:
    """Everything the ledger says of one claim."""
    h = claim.hypothesis
    origin = f"Round {h.round}, {DRAWS[h.draw]}, by {prose(h.explainer, 60)}"
    parent = by_id.get(h.parent) if h.parent else None
    if parent is not None:
        origin += f"; refines {parent.id}, which in round {parent.hypothesis.round} {_was(parent.outcome)}"
    return Told(
        claim=claim,
        side=SIDES[h.side],
        words=prose(h.description.words, 1200),
        rule=rule(h.description),
        marks=linked_marks(claim),
        outcome=WORDS[claim.outcome],
        origin=origin,
        truth=_truth(claim),
        method=_method(claim),
        scope=scopes[h.scope],
        trials=trials(claim),
        explored=tuple(
            (prose(k, 60), prose(number(v) if isinstance(v, int | float) else v, 120))
            for k, v in sorted(h.explored.items())[:MOST_FACTS]
        ),
    )


def _method(claim: Claim) -> tuple[str, ...]:
    """What the claim's method scored where the truth is known, with the organism's size beside it."""
    return tuple(
        f"{estimate(c.precision)} on {prose(c.organism, 60)}{f', {prose(c.size, 80)}' if c.size else ''}"
        for c in claim.verdict.method[:MOST_FACTS]
    )


def _was(outcome: str) -> str:
    return WORDS[outcome] if outcome == "inconclusive" else f"was {WORDS[outcome]}"


def _truth(claim: Claim) -> str:
    check = claim.verdict.truth
    if check is None:
        return ""
    said = {
        True: "By what is known of this organism, it is true",
        False: "By what is known of this organism, it is false",
        None: "What is known of this organism does not speak of it",
    }[check.holds]
    return f"{said}: {prose(check.why, 300)}" if check.why else f"{said}."


def rule(description: Description) -> tuple[tuple[str, str], ...]:
    """The executable halves as written: kind with version, and parameters."""
    out = []
    for half in (description.cause, description.effect):
        if half is not None:
            out.append((f"{prose(half.kind, 60)}@{half.version}", _parameters(half)))
    return tuple(out)


def _parameters(half: Executable) -> str:
    if isinstance(half.parameters, dict):
        said = "\n".join(
            f"{k} = {canonical_json(v).decode('utf-8', 'replace')}"
            for k, v in sorted(half.parameters.items())
        )
    else:
        said = "" if half.parameters is None else canonical_json(half.parameters).decode("utf-8", "replace")
    held = "\n".join(f"{name} = tensor {digest[:12]}" for name, digest in sorted(half.tensors.items()))
    return code("\n".join(p for p in (said, held) if p), 1500)


@dataclass(frozen=True)
class Effect:
    """One output: what was predicted, what explore showed, and what unseen data said."""

    output: str
    direction: str
    drawing: Markup
    explored: str
    measured: str
    standing: str


def effects(exhibit: Exhibit) -> tuple[tuple[Effect, ...], Markup | None]:
    """Outputs on one axis through zero."""
    found = exhibit.effects[:MOST_EFFECTS]
    if not found:
        return (), None
    values = [e.explored for e in found if e.explored is not None]
    values += [
        v
        for e in found
        if e.measured
        for v in (e.measured.estimate, e.measured.low, e.measured.high)
        if v is not None
    ]
    axis = axis_for(values, zero=True)
    rows = tuple(
        Effect(
            visible(e.output, 60),
            e.direction,
            whisker(axis, e.measured, explored=e.explored),
            "" if e.explored is None else number(e.explored),
            estimate(e.measured),
            _moved(e),
        )
        for e in found
    )
    return rows, axis_row(axis)


def _moved(effect: OutputEffect) -> str:
    m = effect.measured
    if m is None or m.estimate is None:
        return "not measured"
    low, high = _ends(m)
    up, down = low > 0, high < 0
    if not (up or down):
        return "the interval includes 0"
    return "as predicted" if up == (effect.direction == "raises") else "against the prediction"


def _ends(m: Measured) -> tuple[float, float]:
    low = m.low if m.low is not None else float("-inf")
    high = m.high if m.high is not None else float("inf")
    return low, high


@dataclass(frozen=True)
class Inputs:
    """Inputs without tokens, by stratum: the first and the second set."""

    name: str
    first: tuple[InputExample, ...]
    second: tuple[InputExample, ...]


@dataclass(frozen=True)
class Body:
    """What an opened card shows."""

    current: tuple[Told, ...]
    earlier: tuple[Told, ...]
    strata: tuple[Stratum, ...]
    largest: tuple[str, str]
    inputs: tuple[Inputs, ...]
    attention: tuple[tuple[str, Markup], ...]
    scatter: Markup | None
    points: str
    grid: tuple[Markup, Markup, str] | None
    grid_axes: tuple[str, str]
    effects: tuple[Effect, ...]
    effects_axis: Markup | None
    facts: tuple[tuple[str, str], ...]
    agreement: str
    drawn: str


def body(card: Card, exhibit: Exhibit | None, scopes: Mapping[Scope, int]) -> Body:
    """Everything about one component, bounded in every direction."""
    by_id = {c.id: c for c in card.claims}
    claims = sorted(card.claims, key=lambda c: (c.hypothesis.side, c.line))[:MOST_CLAIMS]
    views = [told(c, scopes, by_id) for c in claims]
    x = exhibit
    scale = scale_of(x) if x else None
    drawn, axis = effects(x) if x else ((), None)
    return Body(
        current=tuple(v for v in views if v.claim.successor is None),
        earlier=tuple(v for v in views if v.claim.successor is not None),
        strata=strata(x) if x else (),
        largest=(number(scale.measured), number(scale.predicted)) if scale else ("", ""),
        inputs=_inputs(x.inputs) if x else (),
        attention=tuple((prose(a.source, 80), attention(a)) for a in x.attention[:MOST_EACH]) if x else (),
        scatter=scatter(x.scatter) if x and x.scatter and x.scatter.predicted else None,
        points=_points(x) if x and x.scatter else "",
        grid=grids(x.grid) if x and x.grid and drawable(x.grid) else None,
        grid_axes=(prose(x.grid.rows, 40), prose(x.grid.columns, 40)) if x and x.grid else ("", ""),
        effects=drawn,
        effects_axis=axis,
        facts=_facts(x) if x else (),
        agreement="" if x is None or x.agreement is None else number(float(x.agreement)),
        drawn=prose(x.units_drawn, 200) if x else "",
    )


def _points(exhibit: Exhibit) -> str:
    s = exhibit.scatter
    if s is None:
        return ""
    shown = min(len(s.predicted), MOST_POINTS)
    return f"{shown:,} of {s.population:,}" if s.population else f"{shown:,}"


def _inputs(examples: Sequence[InputExample]) -> tuple[Inputs, ...]:
    out = []
    for name in STRATA:
        here = [e for e in examples if e.stratum == name]
        first = tuple(e for e in here if e.documents == "first")[:MOST_EACH]
        second = tuple(e for e in here if e.documents == "second")[:MOST_EACH]
        if first or second:
            out.append(Inputs(name, first, second))
    return tuple(out)


def _facts(exhibit: Exhibit) -> tuple[tuple[str, str], ...]:
    return tuple(
        (prose(k, 60), prose(number(v) if isinstance(v, bool | int | float) else v, 200))
        for k, v in sorted(exhibit.facts.items())[:MOST_FACTS]
    )
