"""Claims against an organism's truth, and the calibration of the method that made them (level 4).

A description is true of a component whose variable is known if it says the same, within a stated
tolerance. Where the truth does not speak of a component the answer is None, never False.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from jaxtyping import Float

from prosect.core.canonical import Json
from prosect.core.errors import BadInput
from prosect.core.intervals import Mean, Resamples
from prosect.core.records import Calibration, Component, Executable, Hypothesis, Measured, Side, TruthCheck
from prosect.core.seeds import Seed
from prosect.core.truth import Truth, Variable

COSINE = 0.9
"""A direction stands for a feature if their cosine is at least this."""
INTERFERENCE = 0.5
"""Further features that a rule names must interfere with the direction at least this share of what the feature that
interferes most does, and with the sign that the rule says."""
PHASE = 0.2
"""Radians by which a phase may be off."""
OVERLAP = 0.5
"""Jaccard overlap of a claimed with a planted set of tokens."""
SHARE = 0.8
"""Share of the claimed outputs that must be among the planted ones."""


def check(
    hypothesis: Hypothesis, truth: Truth, direction: Float[np.ndarray, " width"] | None = None
) -> TruthCheck:
    """Whether a claim is true of an organism.

    Args:
        hypothesis: the claim.
        truth: of the organism it was made about.
        direction: what the component writes, for truths about directions.
    """
    if truth.unknown:
        return TruthCheck(hypothesis=hypothesis.id, holds=None, why="nothing is known of this model")
    side = hypothesis.description.cause if hypothesis.side == "cause" else hypothesis.description.effect
    if side is None:
        raise BadInput(f"hypothesis {hypothesis.id} without a {hypothesis.side} side", "the side it is about")
    component = hypothesis.component
    if side.kind == "input-rule":
        return TruthCheck(hypothesis=hypothesis.id, **_feature(side, component, truth, direction))
    variable = variable_of(component, truth)
    if variable is None:
        return TruthCheck(
            hypothesis=hypothesis.id, holds=None, why="the truth does not speak of this component"
        )
    judge = {
        "head-role": _role,
        "trigonometric": _frequency,
        "trigonometric-output": _frequency_output,
        "token-rule": _tokens,
        "output-sets": _outputs,
    }.get(side.kind)
    if judge is None:
        return TruthCheck(hypothesis=hypothesis.id, holds=None, why=f"no truth for a {side.kind}")
    holds, why = judge(side, variable, hypothesis.side)
    return TruthCheck(hypothesis=hypothesis.id, holds=holds, why=why)


def variable_of(component: Component, truth: Truth) -> Variable | None:
    """What the truth says of a component, found by the site it writes or reads and its number."""
    for site in (*component.writes, *component.reads):
        for index in (component.index, 0):
            found = truth.variable(site, index)
            if found is not None and (index == component.index or ".h" in site):
                return found
    return None


def _role(side: Executable, variable: Variable, which: Side) -> tuple[bool | None, str]:
    real = variable.parameters
    same = side.parameters.get("role") == real.get("role")
    if same and real.get("role") == "offset":
        same = side.parameters.get("offset") == real.get("offset")
    if which == "effect":
        if "matters" not in (variable.effect or {}):
            return None, "the truth does not say whether this head matters"
        matters = bool((variable.effect or {}).get("matters"))
        return matters, f"removing this head {'matters' if matters else 'changes nothing'}"
    if "role" not in real:
        return None, "the truth does not say where this head looks in such words"
    return same, f"the head's role is {real.get('role')}"


def _angle(a: float, b: float) -> float:
    return abs((a - b + math.pi) % (2 * math.pi) - math.pi)


def _frequency(side: Executable, variable: Variable, which: Side) -> tuple[bool, str]:
    if variable.kind != "trigonometric":
        return False, "this neuron follows no single frequency"
    said, real = side.parameters, variable.parameters
    k, first, second = real["frequency"], real["phase_a"], real["phase_b"]
    if said["k"] != k:
        return False, f"its frequency is {k}"
    pairs = [(said["phi"], said["psi"]), (said["phi"] + math.pi, said["psi"] + math.pi)]
    close = any(_angle(x, first) < PHASE and _angle(y, second) < PHASE for x, y in pairs)
    return close, f"frequency {k}, phases {first:.2f} and {second:.2f}"


def _frequency_output(side: Executable, variable: Variable, which: Side) -> tuple[bool, str]:
    real = variable.effect or {}
    if not real or not real.get("amplitude"):
        return False, "this neuron changes no output"
    said = side.parameters
    if said["k"] != real["frequency"]:
        return False, f"its output frequency is {real['frequency']}"
    off = _angle(said["theta"], real["phase"])
    return off < PHASE, f"frequency {real['frequency']}, phase {real['phase']:.2f}"


def _tokens(side: Executable, variable: Variable, which: Side) -> tuple[bool | None, str]:
    if variable.kind not in ("token-rule", "nothing"):
        return None, "the truth does not say in tokens when this neuron fires"
    if variable.kind == "nothing":
        return False, "this neuron follows no short rule"
    real = variable.parameters
    said_now, said_before = rule_tokens(side)
    now = _jaccard(said_now, set(real["current"]))
    words = f"it fires on {len(real['current'])} tokens"
    if real.get("previous"):
        before = _jaccard(said_before, set(real["previous"]))
        return now >= OVERLAP and before >= OVERLAP, f"{words} after {len(real['previous'])} others"
    return now >= OVERLAP and not said_before, words


def rule_tokens(side: Executable) -> tuple[set[int], set[int]]:
    """Tokens that a rule's strongest case asks for at the current and at the previous position."""

    def walk(tree: Json, path: list[tuple[Json, bool]]) -> tuple[float, list[tuple[Json, bool]]]:
        if "value" in tree:
            return float(tree["value"]), path
        return max(
            (
                walk(tree["then"], [*path, (tree["if"], True)]),
                walk(tree["else"], [*path, (tree["if"], False)]),
            ),
            key=lambda found: found[0],
        )

    _, path = walk(side.parameters["tree"], [])
    sets: tuple[set[int], set[int]] = (set(), set())
    for asked, holds in path:
        if holds and asked["what"] == "token" and asked["back"] in (0, 1):
            own = sets[asked["back"]]
            own |= set(asked["tokens"]) if not own else own & set(asked["tokens"])
    return sets


