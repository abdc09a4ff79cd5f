"""What every explainer returns: a description, whether there was anything to describe, and how it looked."""

from __future__ import annotations

from dataclasses import dataclass, field

from markupsafe import Markup

from prosect.core.canonical import Json
from prosect.core.markup import card
from prosect.core.records import Description, Executable, Side


@dataclass(frozen=True)
class Explained:
    """A proposal, from explore data alone: a hypothesis has yet to be made of it and tested.

    Attributes:
        description: words, executable and what the explainer wants shown.
        side: whether it says when the component is active, or what it changes.
        method: the explainer with its version, as `Hypothesis.explainer` wants it.
        found: whether the explainer saw anything; if not, the description says so and its executable
            predicts no more than a constant, so that it can still serve as a control.
        explored: the numbers seen on explore, as `Hypothesis.explored` wants them.
        second: what the second of two disjoint document sets alone gives, as the executable; None where
            explore was not divided or nothing of it was looked at.
    """

    description: Description
    side: Side
    method: str
    found: bool
    explored: dict[str, Json] = field(default_factory=dict)
    second: Executable | None = None

    @property
    def executable(self) -> Executable:
        """The half of the description that runs."""
        found = self.description.cause if self.side == "cause" else self.description.effect
        assert found is not None  # every explainer fills its side
        return found

    @property
    def words(self) -> str:
        """The claim as a sentence."""
        return self.description.words

    def _repr_html_(self) -> Markup:
        rows = [(name, _short(value)) for name, value in {**self.explored, **self.description.about}.items()]
        return card(
            self.words,
            [("side", self.side), ("method", self.method), *rows],
            "A proposal from explored data; nothing has been tested.",
        )


def _short(value: Json) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    text = str(value)
    return text if len(text) <= 80 else text[:79] + "…"
