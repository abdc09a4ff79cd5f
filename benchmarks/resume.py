"""A run killed with SIGKILL at random moments and started again ends like one that was never killed.

Each of the runs is killed once, at a moment drawn uniformly from the time that the unharmed run took, and then
started again with the same command until it is done. ``metrics.json`` and the ledger's head hash must be the same.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from figures import Figure, report
from prosect.core.seeds import Seed

PROSECT = [sys.executable, "-c", "from prosect.cli import run; run()"]


def start(target: str, out: Path, home: Path) -> subprocess.Popen[bytes]:
    """The run as a child process."""
    environment = {**os.environ, "PROSECT_HOME": str(home)}
    return subprocess.Popen(
        [*PROSECT, "run", target, "--out", str(out), "--quiet"], stdout=subprocess.DEVNULL, env=environment
    )


def end(out: Path) -> tuple[bytes, str]:
    """Metrics and head hash of a finished run."""
    return (out / "metrics.json").read_bytes(), json.loads((out / "done.json").read_text())["head"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", default="induction", help="preset or spec file")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rng = Seed(options.seed).child("moments").numpy()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        begun = time.perf_counter()
        assert start(options.target, folder / "whole", folder / "home").wait() == 0
        took = time.perf_counter() - begun
        whole = end(folder / "whole")
        same = killed = 0
        for number in range(options.kills):
            out = folder / f"killed{number}"
            child = start(options.target, out, folder / "home")
            try:
                child.wait(timeout=float(rng.uniform(0.02, 0.98)) * took)
            except subprocess.TimeoutExpired:
                child.send_signal(signal.SIGKILL)
                child.wait()
                killed += 1
            assert start(options.target, out, folder / "home").wait() == 0
            same += end(out) == whole
            shutil.rmtree(out)
    figures = [
        Figure("seconds of a run that was not killed", took, "s"),
        Figure("runs that were killed before they were done", killed, "runs"),
        Figure("runs that ended with the same metrics and head", same, "runs", f">= {options.kills}"),
    ]
    report(figures, options.json)


if __name__ == "__main__":
    main()
