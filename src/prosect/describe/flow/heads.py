"""What comparing the accounts of heads gives."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float
from markupsafe import Markup

from prosect.core.canonical import Json, plain
from prosect.core.errors import BadInput
from prosect.core.markup import card
from prosect.core.records import Measured


@dataclass(frozen=True)
class HeadFlow:
    """One head.

    Attributes:
        head: ``z.L.hN``.
        peak: mean over destinations of the largest probability.
        flow: mean over destinations of the summed lengths, in lengths of the stream.
        patch: mean over destinations of the summed effects, nats.
        control: the same for random vectors of the same lengths.
        beyond: ``patch`` minus ``control``, paired.
        agreement: mean over destinations of the rank correlation over sources (Spearman's) of each pair of
            accounts, ``pattern~flow`` and so on; no estimate where both say the same of every source.
        silent: accounts that are nothing but rounding everywhere.
        disagreements: pairs that disagree by the rule.
        words: what that means.
    """

    head: str
    peak: Measured
    flow: Measured
    patch: Measured
    control: Measured
    beyond: Measured
    agreement: dict[str, Measured]
    silent: tuple[str, ...]
    disagreements: tuple[str, ...]
    words: str


@dataclass(frozen=True, eq=False)
class Flow:
    """Heads side by side.

    Attributes:
        model: its name.
        digest: of its configuration and weights.
        heads: in the order asked for.
        rule: when two accounts disagree.
        control: what the patch effects stand beside.
        by: what took the place of what was moved: nothing (``zero``), or the head's ``mean`` value.
        noise: effect, in nats, of a change of nothing; effects up to twice it count as 0.
        n: documents.
        pairs: (source, destination) pairs of each head.
        passes: edited rows' passes that were run.
        destinations: of each row, real positions.
        values: account → values at every pair; NaN after the destination.
        seed: of destinations, control and intervals.
    """

    model: str
    digest: str
    heads: tuple[HeadFlow, ...]
    rule: str
    control: str
    by: str
    noise: float
    n: int
    pairs: int
    passes: int
    destinations: tuple[tuple[int, ...], ...]
    values: dict[str, Float[np.ndarray, "heads rows slots sources"]] = field(repr=False)
    seed: int = 0

    def __getitem__(self, head: str) -> HeadFlow:
        """One head.

        Raises:
            BadInput: it was not looked at.
        """
        for found in self.heads:
            if found.head == head:
                return found
        raise BadInput(f"head {head!r}, which was not looked at", ", ".join(h.head for h in self.heads))

    def table(self) -> list[dict[str, Json]]:
        """One line for each head."""
        out: list[dict[str, Json]] = []
        for h in self.heads:
            line: dict[str, Json] = {"head": h.head, "peak": h.peak.estimate, "flow": h.flow.estimate}
            line |= {"patch": h.patch.estimate, "low": h.patch.low, "high": h.patch.high}
            line |= {"control": h.control.estimate}
            line |= {pair: found.estimate for pair, found in h.agreement.items()}
            out.append({**line, "disagreement": h.words, "n": self.n})
        return out

    def record(self, rows: int = 1) -> Json:
        """As plain values, with the pairs of some rows."""
        content = {k: getattr(self, k) for k in self.__dataclass_fields__ if k != "values"}
        shown = {
            account: [[_told(slot) for slot in row] for head in x[:, :rows] for row in head]
            for account, x in self.values.items()
        }
        return {**plain(content), "shown": shown, "rows shown": rows}

    def _repr_html_(self) -> Markup:
        return card(f"heads of {self.model}", [(h.head, h.words) for h in self.heads], self.rule)


def _told(x: Float[np.ndarray, " sources"]) -> list[float | None]:
    return [None if np.isnan(value) else float(value) for value in x]
