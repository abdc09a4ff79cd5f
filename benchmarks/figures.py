"""Figures of a benchmark: one table for people, one JSON list for machines."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Figure:
    """One measured number.

    Attributes:
        name: what was measured.
        value: the number.
        unit: its unit, empty for a plain ratio.
        bar: what it must reach, such as ``>= 0.9``; empty where it is shown for comparison only.
    """

    name: str
    value: float
    unit: str = ""
    bar: str = ""

    @property
    def passed(self) -> bool | None:
        """Whether it reaches its bar; None without one."""
        if not self.bar:
            return None
        sign, limit = self.bar.split()
        return self.value >= float(limit) if sign == ">=" else self.value <= float(limit)


def _short(value: float) -> str:
    """Three decimals, or the power of ten of what would be nothing then."""
    return f"{value:.1e}" if 0 < abs(value) < 0.0005 else f"{value:.3f}"


def report(figures: Sequence[Figure], path: Path | None) -> bool:
    """Print the table, write the list if asked; whether every bar was reached."""
    words = {True: "yes", False: "NO", None: ""}
    rows = [("name", "value", "unit", "bar", "pass")]
    rows += [(f.name, _short(f.value), f.unit, f.bar, words[f.passed]) for f in figures]
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    if path is not None:
        content = [
            {"name": f.name, "value": f.value, "unit": f.unit, "bar": f.bar, "pass": f.passed}
            for f in figures
        ]
        path.write_text(json.dumps(content, indent=1) + "\n")
    return all(f.passed is not False for f in figures)
