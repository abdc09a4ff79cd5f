"""What a dose curve holds: the metric, the side effect and the control at every strength."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float
from markupsafe import Markup

from prosect.core.canonical import Json, plain
from prosect.core.markup import card
from prosect.core.records import Measured


@dataclass(frozen=True)
class Dose:
    """One strength. Intervals are over documents.

    Attributes:
        strength: factor on the direction.
        metric: mean over rows.
        change: from strength 0, paired.
        control: change under random directions, mean over them and rows.
        beyond: ``change`` minus ``control``, paired.
        spread: standard deviation of the mean change from one random direction to another; None for one.
        side: KL(model ‖ steered) of the output on the other inputs, nats, mean over scored positions.
        side_control: the same under random directions.
    """

    strength: float
    metric: Measured
    change: Measured
    control: Measured
    beyond: Measured
    spread: float | None
    side: Measured
    side_control: Measured


@dataclass(frozen=True)
class DoseCurve:
    """What a direction does at a site, by strength.

    Attributes:
        model: its name.
        digest: of its configuration and weights.
        site: where it is added.
        length: of the direction.
        stream: mean length of what is at the site, over the steered inputs' scored positions.
        doses: in ascending order of strength; 0 is among them.
        slope: change of the metric for each unit of strength, at the smallest doses on both sides of 0.
        linear: largest strength up to which the curve stays within ``tolerance`` of the line through 0 with that
            slope, on both sides as far as they were asked for.
        tolerance: share of what the line says.
        controls: how many random directions.
        control: what they are, in words.
        others: what the side effect was measured on, in words.
        n: documents.
        seed: of the random directions and the intervals.
    """

    model: str
    digest: str
    site: str
    length: float
    stream: float
    doses: tuple[Dose, ...]
    slope: Measured
    linear: Measured
    tolerance: float
    controls: int
    control: str
    others: str
    n: int
    seed: int
    per_row: Float[np.ndarray, "doses rows"] = field(repr=False, compare=False)

    def table(self) -> list[dict[str, Json]]:
        """One line for each strength."""
        return [
            {
                "strength": d.strength,
                "of the stream": abs(d.strength) * self.length / self.stream if self.stream > 0 else None,
                "metric": d.metric.estimate,
                "low": d.metric.low,
                "high": d.metric.high,
                "change": d.change.estimate,
                "control": d.control.estimate,
                "beyond": d.beyond.estimate,
                "beyond low": d.beyond.low,
                "beyond high": d.beyond.high,
                "side effect": d.side.estimate,
                "side effect of control": d.side_control.estimate,
                "n": self.n,
            }
            for d in self.doses
        ]

    def record(self) -> Json:
        """As plain values."""
        return plain(self)

    def _repr_html_(self) -> Markup:
        rows: list[tuple[str, object]] = [
            (
                f"{d.strength:g}",
                f"{d.metric.estimate or 0:.3g}, random {d.control.estimate or 0:+.3g}, "
                f"side effect {d.side.estimate or 0:.3g} nats",
            )
            for d in self.doses
        ]
        return card(f"steering {self.model} at {self.site}", rows, f"Beside {self.controls} {self.control}.")
