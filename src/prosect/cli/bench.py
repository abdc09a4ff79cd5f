"""`prosect bench`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from prosect.bench.leaderboard import MARKS, content, rows
from prosect.bench.leaderboard import shown as said
from prosect.bench.plan import Asked, Plan, planned
from prosect.bench.written import PAGE, bench
from prosect.cli.show import table
from prosect.core.errors import BadInput
from prosect.core.progress import shown


def command(
    asked: Asked, *, jobs: int | None, out: Path | None, dry_run: bool, as_json: bool, quiet: bool
) -> None:
    """Run the bench, or what is left of it, and print a leaderboard for each task."""
    plan = planned(asked)
    if dry_run:
        table(_planned(plan), as_json=as_json)
        return
    folder = (
        out if out is not None else Path("runs") / f"bench-{plan.suite}{'-sealed' if plan.sealed else ''}"
    )
    with shown(quiet):
        found = bench(plan, folder, jobs or os.cpu_count() or 1)
    if as_json:
        sys.stdout.write(json.dumps([content(b) for b in found], indent=1, ensure_ascii=False) + "\n")
        return
    for board in found:
        organisms = ", ".join(f"{name} ×{n}" for name, n in board.organisms.items())
        table(rows(board), as_json=False, title=f"{board.task}: {organisms}; floor {board.floor:.3f}")
        for line in board.lines:
            for reason in line.reasons:
                sys.stdout.write(f"{line.name} failed: {reason}\n")
        sys.stdout.write("\n")
    sys.stdout.write(f"{MARKS}\n{folder / PAGE}\n")


def calibrated(
    file: Path,
    organisms: tuple[str, ...],
    *,
    seeds: int | None,
    jobs: int | None,
    out: Path | None,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
    others: Sequence[str] = (),
) -> None:
    """Run the loop on organisms, write how often its claims are true, and print it.

    Raises:
        BadInput: an option that says nothing to this; ``others`` are their names.
    """
    from prosect.bench.calibration import ORGANISMS, SEEDS, calibrate, wanted, write

    if others:
        raise BadInput(
            f"--calibrate with {', '.join(others)}",
            "no others than --organism, --seeds, --jobs, --out, --dry-run, --json and --quiet",
        )
    count = SEEDS if seeds is None else seeds
    names = wanted(organisms, count)
    if dry_run:
        plan = [{"organism": n, "runs of the loop": count, "size": ORGANISMS[n].size} for n in names]
        table(plan, as_json=as_json)
        return
    folder = out if out is not None else Path("runs") / "bench-calibrate"
    with shown(quiet):
        made = calibrate(folder, count, names, jobs or os.cpu_count() or 1)
    write(made, file)
    lines = [
        {
            "method": c.method,
            "side": c.side,
            "organism": c.organism,
            "supported": c.supported,
            "precision": said(c.precision),
            "recall": said(c.recall),
            "seeds": c.seeds,
            "components": f"{c.decade} {c.kind}".strip(),
        }
        for c in made
    ]
    table(lines, as_json=as_json)


def _planned(plan: Plan) -> list[dict[str, object]]:
    out: list[dict[str, object]] = []
    for task, entries in plan.methods.items():
        mine = [i for i in plan.instances if task in i.tasks]
        organisms = list(dict.fromkeys(i.organism for i in mine))
        out.append(
            {
                "task": task,
                "organisms": ", ".join(organisms)
                if plan.listed(task)
                else f"those of {len(organisms)} whose truth answers it",
                "seeds": len(mine) // max(len(organisms), 1),
                "methods": ", ".join(e.name for e in entries),
                "answers at most": len(mine) * len(entries),
                "seconds at most": f"{len(mine) * len(entries) * plan.setup.seconds:,.0f}",
            }
        )
    return out
