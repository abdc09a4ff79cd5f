"""What one way of examining a model must offer to the loop.

A study decomposes and describes on explore, drafts claims for a round, and shows what it saw. It never
tests: the loop hands its drafts to `prosect.validate`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from prosect.assay.work import Extent, Planned
from prosect.core.exhibits import Exhibit, FigureTable, SiteCell
from prosect.core.pictures import Picture
from prosect.core.records import Hypothesis, TruthCheck
from prosect.core.verdicts import Verdict
from prosect.validate.subject import Subject
from prosect.validate.tester import Illustrations


@dataclass(frozen=True)
class Shown:
    """What a study adds to the report.

    Attributes:
        exhibits: one for each component examined.
        map: places of the model, examined or not.
        tables: figures that belong to no single claim.
        pictures: what explore looked like.
        decisions: what was decided for the user.
        limits: what could not be ruled out.
    """

    exhibits: Sequence[Exhibit] = ()
    map: Sequence[SiteCell] = ()
    tables: Sequence[FigureTable] = ()
    pictures: Sequence[Picture] = ()
    decisions: Sequence[str] = ()
    limits: Sequence[str] = ()
    metrics: Mapping[str, float | None] = field(default_factory=dict)


@runtime_checkable
class Study(Protocol):
    """One way of examining one model."""

    name: str
    subject: Subject

    def explore(self) -> None:
        """Decompose and describe, on explore only; every result is a step of the run folder."""

    def planned(self, parts: Mapping[str, Extent]) -> Planned:
        """What exploring and testing will run, without running more than a few passes.

        Args:
            parts: how much there is of each part of the data.
        """

    def draft(self, round: int, fold: str, found: Mapping[str, Verdict]) -> list[Hypothesis]:
        """The claims of a round: first descriptions in round 1, refinements of what failed after it.

        Args:
            round: of the loop, from 1.
            fold: which will be opened.
            found: every hypothesis so far with its verdict.
        """

    def check(self, hypothesis: Hypothesis) -> TruthCheck | None:
        """What the organism's truth says of a claim; None without truth."""

    def show(self, found: Mapping[str, Verdict], seen: Illustrations) -> Shown:
        """What the report should show."""
