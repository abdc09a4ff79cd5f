"""Compiled programs against their interpreter, on every input, and how long compiling takes.

``agreement``: every shipped program on every input up to ``--length`` tokens, and ``--random`` programs drawn at random on
every input up to theirs (3 to 6 tokens). Categories count as equal if the right logit is the largest; numbers if
they are off by at most 1e-4. Of the random programs, how many depend on two positions or more and are not constant.
``time``: from the program's text to the network, checker included; to the network and its truth.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch

from figures import Figure, report
from prosect.organisms.compiler import compiled, zoo
from prosect.organisms.compiler.agreement import NUMERIC, agreement
from prosect.organisms.compiler.programs import SHIPPED
from prosect.organisms.compiler.random_programs import dependence, random_program


def shipped(length: int) -> list[Figure]:
    """Agreement of each shipped program, and the time that building it takes."""
    out, error, margin = [], 0.0, np.inf
    inputs = places = wrong = 0
    for name, program in SHIPPED.items():
        start = time.perf_counter()
        made = compiled(program(), seed=0, spare=zoo.SPARE)
        built = time.perf_counter() - start
        start = time.perf_counter()
        zoo.network(name)
        known = time.perf_counter() - start
        found = agreement(made, length)
        size = f"{len(made.program.vocabulary)} tokens, up to {min(length, made.program.length)}"
        out += [
            Figure(f"{name}: inputs ({size})", found.inputs, "inputs"),
            Figure(f"{name}: places that disagree", found.wrong, f"of {found.places:,}", "<= 0"),
            Figure(f"{name}: compiled in", built, "s"),
            Figure(f"{name}: with its truth", known, "s", "<= 120"),
        ]
        inputs, places, wrong = inputs + found.inputs, places + found.places, wrong + found.wrong
        error, margin = max(error, found.error), min(margin, found.margin)
    return [
        *out,
        Figure("shipped programs", len(SHIPPED), "programs", ">= 12"),
        Figure("shipped: inputs in all", inputs, "inputs"),
        Figure("shipped: places that agree", 1 - wrong / places, "share", ">= 1"),
        Figure("shipped: largest error of a number", error, "", f"<= {NUMERIC}"),
        Figure("shipped: smallest lead of the right logit", margin, "", ">= 5"),
    ]


def drawn(number: int) -> list[Figure]:
    """Agreement of programs drawn at random."""
    inputs = wrong = agreed = 0
    error, margin, seconds, depends = 0.0, np.inf, [], []
    for seed in range(number):
        program = random_program(seed, operations=3 + seed % 4)
        start = time.perf_counter()
        made = compiled(program, seed=seed)
        seconds.append(time.perf_counter() - start)
        found = agreement(made)
        depends.append(dependence(program) >= 2)
        inputs, wrong, agreed = inputs + found.inputs, wrong + found.wrong, agreed + found.complete
        error, margin = max(error, found.error), min(margin, found.margin)
    return [
        Figure("random programs", number, "programs"),
        Figure("random: inputs in all", inputs, "inputs"),
        Figure("random: programs that agree on every input", agreed / number, "share", ">= 1"),
        Figure("random: places that disagree", wrong, "", "<= 0"),
        Figure("random: largest error of a number", error, "", f"<= {NUMERIC}"),
        Figure("random: smallest lead of the right logit", margin, "", ">= 5"),
        Figure("random: depend on two positions or more", float(np.mean(depends)), "share", ">= 0.8"),
        Figure("random: compiled in, median", float(np.median(seconds)), "s"),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--length", type=int, default=6)
    parser.add_argument("--random", type=int, default=500)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if not report([*shipped(options.length), *drawn(options.random)], options.json):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
