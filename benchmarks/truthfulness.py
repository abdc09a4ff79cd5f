"""How often prosect is wrong, measured where the answer is known, through the same code as `prosect run`.

Three parts:

- nulls: runs on the planted organism with the link between inputs and activations destroyed, so that every claim is
  false. A run counts against prosect if it supports any claim at all.
- power and calibration: runs with the same settings and the link intact. Of the claims that are true, how many are
  supported; of those supported, how many are true. ``--write`` ships the rates as ``assay/calibrations.json``.
- coverage: intervals of correlations and means over documents drawn from a population of thousands, whose own value
  is known, at the default number of documents and at the smallest that is permitted.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from figures import Figure, report
from prosect.bench import calibration
from prosect.bench.calibration import FIRST, ORGANISMS, SMALL, Task


def runs(tasks: list[Task], workers: int) -> Iterator[dict[str, Any]]:
    """Every run, in worker processes."""
    return (found for _, found in calibration.runs(tasks, workers))


def nulls(found: list[dict[str, Any]]) -> list[Figure]:
    """Null runs that supported something."""
    wrong = sum(any(c["supported"] for c in r["claims"]) for r in found)
    allowed = round(16 * len(found) / 200)
    return [
        Figure("null runs", len(found), "runs"),
        Figure("claims in them", sum(len(r["claims"]) for r in found), "claims"),
        Figure("null runs that supported any claim", wrong, "runs", f"<= {allowed}"),
        Figure("seconds a null run, median", float(np.median([r["seconds"] for r in found])), "s", "<= 3"),
    ]


def power(found: list[dict[str, Any]]) -> list[Figure]:
    """True claims that were supported, each lineage counted once, by its last claim."""
    true, supported = [], []
    for r in found:
        last: dict[tuple[str, str], dict[str, Any]] = {}
        for c in r["claims"]:
            last[c["component"], c["side"]] = c
        mine = [c for c in last.values() if c["holds"]]
        true.append(len(mine))
        supported.append(sum(c["supported"] for c in mine))
    said = [c for r in found for c in r["claims"] if c["supported"] and c["holds"] is not None]
    return [
        Figure("planted runs", len(found), "runs"),
        Figure("true claims in them", sum(true), "claims"),
        Figure("true claims supported", sum(supported) / max(sum(true), 1), "", ">= 0.9"),
        Figure("supported claims that are true", sum(c["holds"] for c in said) / max(len(said), 1)),
        Figure("seconds a planted run, median", float(np.median([r["seconds"] for r in found])), "s", "<= 3"),
    ]


def coverage(repeats: int) -> list[Figure]:
    """Share of intervals that hold the population's value."""
    from prosect.core.intervals import Correlation, Mean, Resamples
    from prosect.core.seeds import Seed
    from prosect.organisms import planted

    population = activations(planted, documents=4000)
    out = []
    default = planted.source(0).units["validate.0"]
    for words, units in (("default", default), ("smallest permitted", 40)):
        for name, statistic, table in (
            *((f"correlation, {n}", Correlation(), s) for n, s in population.items()),
            *((f"mean, {n}", Mean(), s[:, [0, 2]]) for n, s in population.items()),
        ):
            target = float(statistic.value(table.sum(axis=0)))
            rng = Seed(0).child("coverage", name, units).numpy()
            held = 0
            for i in range(repeats):
                drawn = table[rng.integers(len(table), size=units)]
                got = Resamples(units, 999, Seed(i).child("coverage")).measure([drawn], statistic).measured
                held += (
                    (got.low if got.low is not None else -np.inf)
                    <= target
                    <= (got.high if got.high is not None else np.inf)
                )
            share = held / repeats
            title = f"coverage, {name}, {units} documents ({words})"
            out += [Figure(title, share, "", ">= 0.93"), Figure(f"{title}, not above", share, "", "<= 0.97")]
    return out


def activations(organism: Any, documents: int) -> dict[str, np.ndarray]:
    """Sums over each document of (predicted, measured) for neurons with rules of four kinds of strength."""
    from prosect.core.intervals import moments

    model, truth = organism.build(0)
    source = organism.source(0, validate=documents)
    wanted: dict[str, Any] = {}
    for v in truth.variables:
        sort = v.parameters.get("sort", "")
        if (
            v.kind == "token-rule"
            and sort not in wanted
            and sort in ("token", "context", "noisy 0.9", "noisy 0.7")
        ):
            wanted[sort] = v
    if len(wanted) < 2:
        wanted = {
            f"rule {i}": v for i, v in enumerate([v for v in truth.variables if v.kind == "token-rule"][:4])
        }
    rows: dict[str, list[tuple[np.ndarray, np.ndarray, np.ndarray]]] = {n: [] for n in wanted}
    for batch in source.batches("validate.0", 64):
        trace = model.run(batch, capture=("mlp_act.0",))
        ids = batch.flat(batch.tensors["input_ids"]).numpy()
        values = batch.flat(trace["mlp_act.0"]).double().numpy()
        for name, v in wanted.items():
            strength = np.zeros(200)
            strength[list(v.parameters["current"])] = v.parameters["strengths"]
            rows[name].append((strength[ids], values[:, v.index], batch.flat_units))
    out = {}
    for name, found in rows.items():
        x, y, unit = (np.concatenate(c) for c in zip(*found, strict=True))
        out[name] = moments(x, y, unit, documents)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nulls", type=int, default=200)
    parser.add_argument("--planted", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--calibrate", type=int, default=0, help="seeds of each organism to calibrate on")
    parser.add_argument("--organisms", nargs="*", default=tuple(ORGANISMS), choices=ORGANISMS)
    parser.add_argument("--write", type=Path, help="where calibrations go")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    figures: list[Figure] = []
    if options.nulls:
        found = list(
            runs([("planted", s, "statistical", SMALL) for s in range(options.nulls)], options.workers)
        )
        figures += nulls(found)
    if options.planted:
        found = list(runs([("planted", s, "", SMALL) for s in range(options.planted)], options.workers))
        figures += power(found)
    if options.repeats:
        figures += coverage(options.repeats)
    if options.calibrate:
        tasks = [
            (t, s, "", ORGANISMS[t].changes)
            for t in options.organisms
            for s in range(FIRST, FIRST + options.calibrate)
        ]
        made = calibration.counted(list(runs(tasks, options.workers)))
        figures += [
            Figure(
                f"{c.method} {c.side} on {c.organism}: precision, {c.supported} claims",
                c.precision.estimate or 0.0,
            )
            for c in made
        ]
        if options.write:
            calibration.write(made, options.write)
    report(figures, options.json)


if __name__ == "__main__":
    main()
