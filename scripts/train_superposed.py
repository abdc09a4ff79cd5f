"""Train an organism that carries a program in superposition, and ship it.

    python scripts/train_superposed.py sort            # trains, measures, writes the weights beside the package's others
    python scripts/train_superposed.py sort --measure  # measures the shipped ones again

One to three minutes on one core.
"""

from __future__ import annotations

import argparse
import time

import torch

from prosect.organisms.compiler import zoo
from prosect.organisms.compiler.layout import Layout
from prosect.organisms.compiler.siit import Recipe, measure, train
from prosect.organisms.compiler.superposed import PROGRAMS, network, plan, write

RECIPES = {
    "sort": Recipe(width=22, head=16, neurons=96),
    "histogram": Recipe(width=11, head=8, neurons=64, steps=2500),
    "count": Recipe(width=13, head=10, neurons=64, steps=2500),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("program", choices=PROGRAMS)
    parser.add_argument("--measure", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--width", type=int)
    parser.add_argument("--rate", type=float)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.measure:
        program, layout, _ = plan(options.program)
        print(measure(network(options.program)[0], program, layout))
        return
    said = {k: getattr(options, k) for k in ("steps", "width", "rate")}
    recipe = Recipe(**{**vars(RECIPES[options.program]), **{k: v for k, v in said.items() if v is not None}})
    program = zoo.program_of(options.program)
    layout = Layout.of(program, spare=recipe.spare)
    start = time.perf_counter()
    module = train(program, layout, recipe, options.seed)
    seconds = time.perf_counter() - start
    found = measure(module, program, layout)
    print(found, f"{seconds:.0f} s")
    write(options.program, module, recipe, found, options.seed, seconds)


if __name__ == "__main__":
    main()
