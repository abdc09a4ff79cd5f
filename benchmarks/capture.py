"""What reading sites costs: a pass with none, and one with 48 module boundaries, against the bare forward.

GPT-2-small size, random weights, 8 rows of 64 tokens. Ratios of medians over interleaved pairs in one
process, so that what else the machine does falls on both sides alike.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import GPT2Config, GPT2LMHeadModel

from prosect.core.seeds import Seed
from prosect.model.model import Model

KINDS = ("resid_pre", "attn_out", "mlp_out", "resid_post")


def ratio(a: Callable[[], Any], b: Callable[[], Any], pairs: int) -> float:
    """Median over pairs of the time of ``a`` over the time of ``b``, the first of a pair alternating."""
    found = []
    for i in range(pairs + 2):
        seconds = {}
        for name, run in [("a", a), ("b", b)][:: 1 if i % 2 else -1]:
            start = time.perf_counter()
            run()
            seconds[name] = time.perf_counter() - start
        if i >= 2:  # the first two warm up
            found.append(seconds["a"] / seconds["b"])
    return statistics.median(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    module = GPT2LMHeadModel(GPT2Config()).eval()
    model = Model.of(module, name="gpt2-small size")
    ids = torch.randint(50257, (8, 64), generator=Seed(0).child("tokens").torch())
    batch = model.batch(ids)
    sites = [f"{kind}.{layer}" for layer in range(12) for kind in KINDS]
    held: dict[str, Any] = {}

    def bare() -> None:
        with torch.no_grad():
            held["bare"] = module(input_ids=ids, use_cache=False).logits

    def plain() -> None:
        held["plain"] = model.run(batch).output

    def captured() -> None:
        held["captured"] = model.run(batch, sites)

    cases = (
        ("pass without sites over the bare forward", plain, 1.02),
        ("pass reading 48 module boundaries over the bare forward", captured, 1.15),
    )
    rows = []
    for name, run, bar in cases:
        value = ratio(run, bare, options.pairs)
        rows.append({"name": name, "value": value, "unit": "×", "bar": bar, "pass": value <= bar})
    assert torch.equal(held["plain"], held["bare"])
    assert torch.equal(held["captured"].output, held["bare"])
    for row in rows:
        verdict = "pass" if row["pass"] else "FAIL"
        print(f"{row['name']:60} {row['value']:7.3f} {row['unit']}  at most {row['bar']:g}  {verdict}")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
