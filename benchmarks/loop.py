"""What `prosect run` takes and finds on every preset, each run as a user would run it: a process of its own.

Wall time and peak memory are the child's, so they include starting Python. Truths and verdicts are read from the
run's own ledger and metrics. Machines differ, and one machine differs from hour to hour: before and after every run
the bare model makes the same passes, and what the run took is also said in these.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from figures import Figure, report
from prosect.core.records import Evidence
from prosect.core.verdicts import Verdict, verdicts
from prosect.store.ledger import read

SECONDS = {"pylm": 180, "superposition": 120, "induction": 30, "modular": 30, "planted": 30}
PROSECT = [sys.executable, "-c", "from prosect.cli import run; run()"]


def timed(arguments: Sequence[str]) -> tuple[float, float]:
    """Seconds and GB of a command that must succeed."""
    start = time.perf_counter()
    child = subprocess.Popen([*PROSECT, *arguments], stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(child.pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0, arguments
    return time.perf_counter() - start, used.ru_maxrss / 1e6


def reference(passes: int = 20) -> float:
    """Seconds of one bare pass of pylm over 32 windows of 128 tokens, at the median."""
    import torch

    from prosect.organisms.pylm import build

    module = build()[0].module
    ids = torch.arange(32 * 128).view(32, 128) % module.config.vocab_size
    taken = []
    with torch.no_grad():
        for _ in range(passes):
            start = time.perf_counter()
            module(input_ids=ids)
            taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def found(run: Path) -> tuple[list[Verdict], dict[str, list[Evidence]], dict[str, Any]]:
    """Verdicts, evidence by hypothesis, and metrics of a run."""
    records = list(read(run / "ledger.jsonl"))
    evidence: dict[str, list[Evidence]] = {}
    for r in records:
        if isinstance(r, Evidence):
            evidence.setdefault(r.hypothesis, []).append(r)
    return list(verdicts(records).values()), evidence, json.loads((run / "metrics.json").read_text())


def pylm(run: Path) -> list[Figure]:
    """Claims on the language model; repeats; what removing its induction heads does."""
    from prosect.organisms.pylm import FOLDER

    claims, evidence, _ = found(run)
    figures = [
        Figure(f"pylm: claims {word}", sum(v.overall == word for v in claims))
        for word in ("supported", "refuted", "inconclusive")
    ]
    repeat = json.loads((FOLDER / "training.json").read_text())["figures"]["second copy minus first"]
    figures.append(Figure("pylm: second copy of a random block minus first", repeat[0], "nats", "<= -1"))
    together = [v for v in claims if v.hypothesis.component.decomposition == "induction heads"]
    for v in together:
        (first, *_) = evidence[v.hypothesis.id]
        gap = first.comparisons[0].difference
        figures += [
            Figure(
                "pylm: induction heads removed, rise of loss on repeated spans",
                first.measured.estimate,
                "nats",
            ),
            Figure("pylm: the same above random heads", gap.estimate, "nats"),
            Figure("pylm: lower end of its interval", gap.low, "nats", ">= 0"),
        ]
    return figures or [Figure("pylm: sets of induction heads claimed", 0, "", ">= 1")]


def induction(run: Path) -> list[Figure]:
    """The two true heads, and any other that was given one of their roles."""
    claims, _, _ = found(run)
    causes = [v for v in claims if v.hypothesis.side == "cause" and v.truth is not None]
    supported = [v for v in causes if v.overall == "supported"]
    effects = [v for v in claims if v.hypothesis.side == "effect" and v.overall == "supported" and v.truth]
    return [
        Figure("induction: supported roles that are true", _share(supported), "", ">= 1"),
        Figure("induction: heads that matter, supported", len(effects), "heads", ">= 2"),
        Figure(
            "induction: heads said to matter that do not", sum(not v.truth.holds for v in effects), "", "<= 0"
        ),
        Figure(
            "induction: true roles supported, of all true roles claimed",
            sum(v.overall == "supported" for v in causes if v.truth.holds)
            / max(sum(v.truth.holds for v in causes), 1),
            "",
            ">= 1",
        ),
    ]


def modular(run: Path) -> list[Figure]:
    """Frequencies found, and what is left of accuracy with neurons replaced by their formulas."""
    claims, evidence, content = found(run)
    out = [
        Figure(
            "modular: planted frequencies found",
            content["figures"]["modular planted frequencies that were found"],
            "",
            ">= 0.95",
        )
    ]
    for v in claims:
        if v.hypothesis.explainer != "replacement@1":
            continue
        (first, *_) = evidence[v.hypothesis.id]
        intact = next(c for c in first.comparisons if c.rival == "intact-network")
        scope = "analytic" if v.hypothesis.component.width > 500 else "grokked"
        kept = first.measured.estimate / intact.measured.estimate
        out.append(Figure(f"modular: accuracy kept by the {scope} net's replacement", kept, "", ">= 0.95"))
    return out


def superposition(run: Path) -> list[Figure]:
    """Mean largest cosine both ways, beside plain baselines."""
    _, _, content = found(run)
    return [
        Figure(name, value, "cosine", ">= 0.9" if name.startswith("superposition topk") else "")
        for name, value in content["figures"].items()
        if name.startswith("superposition")
    ]


def planted(run: Path) -> list[Figure]:
    """Claims about planted neurons that are true among those supported, and supported among those true."""
    claims, _, _ = found(run)
    spoken = [v for v in claims if v.truth is not None and v.truth.holds is not None]
    return [
        Figure(
            "planted: supported claims that are true",
            _share([v for v in spoken if v.overall == "supported"]),
            "",
            ">= 0.8",
        )
    ]


def _share(claims: Sequence[Verdict]) -> float:
    return sum(bool(v.truth and v.truth.holds) for v in claims) / max(len(claims), 1)


FINDINGS = {
    "pylm": pylm,
    "induction": induction,
    "modular": modular,
    "superposition": superposition,
    "planted": planted,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("presets", nargs="*", help=f"of {', '.join(SECONDS)}; all by default")
    parser.add_argument("--keep", type=Path, help="folder in which the runs are left")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    helps = [timed(["--help"])[0] for _ in range(11)]
    figures = [Figure("prosect --help, median of 11", statistics.median(helps), "s", "<= 0.5")]
    with tempfile.TemporaryDirectory() as scratch:
        for name in options.presets or SECONDS:
            out = (options.keep or Path(scratch)) / name
            before = reference()
            seconds, memory = timed(["run", name, "--out", str(out), "--quiet"])
            bare = (before + reference()) / 2
            figures.append(Figure(f"prosect run {name}", seconds, "s", f"<= {SECONDS[name]}"))
            figures.append(Figure("a bare pass over 4,096 tokens, around it", 1000 * bare, "ms"))
            figures.append(Figure(f"prosect run {name}, in such passes", seconds / bare))
            figures.append(Figure(f"{name}: peak memory", memory, "GB", "<= 3"))
            figures += FINDINGS[name](out)
    report(figures, options.json)


if __name__ == "__main__":
    main()