def _jaccard(a: set[int], b: set[int]) -> float:
    return len(a & b) / max(len(a | b), 1)


def _outputs(side: Executable, variable: Variable, which: Side) -> tuple[bool | None, str]:
    if variable.effect is None:
        return None, "the truth does not say what this neuron does to outputs"
    real = variable.effect
    raised, lowered = set(real.get("raises", ())), set(real.get("lowers", ()))
    if not raised and not lowered:
        return False, "this neuron changes no output"
    said_up, said_down = set(side.parameters["raised"]), set(side.parameters["lowered"])
    right = len(said_up & raised) + len(said_down & lowered)
    share = right / max(len(said_up) + len(said_down), 1)
    return share >= SHARE, f"{share:.0%} of the outputs named are among those planted"


def _feature(
    side: Executable, component: Component, truth: Truth, direction: Float[np.ndarray, " width"] | None
) -> Mapping[str, object]:
    known = next((f for f in truth.features if f.site in (*component.writes, *component.reads)), None)
    if known is None or direction is None:
        return {"holds": None, "why": "the truth does not speak of this component"}
    cosines = known.directions @ direction / max(float(np.linalg.norm(direction)), 1e-12)
    named = sorted(
        zip(side.parameters["inputs"], side.parameters["coefficients"], strict=True),
        key=lambda term: -float(term[1]),
    )
    (main, weight), *others = named
    if weight <= 0 or cosines[main] < COSINE:
        return {"holds": False, "why": f"its direction has cosine {cosines[main]:.3f} with feature {main}"}
    rest = np.delete(np.abs(cosines), main)
    for j, c in others:
        if c * cosines[j] <= 0 or abs(cosines[j]) < INTERFERENCE * float(rest.max()):
            return {
                "holds": False,
                "why": f"it stands for feature {main}, but has cosine {cosines[j]:.3f} with feature {j}",
            }
    return {"holds": True, "why": f"its direction has cosine {cosines[main]:.3f} with feature {main}"}


def calibrate(
    method: str,
    side: Side,
    organism: str,
    per_seed: Sequence[tuple[int, int, int, int]],
    *,
    code: str,
    size: str = "",
    kind: str = "",
    components: int | None = None,
    seed: Seed,
) -> Calibration:
    """Error rates of a method over organism seeds.

    Args:
        method: explainer with version.
        side: of the descriptions.
        organism: its name.
        per_seed: for each seed: supported claims, true ones among them, true parts there are to find,
            true parts supported.
        code: digest of the method's source.
        size: of the organism, in words.
        kind: what its components are.
        components: how many there are.
        seed: of the resampling over seeds.
    """
    table = np.array(per_seed, dtype=float).reshape(len(per_seed), 4)
    return Calibration(
        method=method,
        side=side,
        organism=organism,
        supported=int(table[:, 0].sum()),
        true=int(table[:, 1].sum()),
        precision=_rate(table[:, 0], table[:, 1], seed.child("precision")),
        recall=_rate(table[:, 2], table[:, 3], seed.child("recall")),
        seeds=len(per_seed),
        code=code,
        size=size,
        kind=kind,
        components=components,
    )


def _rate(count: Float[np.ndarray, " seeds"], total: Float[np.ndarray, " seeds"], seed: Seed) -> Measured:
    used = count > 0
    if not used.any():
        return Measured(estimate=None, n=0, note="nothing to count")
    sums = np.stack([count[used], total[used]], axis=1)
    return Resamples(len(sums), 1999, seed).measure([sums], Mean(low=0.0, high=1.0)).measured


def tally(checks: Iterable[TruthCheck], supported: Iterable[str]) -> tuple[int, int]:
    """Supported claims that the truth speaks of, and how many of them are true."""
    wanted = set(supported)
    spoken = [c for c in checks if c.hypothesis in wanted and c.holds is not None]
    return len(spoken), sum(bool(c.holds) for c in spoken)
