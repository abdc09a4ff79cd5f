"""A finished run as an object: where it is, what it found, and how to look at it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from prosect.core.records import Record
from prosect.core.verdicts import Verdict, verdicts
from prosect.store.ledger import Head, read
from prosect.store.verify import verify


@dataclass(frozen=True)
class Run:
    """A run folder that was made.

    Attributes:
        path: the folder.
        head: count and hash of its ledger.
        fresh: whether this call made it; False if it was there already.
    """

    path: Path
    head: Head
    fresh: bool = True

    @property
    def report(self) -> Path:
        """The page to open in a browser."""
        return self.path / "report.html"

    @cached_property
    def records(self) -> list[Record]:
        """Every record of the ledger."""
        return list(read(self.path / "ledger.jsonl"))

    @cached_property
    def verdicts(self) -> dict[str, Verdict]:
        """Every hypothesis with its verdict."""
        return verdicts(self.records)

    def verify(self, head: str | None = None) -> Head:
        """Check the ledger.

        Raises:
            VerificationFailed: it does not hold.
        """
        return verify(self.path, head)

    def _repr_html_(self) -> str:
        from prosect.report import run_card

        return run_card(self.path)
