"""The quick suite of the bench, timed: is the oracle right, are random answers at their floor, what cannot be told from them?

python benchmarks/bench_quick.py [--jobs 2] [--seeds 3] [--json FILE]
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

from figures import Figure, report
from prosect.bench.leaderboard import Board
from prosect.bench.plan import ORACLE, RANDOM, Asked, planned
from prosect.bench.written import bench
from prosect.core.progress import shown


def figures_of(board: Board) -> list[Figure]:
    """Oracle and random answers of one task, and its best method."""
    first = board.metrics[0].name
    random = board.line(RANDOM).scores[first]
    assert random.estimate is not None
    oracle = board.line(ORACLE).scores[first].estimate
    methods = [line for line in board.lines if line.kind == "method"]
    best = max(methods, key=lambda line: line.scores[first].estimate or 0.0)
    marked = [line.name for line in board.lines if line.at_random]
    reach = 0.0 if random.high is None else random.high - random.estimate
    inside = abs(random.estimate - board.floor) <= max(reach, 0.02)
    return [
        Figure(f"{board.task}: oracle, {first}", oracle or 0.0, "", ">= 0.999999"),
        Figure(f"{board.task}: random, floor {board.floor:.3f}", random.estimate),
        Figure(f"{board.task}: random at its floor", float(inside), "", ">= 1"),
        Figure(f"{board.task}: best method, {best.name}", best.scores[first].estimate or 0.0),
        Figure(f"{board.task}: not above random: {', '.join(marked) or 'none'}", len(marked), "methods"),
        Figure(f"{board.task}: failed", sum(line.failed for line in board.lines), "cases", "<= 0"),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    plan = planned(Asked("quick", seeds=asked.seeds))
    with tempfile.TemporaryDirectory() as scratch, shown():
        start = time.perf_counter()
        found = bench(plan, Path(scratch) / "run", asked.jobs)
        took = time.perf_counter() - start
        again = time.perf_counter()
        bench(plan, Path(scratch) / "run", asked.jobs)
        resumed = time.perf_counter() - again
    figures = [
        Figure("the quick suite", took, "s", "<= 600"),
        Figure("answers", plan.cells, "answers"),
        Figure("the same command again", resumed, "s"),
    ]
    for board in found:
        figures += figures_of(board)
    return 0 if report(figures, asked.json) else 1


if __name__ == "__main__":
    sys.exit(main())
