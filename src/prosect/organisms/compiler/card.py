"""The card of an organism that was compiled: what a reader should know before using it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from markupsafe import Markup

from prosect.core.errors import VerificationFailed
from prosect.core.markup import card


@dataclass(frozen=True)
class Card:
    """What the organism is.

    Attributes:
        organism: its name.
        what: what it computes.
        how: how it was made.
        vocabulary: its tokens.
        length: positions it is made for.
        causal: whether no position sees a later one.
        seed: which variant.
        digest: SHA-256 over its named weights.
        seconds: that building it took, truth included.
        size: in words.
        edges: ablation → how many edges matter under it.
        nulls: names of its nulls.
        metrics: what was measured of it, by name; empty where it is exact.
    """

    organism: str
    what: str
    how: str
    vocabulary: tuple[str, ...]
    length: int
    causal: bool
    seed: int
    digest: str
    seconds: float
    size: str
    edges: Mapping[str, int]
    nulls: tuple[str, ...]
    metrics: Mapping[str, float] = field(default_factory=dict)

    def verify(self, digest: str) -> None:
        """That a network built elsewhere has the same weights.

        Raises:
            VerificationFailed: another hash; both are named.
        """
        if digest != self.digest:
            raise VerificationFailed(
                f"{self.organism}, seed {self.seed}: built {self.digest[:16]}…, recorded {digest[:16]}…"
            )

    def rows(self) -> list[tuple[str, object]]:
        """Name and value of everything, for a table."""
        return [
            ("computes", self.what),
            ("made", self.how),
            ("tokens", " ".join(self.vocabulary)),
            ("length", f"up to {self.length}, {'causal' if self.causal else 'both ways'}"),
            ("size", self.size),
            ("edges that matter", ", ".join(f"{n} under {kind}" for kind, n in self.edges.items())),
            *((name, f"{value:.4g}") for name, value in self.metrics.items()),
            ("nulls", ", ".join(self.nulls)),
            ("seed", self.seed),
            ("hash", self.digest[:16]),
            ("built in", f"{self.seconds:.2f} s"),
        ]

    def _repr_html_(self) -> Markup:
        return card(self.organism, self.rows())
