"""How many architectures open: every causal language model type of the installed transformers, built small.

Run with ``python benchmarks/architectures.py [--json PATH] [TYPE ...]``; all types take a few minutes on one core.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from figures import Figure, report
from prosect.core.progress import shown
from prosect.model.coverage import cover


def main() -> int:
    """Measure, print, and say by the exit code whether the bars are reached."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, default=None)
    parser.add_argument("types", nargs="*")
    given = parser.parse_args()
    with shown():
        found = list(cover(given.types or None))
    opened = [one for one in found if one.outcome == "opens"]
    built = [one for one in found if one.outcome != "not built"]
    for one in found:
        if one.outcome != "opens":
            print(f"{one.outcome}: {one.type}: {one.reason}")
    figures = [
        Figure("types", len(found)),
        Figure("types built small", len(built)),
        Figure("types that open", len(opened), bar="" if given.types else ">= 100"),
        Figure("types with an attention interior", sum(one.interior > 0 for one in opened)),
        Figure(
            "largest additive error", max((one.additive or 0.0 for one in opened), default=0.0), bar="<= 1e-4"
        ),
        Figure(
            "largest error of a site served",
            max((one.check or 0.0 for one in opened), default=0.0),
            bar="<= 1e-4",
        ),
        Figure("longest type", max((one.seconds for one in found), default=0.0), "s"),
        Figure(
            "refused without a reason",
            sum(one.outcome != "opens" and not one.reason for one in found),
            bar="<= 0",
        ),
    ]
    return 0 if report(figures, given.json) else 1


if __name__ == "__main__":
    sys.exit(main())
