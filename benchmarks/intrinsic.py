"""What networks trained to be interpretable cost, and whether superposition sneaked through; means over five seeds.

python benchmarks/intrinsic.py [--seeds 5] [--json FILE]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import adjusted_rand_score

from figures import Figure, report
from prosect.core.progress import shown
from prosect.core.records import Measured
from prosect.core.seeds import Seed
from prosect.decompose.evaluation.bargain import bargain
from prosect.decompose.evaluation.hidden import Hidden, hidden
from prosect.decompose.evaluation.modularity import modularity
from prosect.decompose.evaluation.polysemantic import concepts_of
from prosect.decompose.evaluation.seeds import over_seeds
from prosect.decompose.evaluation.specialisation import specialisation
from prosect.organisms.intrinsic import activations, experts, placed, pruned
from prosect.organisms.intrinsic import sparse_features as task
from prosect.organisms.intrinsic.readable import TWIN
from prosect.organisms.opened import opened


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    seeds = range(asked.seeds)
    with shown(quiet=True):
        figures = [*sparse(seeds), *mixtures(seeds), *students(seeds), *modules(seeds)]
    return 0 if report(figures, asked.json) else 1


def sparse(seeds: range) -> list[Figure]:
    read = {kind: [reading(kind, seed) for seed in seeds] for kind in TWIN}
    bars = {"solu": ("", ">= 0.5"), "single": ("", "<= 0.05"), "topk": (">= 3", ""), "bare": ("", "")}
    out = []
    for kind, (fewer, sneaked) in bars.items():
        both = [
            list(zip(mine, twin, strict=True))
            for mine, twin in zip(read[kind], read[TWIN[kind]], strict=True)
        ]
        found = bargain(*(list(each) for each in zip(*both, strict=True)))
        out += rows(f"{kind}: cost", found.cost, "nats per input", "")
        out += rows(f"{kind}: concepts to a neuron, fewer than the twin's by", found.fewer, "", fewer)
        out += rows(f"{kind}: features that sneaked through", found.sneaked, "", sneaked)
        out += rows(f"{kind}: in its twin", found.sneaked_in_twin, "", "")
    return out


def reading(kind: str, seed: int) -> tuple[float, float, Hidden]:
    model, truth = opened(activations.known(kind, kind, seed), activations.source_topk(seed))
    batch = next(activations.source_topk(seed).batches("explore", rows=4096))
    x = batch.tensors["features"]
    norm = "norm" if kind in ("solu", "single") else None
    nothing = np.full(task.FEATURES, task.ignorance())
    found = hidden(model, "act", batch, x, lambda out: task.losses(out, x), norm, nothing)
    concepts = float(concepts_of(model.run(batch, capture=("act",))["act"], x).mean())
    return truth.quantities["loss"], concepts, found


def mixtures(seeds: range) -> list[Figure]:
    def share(sparse: bool, seed: int) -> float:
        (batch,) = experts.source(seed).batches("validate.0", rows=2048)
        module = experts.trained(sparse, seed)  # trained here, so not where there are no gradients
        with torch.no_grad():
            shares = module.shares(batch.tensors["x"]).norm(dim=2).double().numpy()
        found = specialisation(shares, experts.clusters_of(seed, "validate.0"), Seed(seed))
        return found.corrected / found.most

    out = rows(
        "experts: information on the cluster, of log 4",
        over_seeds([share(True, s) for s in seeds]),
        "",
        ">= 0.9",
    )
    out += rows("experts-dense: the same", over_seeds([share(False, s) for s in seeds]), "", "<= 0.05")
    costs = [experts.network(s)[1].quantities["cost"] for s in seeds]
    return out + rows("experts: cost", over_seeds(costs), "of the variance", "")


def students(seeds: range) -> list[Figure]:
    out = []
    for name, make in (("pruned", pruned.network), ("pruned-l0", pruned.network_l0)):
        known = [make(s)[1].quantities for s in seeds]
        for what, bar in (
            ("precision", ">= 0.8"),
            ("recall", ">= 0.9"),
            ("cost", ""),
            ("precision of random pruning", ""),
        ):
            out += rows(f"{name}: {what}", over_seeds([q[what] for q in known]), "", bar)
    for keep in (9, 18, 36, 72):
        losses = [pruned.frontier(s, (keep,))[0][1] for s in seeds]
        out += rows(f"frontier: error with {keep} of 180 weights", over_seeds(losses), "of the variance", "")
    return out


def modules(seeds: range) -> list[Figure]:
    out = []
    for near, name in ((True, "modular-bimt"), (False, "modular-dense")):
        found, free, alike = [], [], []
        for seed in seeds:
            module = placed.trained(near, seed)
            edges = int(placed.network(seed)[1].quantities["edges"])
            weights = [w.detach().double().numpy() for w in module.matrices()]
            groups = placed.sides(module, seed)
            found.append(modularity(weights, Seed(seed), edges=edges, groups=groups))
            free.append(modularity(weights, Seed(seed), edges=edges))
            pairs = [(groups[i][j], c) for c, members in enumerate(free[-1].communities) for i, j in members]
            alike.append(float(adjusted_rand_score(*zip(*pairs, strict=True))))
        out += rows(
            f"{name}: Q of the two tasks", over_seeds([m.q for m in found]), "", ">= 0.4" if near else ""
        )
        out += rows(f"{name}: Q rewired", over_seeds([float(m.null.mean()) for m in found]), "", "")
        beyond = over_seeds([m.excess for m in free])
        out += rows(f"{name}: Q of communities found, beyond rewired", beyond, "", "")
        out += rows(f"{name}: p of that", over_seeds([m.p for m in free]), "", "")
        out += rows(f"{name}: those and the tasks, adjusted Rand index", over_seeds(alike), "", "")
    costs = [placed.network(s)[1].quantities["cost"] for s in seeds]
    return out + rows("modular-bimt: cost", over_seeds(costs), "of the variance", "")


def rows(name: str, found: Measured, unit: str, bar: str) -> list[Figure]:
    """The mean and both ends of its interval."""
    out = [Figure(name, found.estimate, unit, bar)]
    if found.low is not None and found.high is not None:
        out += [Figure("    from", found.low, unit), Figure("    to", found.high, unit)]
    return out


if __name__ == "__main__":
    raise SystemExit(main())
