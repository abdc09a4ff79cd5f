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
import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from figures import Figure, report

SETTINGS: dict[str, Any] = {
    "describe.components": 7,
    "describe.effects": 2,
    "data.inputs": 100,
    "describe.controls": 2,
    "describe.tokens": 4_000,
    "validate.effect_rows": 40,
    "validate.seal": False,
}
"""What these runs change of the preset: fewer components, so that a run takes seconds."""
CALIBRATED = ("planted", "induction", "modular", "superposition")


def one(task: tuple[str, int, str, dict[str, Any]]) -> dict[str, Any]:
    """A run; what it supported, and what of that is true."""
    import torch

    from prosect.assay import assay

    torch.set_num_threads(1)
    target, seed, null, changes = task
    with tempfile.TemporaryDirectory() as scratch:
        start = time.perf_counter()
        run = assay(target, out=Path(scratch) / "run", seed=seed, **nested({**changes, "null": null}))
        took = time.perf_counter() - start
        claims = [
            {
                "method": v.hypothesis.explainer,
                "side": v.hypothesis.side,
                "component": f"{v.hypothesis.scope.model[:8]} {v.hypothesis.component.name}",
                "scripted": v.hypothesis.draw == "scripted",
                "supported": v.overall == "supported",
                "overall": v.overall,
                "holds": None if v.truth is None else v.truth.holds,
            }
            for v in run.verdicts.values()
        ]
    return {"target": target, "seed": seed, "null": null, "seconds": took, "claims": claims}


def nested(changes: dict[str, Any]) -> dict[str, Any]:
    """Dotted keys as tables."""
    out: dict[str, Any] = {}
    for key, value in changes.items():
        *tables, last = key.split(".")
        place = out
        for table in tables:
            place = place.setdefault(table, {})
        place[last] = value
    return out


def runs(tasks: list[tuple[str, int, str, dict[str, Any]]], workers: int) -> Iterator[dict[str, Any]]:
    """Every run, in worker processes."""
    with multiprocessing.get_context("spawn").Pool(workers, maxtasksperchild=40) as pool:
        yield from pool.imap_unordered(one, tasks)


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


def calibrations(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rates of every method on each organism, over seeds."""
    from prosect.assay.calibrations import code_of
    from prosect.core.seeds import Seed
    from prosect.validate.truth import calibrate

    out = []
    keys = sorted(
        {(r["target"], c["method"], c["side"]) for r in found for c in r["claims"] if c["holds"] is not None}
    )
    for target, method, side in keys:
        table = []
        for r in sorted((r for r in found if r["target"] == target), key=lambda r: r["seed"]):
            mine = [
                c
                for c in r["claims"]
                if (c["method"], c["side"]) == (method, side) and c["holds"] is not None and not c["scripted"]
            ]
            said = [c for c in mine if c["supported"]]
            parts = {c["component"] for c in mine if c["holds"]}
            table.append(
                (
                    len(said),
                    sum(c["holds"] for c in said),
                    len(parts),
                    len({c["component"] for c in said if c["holds"]}),
                )
            )
        size = SIZES[target]
        seed = Seed(0).child("calibrate", target, method, side)
        made = calibrate(
            method, side, f"organism:{target}", table, code=code_of(method), size=size, seed=seed
        )
        out.append(made.model_dump(mode="json"))
    return out


SIZES = {
    "planted": "1 layer, 97 tokens, 48 neurons",
    "induction": "2 layers of attention",
    "modular": "1 hidden layer, modulus 31",
    "superposition": "64 dimensions, 256 features",
}


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
    parser.add_argument("--organisms", nargs="*", default=CALIBRATED, choices=CALIBRATED)
    parser.add_argument("--write", type=Path, help="where calibrations go")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    figures: list[Figure] = []
    if options.nulls:
        found = list(
            runs([("planted", s, "statistical", SETTINGS) for s in range(options.nulls)], options.workers)
        )
        figures += nulls(found)
    if options.planted:
        found = list(runs([("planted", s, "", SETTINGS) for s in range(options.planted)], options.workers))
        figures += power(found)
    if options.repeats:
        figures += coverage(options.repeats)
    if options.calibrate:
        tasks = [
            (t, s, "", SETTINGS if t == "planted" else {"validate.seal": False, "scripted": False})
            for t in options.organisms
            for s in range(1000, 1000 + options.calibrate)
        ]
        made = calibrations(list(runs(tasks, options.workers)))
        figures += [
            Figure(
                f"{c['method']} {c['side']} on {c['organism']}: precision, {c['supported']} claims",
                c["precision"]["estimate"] or 0.0,
            )
            for c in made
        ]
        if options.write:
            options.write.write_text(json.dumps(made, indent=1) + "\n")
    report(figures, options.json)


if __name__ == "__main__":
    main()
