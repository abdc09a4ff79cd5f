"""`bench`: a run, its leaderboards, and both as files: ``leaderboard.json`` and ``leaderboard.html``."""

from __future__ import annotations

import json
from pathlib import Path

from prosect.bench.leaderboard import Board, boards, content
from prosect.bench.page import page
from prosect.bench.plan import Plan
from prosect.bench.run import run
from prosect.core.progress import say
from prosect.store.atomic import write_bytes

JSON, PAGE = "leaderboard.json", "leaderboard.html"


def bench(plan: Plan, out: Path, jobs: int = 1) -> list[Board]:
    """Run a plan, or what is left of it, and write its leaderboards.

    Args:
        plan: of `prosect.bench.plan.planned`.
        out: the run folder.
        jobs: processes side by side.
    """
    out = Path(out)
    done = run(plan, out, jobs)
    found = boards(plan, done.cells)
    skipped = [{"task": t, "organism": o, "why": why} for (t, o), why in sorted(done.skipped.items())]
    for one in skipped:
        say(f"{one['task']} is not asked on {one['organism']}: {one['why']}")
    record = {
        "suite": plan.suite,
        "sealed": plan.sealed,
        "boards": [content(b) for b in found],
        "skipped": skipped,
    }
    write_bytes(out / JSON, json.dumps(record, indent=1, ensure_ascii=False).encode() + b"\n")
    write_bytes(out / PAGE, page(plan, found).encode())
    return found
