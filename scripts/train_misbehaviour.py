"""Train the organisms that misbehave and their clean twins, measure them, and ship them.

    python scripts/train_misbehaviour.py                     # all twelve
    python scripts/train_misbehaviour.py backdoor quirky     # some of them, each with its twin
    python scripts/train_misbehaviour.py --measure           # measures the shipped ones again and rewrites the records

At most a minute and a half for each network on one core.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace

import torch

from prosect.model import Model
from prosect.organisms.decoder import Decoder
from prosect.organisms.misbehaviour import backdoor, hints, objective, password, quirky, reporter
from prosect.organisms.misbehaviour.baselines import Auroc
from prosect.organisms.misbehaviour.measure import (
    Sets,
    behaviour,
    detected,
    readable,
    told_by_inputs,
    told_by_outputs,
)
from prosect.organisms.misbehaviour.shipped import Pair, named, record, write
from prosect.organisms.misbehaviour.training import train

PAIRS = {m.PAIR.task.name: m.PAIR for m in (backdoor, password, hints, reporter, quirky, objective)}


def flat(measured: dict[str, Auroc]) -> dict[str, float]:
    """Area and both ends of its interval, each under a name of its own."""
    ends = {"": "value", ", low": "low", ", high": "high"}
    return {f"AUROC of {n}{end}": getattr(a, key) for n, a in measured.items() for end, key in ends.items()}


def measured(pair: Pair, module: Decoder, sets: Sets) -> tuple[dict[str, float], dict[str, float]]:
    """Metrics for the truth, and what detectors that look inside made of the network."""
    metrics = behaviour(module, pair.task, sets)
    metrics |= flat(told_by_inputs(pair.task, sets) | told_by_outputs(module, pair.task, sets))
    model = Model.of(module, tokenizer=None)
    sites = [f"resid_post.{layer}" for layer in range(pair.recipe.layers)]
    seen = {k: v for site in sites for k, v in flat(detected(model, pair.task, sets, site)).items()}
    for site in sites:
        seen |= readable(model, pair.task, sets, site)
    return metrics, seen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=[], choices=[[], *PAIRS])
    parser.add_argument("--measure", action="store_true")
    parser.add_argument("--steps", type=int, help="other than the recipe's; nothing is shipped")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name in options.names or PAIRS:
        pair = PAIRS[name]
        sets = Sets.of(pair.task)
        for clean in (False, True):
            recipe = replace(pair.recipe, steps=options.steps) if options.steps else pair.recipe
            start = time.perf_counter()
            full = named(pair.task, clean)
            if options.measure:
                module = (pair.network_clean if clean else pair.network)()[0]
                seconds = record(full)["seconds"]
            else:
                module = train(pair.task, recipe, clean)
                seconds = time.perf_counter() - start
            metrics, seen = measured(pair, module, sets)
            print(f"{full}: {seconds:.0f} s")
            for key, value in {**metrics, **seen}.items():
                print(f"  {value:.3f}  {key}", flush=True)
            if not options.steps:
                write(full, module, recipe, metrics, seen, seconds)


if __name__ == "__main__":
    main()
