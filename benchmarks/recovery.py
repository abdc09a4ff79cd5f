"""Does a dictionary find what is there? Every form of training against known features, baselines and a probe ceiling.

Three worlds of `prosect.organisms.synthetic`: ``plain``, 256 features in 64 dimensions, about 6 at once, independent;
``synthetic``, 1,024 in 128 with hierarchies and correlations; ``large``, 16,384 in 768, the size of published results.
Each seed is a world of its own, with rows of its own; all forms train on the same rows and are scored on the same
held-out ones. Learning rate, and the price of sparsity where a form has one, are chosen on another world by the sum of
F1 and MCC there, the same way for every form. Numbers are means over seeds with 95 % intervals; the JSON has every
number of every seed. With ``--peers``, in the environment of `formats.py`, SAELens' architectures train beside them.

    python benchmarks/recovery.py [--world plain] [--rows 3000000] [--seeds 3] [--forms topk,...] [--peers] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path

import torch

from figures import Figure, report
from forms import FORMS, PEERS, Asked, Form
from prosect.core.errors import NotFinite
from prosect.core.progress import say, shown
from prosect.core.records import Measured
from prosect.core.seeds import Seed
from prosect.decompose.dictionary import Dictionary
from prosect.decompose.evaluation.absorption import planted_absorption
from prosect.decompose.evaluation.baselines import baselines
from prosect.decompose.evaluation.ceiling import ceiling
from prosect.decompose.evaluation.seeds import over_seeds
from prosect.decompose.evaluation.table import Line, line
from prosect.decompose.streams import ArrayStream, first
from prosect.organisms.synthetic import LARGE, SITE, World, plant

WORLDS = {
    "plain": World(
        features=256,
        width=64,
        most=0.35,
        least=0.012,
        exponent=0.75,
        trees=0,
        rank=0,
        strengths=(1, 1),
        noise=0.02,
    ),
    "synthetic": World(),
    "large": LARGE,
}
BARS = {("plain", "found"): ">= 0.9", ("plain", "real"): ">= 0.9"}
"""What the best form must reach, by world and column of `Line`."""
HEADLINES = ("found", "real", "mcc", "f1", "fvu", "l0", "dead")


def main() -> int:
    asked = arguments()
    torch.set_num_threads(min(2, torch.get_num_threads()))
    world, every = WORLDS[asked.world], FORMS | (PEERS if asked.peers else {})
    names = [n for n in asked.forms.split(",") if n] or list(every)
    latents = asked.latents or world.features
    chosen = tuned(asked, world, names, every, latents)

    lines: dict[str, list[Line]] = {}
    trained: dict[str, list[Dictionary]] = {}
    seconds: dict[str, list[float]] = {}
    absorbed: dict[str, list[float]] = {}
    ceilings = []
    for run in range(asked.seeds):
        planted = plant(world, Seed(asked.seed).child("world", run))
        rows = first(planted.stream(asked.rows, "explore"), asked.rows).arrays[SITE]
        held_out = planted.stream(asked.held_out, "validate.0")
        active = max(1, round(asked.active or planted.active))
        say(f"seed {run}: {planted.truth().size}; {asked.rows:,} rows")
        for name in names:
            rate, price = chosen[name]
            began = time.perf_counter()
            seed = Seed(asked.seed).child(name, run)
            made = every[name].fit(Asked(rows, latents, active, asked.batch, rate, price, seed))
            seconds.setdefault(name, []).append(time.perf_counter() - began)
            trained.setdefault(name, []).append(made)
            found = line(made, held_out, planted.directions, name)
            lines.setdefault(name, []).append(found)
            say(f"{name}: F1 {found.f1:.3f}, MCC {found.mcc:.3f}, L0 {found.l0:.1f}")
            if world.trees:
                there = planted_absorption(made, held_out, planted.directions, planted.parents)
                absorbed.setdefault(name, []).append(there.absorbed.estimate or 0.0)
        sample = ArrayStream({SITE: rows[: asked.sample]})
        for name, other in baselines(
            sample, SITE, active, latents, Seed(asked.seed).child("baselines", run)
        ).items():
            lines.setdefault(name, []).append(line(other, held_out, planted.directions, name))
        probed = (
            Seed(asked.seed).child("probes", run).numpy().permutation(world.features)[: asked.probes].tolist()
        )
        ceilings.append(float(ceiling(held_out, SITE, probed, kind=asked.probe).f1.mean()))

    figures: list[Figure] = []
    for name in names:
        figures.append(Figure(f"{name}: training", over_seeds(seconds[name]).estimate, "s a seed"))
        if name in absorbed:
            figures.append(Figure(f"{name}: parents absorbed", over_seeds(absorbed[name]).estimate))
    for name, runs in lines.items():
        for column in HEADLINES:
            if (value := over(runs, column).estimate) is not None:
                bar = BARS.get((asked.world, column), "") if name in FORMS else ""
                figures.append(Figure(f"{name}: {column}", value, "", bar))
    figures += beside(lines, names)
    figures.append(Figure(f"{asked.probe} probes: f1, the ceiling", over_seeds(ceilings).estimate))
    print(table(lines), end="\n\n")
    passed = report(figures, None)
    if asked.json:
        records = [asdict(f) | {"pass": f.passed} for f in figures]
        numbers = {name: [asdict(one) for one in runs] for name, runs in lines.items()}
        content = {"figures": records, "lines": numbers, "chosen": chosen, "seconds": seconds}
        asked.json.write_text(json.dumps(content, indent=1) + "\n")
    return 0 if passed else 1


def tuned(
    asked: argparse.Namespace, world: World, names: list[str], every: dict[str, Form], latents: int
) -> dict[str, tuple[float | None, float | None]]:
    """The rate and the price of every form that do best on a world that nothing is judged on."""
    planted = plant(world, Seed(asked.seed).child("tuning"))
    rows = first(planted.stream(asked.tune_rows, "explore"), asked.tune_rows).arrays[SITE]
    held_out = planted.stream(min(asked.held_out, 20_000), "validate.0")
    active = max(1, round(asked.active or planted.active))
    out = {}
    for name in names:
        form, scores = every[name], {}
        for rate in form.rates:
            for price in form.prices:
                seed = Seed(asked.seed).child("tuning", name)
                try:
                    made = form.fit(Asked(rows, latents, active, asked.batch, rate, price, seed))
                    found = line(made, held_out, planted.directions, name)
                except NotFinite:
                    continue
                scores[rate, price] = found.f1 + found.mcc
                say(
                    f"tuning {name}, rate {rate}, price {price}: F1 {found.f1:.3f}, MCC {found.mcc:.3f}, L0 {found.l0:.1f}"
                )
        out[name] = max(scores, key=lambda at: scores[at])
    return out


def beside(lines: dict[str, list[Line]], names: list[str]) -> list[Figure]:
    """Our best form against the best peer, paired by seed; and every peer against our form of the same kind."""
    peers = [n for n in names if n in PEERS]
    out = []
    for column in ("f1", "mcc") if peers else ():

        def mean(name: str, column: str = column) -> float:
            return float(over(lines[name], column).estimate or 0.0)

        best, rival = max((n for n in names if n in FORMS), key=mean), max(peers, key=mean)
        gaps = [
            getattr(a, column) - getattr(b, column) for a, b in zip(lines[best], lines[rival], strict=True)
        ]
        gap = over_seeds(gaps)
        reach = "" if gap.low is None else f" [{gap.low:+.3f}, {gap.high:+.3f}]"
        out.append(Figure(f"{column}: {best} above {rival}{reach}", float(gap.estimate or 0.0), "", ">= 0"))
    return out


def over(runs: list[Line], column: str) -> Measured:
    """A column over seeds."""
    values = [getattr(run, column) for run in runs]
    if any(v is None for v in values):
        return Measured(estimate=None, n=len(values), note="does not decode")
    return over_seeds(values)


def table(lines: dict[str, list[Line]]) -> str:
    """Mean over seeds of every column, with half the width of its interval."""
    columns = [c for c in Line.__dataclass_fields__ if c != "name"]
    rows = [["", *columns]]
    for name, runs in lines.items():
        cells = []
        for column in columns:
            m = over(runs, column)
            reach = "" if m.high is None else f"±{m.high - m.estimate:.3f}"
            cells.append("-" if m.estimate is None else f"{m.estimate:.3f}{reach}")
        rows.append([name, *cells])
    widths = [max(len(row[i]) for row in rows) for i in range(len(columns) + 1)]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--world", choices=WORLDS, default="plain")
    parser.add_argument("--rows", type=int, default=3_000_000, help="rows each seed is trained on")
    parser.add_argument("--tune-rows", type=int, default=500_000, help="rows that tuning trains on")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0, help="of the world, and the root of all others")
    parser.add_argument("--forms", default="", help="forms of training, joined by commas; all without any")
    parser.add_argument("--peers", action="store_true", help="SAELens' architectures too")
    parser.add_argument("--latents", type=int, help="as many as features by default")
    parser.add_argument("--active", type=float, help="latents at a position; as many as features by default")
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--held-out", type=int, default=50_000, help="rows for scoring")
    parser.add_argument("--sample", type=int, default=50_000, help="rows that baselines are fitted on")
    parser.add_argument("--probes", type=int, default=64, help="features whose supervised probe is fitted")
    parser.add_argument("--probe", choices=("logistic", "least squares"), default="logistic")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    with shown():
        code = main()
    sys.exit(code)
