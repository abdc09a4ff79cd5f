"""Does a dictionary find what is there? Every form of training against known features, baselines and a probe ceiling.

Three worlds of `prosect.organisms.synthetic`: ``plain``, 256 features in 64 dimensions, about 6 at once, independent;
``synthetic``, 1,024 in 128 with hierarchies and correlations; ``large``, 16,384 in 768, the size of published results.
Each seed trains on rows of its own; all are scored on the same held-out rows. Numbers are means over seeds with 95 %
intervals; the JSON has every number of every seed.

    python benchmarks/recovery.py [--world plain] [--rows 3600000] [--seeds 3] [--forms topk,...] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch

from figures import Figure, report
from prosect.core.progress import shown
from prosect.core.records import Measured
from prosect.core.seeds import Seed
from prosect.decompose.dictionary import Dictionary
from prosect.decompose.evaluation.absorption import planted_absorption
from prosect.decompose.evaluation.baselines import baselines
from prosect.decompose.evaluation.ceiling import ceiling
from prosect.decompose.evaluation.seeds import over_seeds
from prosect.decompose.evaluation.stability import stability
from prosect.decompose.evaluation.table import Line, line
from prosect.decompose.recipe import Recipe
from prosect.decompose.sparsity import TopK
from prosect.decompose.streams import first
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

Form = Callable[[int, float, Recipe, Seed], Dictionary]
"""latents, the sparsity wanted (mean latents at a position), recipe, seed → a dictionary, not trained."""
FORMS: dict[str, Form] = {
    "topk": lambda latents, active, recipe, seed: Dictionary(
        SITE, latents, TopK(max(1, round(active))), recipe=recipe, seed=seed
    ),
}
"""Every form of training; add a line for another."""


def main() -> int:
    asked = arguments()
    torch.set_num_threads(min(2, torch.get_num_threads()))
    world = WORLDS[asked.world]
    planted = plant(world, Seed(asked.seed))
    held_out = planted.stream(asked.held_out, "validate.0")
    active, latents = asked.active or planted.active, asked.latents or world.features
    recipe = Recipe(batch=asked.batch, rate=asked.rate)
    print(f"{planted.truth().size}; {asked.rows:,} rows a seed, {asked.seeds} seeds, {latents} latents\n")

    lines: dict[str, list[Line]] = {}
    figures: list[Figure] = []
    for name in asked.forms.split(","):
        trained, seconds = [], []
        for run in range(asked.seeds):
            seed, began = Seed(asked.seed).child(name, run), time.perf_counter()
            made = FORMS[name](latents, active, recipe, seed)
            trained.append(made.fit(planted.stream(asked.rows, f"explore.{run}")))
            seconds.append(time.perf_counter() - began)
            lines.setdefault(name, []).append(line(trained[-1], held_out, planted.directions, name))
        figures.append(Figure(f"{name}: training", over_seeds(seconds).estimate, "s a seed"))
        if world.trees:
            found = [planted_absorption(d, held_out, planted.directions, planted.parents) for d in trained]
            absorbed = over_seeds([f.absorbed.estimate for f in found]).estimate
            figures.append(Figure(f"{name}: parents absorbed", absorbed))
        if len(trained) > 1:
            alike = stability(trained, Seed(asked.seed).child("stability"))
            figures.append(Figure(f"{name}: other seeds' latents (PW-MCC)", alike.mcc.estimate, "cosine"))
            figures.append(Figure(f"{name}: the same at chance", alike.chance, "cosine"))
            figures.append(Figure(f"{name}: latents shared by two seeds", alike.shared.estimate))
    sample = first(planted.stream(asked.sample, "explore.0"), asked.sample)
    for run in range(asked.seeds):
        seed = Seed(asked.seed).child("baselines", run)
        for name, other in baselines(sample, SITE, max(1, round(active)), latents, seed).items():
            lines.setdefault(name, []).append(line(other, held_out, planted.directions, name))

    for name, runs in lines.items():
        for column in HEADLINES:
            if (value := over(runs, column).estimate) is not None:
                figures.append(
                    Figure(
                        f"{name}: {column}",
                        value,
                        "",
                        BARS.get((asked.world, column), "") if name in FORMS else "",
                    )
                )
    probed = Seed(asked.seed).child("probes").numpy().permutation(world.features)[: asked.probes].tolist()
    most = ceiling(held_out, SITE, probed, kind=asked.probe)
    figures.append(Figure(f"{asked.probe} probes: f1, the ceiling", float(most.f1.mean())))
    print(table(lines), end="\n\n")
    passed = report(figures, None)
    if asked.json:
        records = [asdict(f) | {"pass": f.passed} for f in figures]
        every = {name: [asdict(one) for one in runs] for name, runs in lines.items()}
        asked.json.write_text(json.dumps({"figures": records, "lines": every}, indent=1) + "\n")
    return 0 if passed else 1


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
    parser.add_argument("--rows", type=int, default=3_600_000, help="rows each seed is trained on")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0, help="of the world, and the root of all others")
    parser.add_argument("--forms", default=",".join(FORMS), help="forms of training, joined by commas")
    parser.add_argument("--latents", type=int, help="as many as features by default")
    parser.add_argument("--active", type=float, help="latents at a position; as many as features by default")
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--rate", type=float, default=8e-3, help="learning rate")
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
