"""Does a dictionary find what is there? 256 known directions in superposition in 64 dimensions.

x = D s + noise: unit features D drawn uniformly, about 6 of 256 coefficients s on at a time, non-negative, firing
rates following Zipf's law. Mean max cosine in both directions, with PCA, ICA and random directions beside it.

    python benchmarks/recovery.py [--json FILE] [--seed 0] [--rows 600000] [--epochs 6]
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import torch
from torch import Tensor

from figures import Figure, report
from prosect.core.progress import shown
from prosect.core.seeds import Seed
from prosect.decompose.dictionary import Dictionary
from prosect.decompose.linear import Ica, Pca, RandomDirections
from prosect.decompose.quality import measure, recovery
from prosect.decompose.recipe import Recipe
from prosect.decompose.sparsity import TopK
from prosect.decompose.streams import ArrayStream, first

WIDTH, FEATURES, ACTIVE, NOISE = 64, 256, 6.0, 0.02


def zipf_rates(exponent: float) -> Tensor:
    """Firing rates proportional to rank ** -exponent that sum to `ACTIVE`, none above .9."""
    rates = torch.arange(1, FEATURES + 1, dtype=torch.float64) ** -exponent
    capped = torch.zeros(FEATURES, dtype=torch.bool)
    for _ in range(FEATURES):
        rates[~capped] *= (ACTIVE - 0.9 * int(capped.sum())) / rates[~capped].sum()
        over = (rates > 0.9) & ~capped
        if not over.any():
            break
        capped |= over
        rates[capped] = 0.9
    return rates


def superposition(rows: int, exponent: float, seed: Seed) -> tuple[Tensor, Tensor]:
    """Features (256, 64) and activations (rows, 64)."""
    generator = seed.child("features").torch()
    features = torch.randn(FEATURES, WIDTH, generator=generator)
    features /= features.norm(dim=1, keepdim=True)
    rates, generator, blocks = zipf_rates(exponent).float(), seed.child("rows").torch(), []
    for start in range(0, rows, 50_000):
        n = min(50_000, rows - start)
        on = torch.rand(n, FEATURES, generator=generator) < rates
        size = 0.5 + torch.rand(n, FEATURES, generator=generator)
        noise = NOISE * torch.randn(n, WIDTH, generator=generator)
        blocks.append((on * size) @ features + noise)
    return features, torch.cat(blocks)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rows", type=int, default=600_000)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--exponent", type=float, default=1.0)
    asked = parser.parse_args()
    torch.set_num_threads(min(2, torch.get_num_threads()))
    seed = Seed(asked.seed)
    features, x = superposition(asked.rows, asked.exponent, seed)
    stream = ArrayStream({"x": x})

    topk = Dictionary("x", FEATURES, TopK(10), recipe=Recipe(batch=1024, rate=8e-3), seed=seed.child("topk"))
    began, cpu = time.perf_counter(), time.process_time()
    topk.fit(stream.shuffled(seed.child("order"), asked.epochs))
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    sample = first(stream, 50_000)
    quality = measure(topk, sample)
    found = recovery(topk.directions, features)
    figures = [
        Figure("dictionary: features to latents", found.features_to_latents, "cosine", ">= 0.9"),
        Figure("dictionary: latents to features", found.latents_to_features, "cosine", ">= 0.9"),
        Figure("dictionary: matched one to one", found.matched, "cosine"),
        Figure("dictionary: training", seconds, "s", "<= 60"),
        Figure("dictionary: training, processor time", cpu, "s"),
        Figure("dictionary: L0", quality.l0, "latents"),
        Figure("dictionary: FVU", quality.fvu["x"] or 0.0),
        Figure("dictionary: dead", quality.dead),
    ]
    others = {
        "PCA": Pca("x").fit(sample),
        "ICA": Ica("x", seed=seed.child("ica")).fit(sample),
        "random": RandomDirections.alike("x", FEATURES, 0.02, seed.child("random")).fit(sample),
    }
    for name, other in others.items():
        beside = recovery(other.directions, features, signed="signed" in other.supports)
        figures.append(Figure(f"{name}: features to components", beside.features_to_latents, "cosine"))
        figures.append(Figure(f"{name}: components to features", beside.latents_to_features, "cosine"))
    return 0 if report(figures, asked.json) else 1


if __name__ == "__main__":
    with shown():
        code = main()
    sys.exit(code)
