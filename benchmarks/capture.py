"""What reading sites costs: a pass with none, and one with 48 module boundaries, against the bare forward.

GPT-2-small size, random weights, 8 rows of 64 tokens; and a model of two blocks and width 64, one row, where what a
pass adds cannot hide. Medians over interleaved pairs in one process, so that what else the machine does falls on
both sides alike.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import GPT2Config, GPT2LMHeadModel

from figures import Figure, report
from prosect.core.seeds import Seed
from prosect.model.model import Model

KINDS = ("resid_pre", "attn_out", "mlp_out", "resid_post")


def pairs(a: Callable[[], Any], b: Callable[[], Any], count: int) -> list[tuple[float, float]]:
    """Seconds that ``a`` and ``b`` take, pair by pair, the first of a pair alternating."""
    found = []
    for i in range(count + 2):
        seconds = {}
        for name, run in [("a", a), ("b", b)][:: 1 if i % 2 else -1]:
            start = time.perf_counter()
            run()
            seconds[name] = time.perf_counter() - start
        if i >= 2:  # the first two warm up
            found.append((seconds["a"], seconds["b"]))
    return found


def compared(config: GPT2Config, rows: int, count: int, small: bool) -> list[Figure]:
    """A pass without sites, and one that reads four in every block, against the bare forward."""
    torch.manual_seed(0)
    module = GPT2LMHeadModel(config).eval()
    model = Model.of(module, name="gpt2")
    ids = torch.randint(config.vocab_size, (rows, 64), generator=Seed(0).child("tokens").torch())
    batch = model.batch(ids)
    sites = [f"{kind}.{layer}" for layer in range(config.n_layer) for kind in KINDS]
    held: dict[str, Any] = {}

    def bare() -> None:
        with torch.no_grad():
            held["bare"] = module(input_ids=ids, use_cache=False).logits

    def plain() -> None:
        held["plain"] = model.run(batch).output

    def captured() -> None:
        held["captured"] = model.run(batch, sites)

    figures = []
    cases = ((plain, "pass without sites", 1.02), (captured, f"pass reading {len(sites)} sites", 1.15))
    for run, what, bar in cases:
        found = pairs(run, bare, count)
        if small:
            added = statistics.median(a - b for a, b in found) * 1e3
            figures.append(Figure(f"two blocks of width 64: added by a {what}", added, "ms", "<= 0.3"))
            continue
        ratio = statistics.median(a / b for a, b in found)
        figures.append(Figure(f"{what} over the bare forward", ratio, "×", f"<= {bar}"))
    assert torch.equal(held["plain"], held["bare"])
    assert torch.equal(held["captured"].output, held["bare"])
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    figures = compared(GPT2Config(), 8, options.pairs, small=False)
    tiny = GPT2Config(
        n_embd=64, n_layer=2, n_head=4, vocab_size=1000, n_positions=64, bos_token_id=0, eos_token_id=0
    )
    figures += compared(tiny, 1, 20 * options.pairs, small=True)
    if not report(figures, options.json):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
