"""What a training step of a TopK dictionary costs, beside the one dense product it cannot avoid.

Steps and products are timed in turn, so that whatever else the machine does falls on both; medians, AuxK on with a
quarter of the latents dead.

    python benchmarks/dictionary_step.py [--json FILE] [--pairs 30] [--large]
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from statistics import median

import torch

from figures import Figure, report
from prosect.core.seeds import Seed
from prosect.decompose.dictionary import Dictionary
from prosect.decompose.recipe import Recipe
from prosect.decompose.sparsity import TopK
from prosect.decompose.streams import ArrayStream
from prosect.decompose.trainer import Trainer

BATCH = 2048


def timed(work) -> float:
    """Seconds of one call."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def cost(width: int, latents: int, k: int, pairs: int, dead: bool) -> tuple[float, float]:
    """Median seconds of a step and of the encoder's product."""
    x = torch.randn(BATCH, width, generator=Seed(0).torch())
    recipe = Recipe(batch=BATCH, dead_after=10 * BATCH)
    trainer = Trainer(Dictionary("x", latents, TopK(k), recipe=recipe), {"x": width}, 10**6)
    trainer.start(ArrayStream({"x": x}))
    batch, weight, bias = {"x": x}, trainer.encoder.detach().clone(), trainer.bias.detach().clone()
    steps, products = [], []
    for _ in range(pairs + 3):
        trainer.idle.zero_()
        if dead:
            trainer.idle[: latents // 4] = 10**9
        steps.append(timed(lambda: trainer.advance(batch)))
        products.append(timed(lambda: torch.addmm(bias, x, weight.T)))
    return median(steps[3:]), median(products[3:])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--pairs", type=int, default=30)
    parser.add_argument("--large", action="store_true", help="also d=768 n=12,288 k=32")
    asked = parser.parse_args()
    torch.set_num_threads(min(2, torch.get_num_threads()))
    sizes = [(256, 1024, 16), (256, 2048, 32)] + ([(768, 12_288, 32)] if asked.large else [])
    figures = []
    for width, latents, k in sizes:
        for dead in (False, True):
            step, product = cost(width, latents, k, asked.pairs, dead)
            name = f"step, d={width} n={latents} k={k}{', AuxK' if dead else ''}"
            bar = "<= 60" if width == 256 and not dead else ""
            figures.append(Figure(name, 1e3 * step, "ms", bar))
            figures.append(Figure(f"{name}: over its encoder product", step / product, "times"))
    return 0 if report(figures, asked.json) else 1


if __name__ == "__main__":
    sys.exit(main())
