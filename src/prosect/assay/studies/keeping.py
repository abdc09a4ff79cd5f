"""What the studies share: how descriptions are kept in a run's steps, and how claims and rivals are picked from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Real

from prosect.core.records import Component, Executable, Side
from prosect.core.seeds import Seed
from prosect.core.verdicts import Verdict
from prosect.describe.attribution.surrogates import KNOTS
from prosect.describe.explained import Explained
from prosect.describe.surrogate import surrogates
from prosect.store.shelf import Shelf


def kept(explained: Explained) -> dict[str, Any]:
    """A proposal as JSON."""
    return {
        "description": explained.description.model_dump(mode="json"),
        "found": explained.found,
        "explored": explained.explored,
        "second": None if explained.second is None else explained.second.model_dump(mode="json"),
    }


def cause_of(entry: Mapping[str, Any]) -> Executable:
    """The cause side of what `kept` kept."""
    return Executable.model_validate(entry["description"]["cause"])


def second_of(entry: Mapping[str, Any]) -> Executable | None:
    """What the second document set alone gave."""
    return None if entry["second"] is None else Executable.model_validate(entry["second"])


def beside(
    values: Real[np.ndarray, "n features"],
    activation: Float[np.ndarray, " n"],
    tensor: str,
    seed: Seed,
    shelf: Shelf,
    levels: int = KNOTS,
) -> dict[str, Any]:
    """Readable models of the same inputs, fitted to what a description is of: as JSON, by kind."""
    found = surrogates(values, activation, tensor, seed, levels)
    return {kind: s.executable(shelf).model_dump(mode="json") for kind, s in found.items()}


def stood_beside(entry: Mapping[str, Any] | None) -> list[tuple[str, bool, Executable]]:
    """The baselines that `beside` kept: shown, deciding nothing. None where it was not asked to."""
    found = {} if entry is None else entry["surrogates"]
    return [(f"{kind}-surrogate", False, Executable.model_validate(e)) for kind, e in found.items()]


def nearest(rates: Sequence[float], rate: float, most: int) -> list[int]:
    """Which of some components fire about as often as one does, the nearest first."""
    gaps = [abs(np.log(max(r, 1e-6) / max(rate, 1e-6))) for r in rates]
    return sorted(range(len(gaps)), key=lambda i: (gaps[i], i))[:most]


def newest(found: Mapping[str, Verdict], component: Component, side: Side) -> Verdict | None:
    """The newest of a study's own claims about one side of a component."""
    mine = [
        v
        for v in found.values()
        if v.hypothesis.component.name == component.name and v.hypothesis.side == side
    ]
    return mine[-1] if mine else None


def to_refine(verdict: Verdict | None) -> Verdict | None:
    """A verdict that calls for a better description; None where there is none or it stands."""
    return verdict if verdict is not None and verdict.overall in ("refuted", "inconclusive") else None
