"""Train the organism that carries the sorting program in superposition, and ship it.

    python scripts/train_superposed.py            # trains, measures, writes the weights beside the package's others
    python scripts/train_superposed.py --measure  # measures the shipped ones again

About two minutes on one core.
"""

from __future__ import annotations

import argparse
import time

import torch

from prosect.organisms.compiler import zoo
from prosect.organisms.compiler.layout import Layout
from prosect.organisms.compiler.siit import Recipe, measure, train
from prosect.organisms.compiler.superposed import PROGRAM, network, plan, write

RECIPE = Recipe(width=24, head=16, neurons=96)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--measure", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=RECIPE.steps)
    parser.add_argument("--width", type=int, default=RECIPE.width)
    parser.add_argument("--rate", type=float, default=RECIPE.rate)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.measure:
        program, layout, _ = plan()
        print(measure(network()[0], program, layout))
        return
    recipe = Recipe(**{**vars(RECIPE), "steps": options.steps, "width": options.width, "rate": options.rate})
    program = zoo.program_of(PROGRAM)
    layout = Layout.of(program, spare=recipe.spare)
    start = time.perf_counter()
    module = train(program, layout, recipe, options.seed)
    seconds = time.perf_counter() - start
    found = measure(module, program, layout)
    print(found, f"{seconds:.0f} s")
    write(module, recipe, found, options.seed, seconds)


if __name__ == "__main__":
    main()
