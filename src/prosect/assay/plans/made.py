"""What all test plans share: the spec's sizes, a seed of their own, and rivals in short."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from prosect.assay.spec import Spec
from prosect.core.records import Component, Executable, Rival, TestPlan
from prosect.core.seeds import Seed
from prosect.validate import measured

DRAWS = 999
"""A lower bound; registration raises it."""

Fitted = tuple[Component, Executable]
"""A control component with the description that the same explainer found for it."""


def plan(spec: Spec, fold: str, unit: str, *, level: int = 1, **given: Any) -> TestPlan:
    """A plan on one fold; the test's seed depends on the run's and on the test's name alone.

    Args:
        spec: the run's.
        fold: to be opened.
        unit: what is resampled: ``cluster`` or ``input``.
        level: of evidence.
        given: the plan's own fields.
    """
    return TestPlan(
        unit=unit,
        level=level,
        units_min=spec.validate_.units_min,
        draws=DRAWS,
        fold=fold,
        seed=Seed(spec.seed).child("test", given["name"]).integer,
        **given,
    )


def measurement(spec: Spec, fold: str, unit: str, name: str, metric: str, *rivals: Rival) -> TestPlan:
    """A plan for a claim that is measured as it stands; rivals without a description are left out."""
    some = tuple(r for r in rivals if r.descriptions)
    return plan(spec, fold, unit, name=name, kind=measured.KIND, metric=metric, rivals=some)


def control(name: str, margin: float, *descriptions: Executable) -> Rival:
    """Descriptions in which what is claimed was taken away; they must be beaten by the margin."""
    return Rival(name=name, role="control", margin=margin, descriptions=descriptions)


def baseline(name: str, margin: float, *descriptions: Executable) -> Rival:
    """A plainer account that must be beaten by the margin."""
    return Rival(name=name, role="baseline", margin=margin, descriptions=descriptions)


def aside(rival: Rival) -> Rival:
    """The same rival, shown and deciding nothing."""
    return rival.model_copy(update={"decides": False, "margin": 0.0})


def fitted(name: str, members: Sequence[Fitted], margin: float) -> Rival:
    """Control components, each with the description that the same explainer found for it."""
    return Rival(
        name=name,
        role="control",
        margin=margin,
        components=tuple(c for c, _ in members),
        descriptions=tuple(e for _, e in members),
    )
