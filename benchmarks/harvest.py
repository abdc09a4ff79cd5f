"""What harvesting costs beside the bare forward, what training on the fly costs beside the two apart, and memory.

Harvest and forward are timed in turn, so that whatever else the machine does falls on both; medians. The forward stops
where harvesting stops: it is the same model cut after the site. Memory is the peak of a process of its own, for little
and for much text, on a model of width 32.

    python benchmarks/harvest.py [--json FILE] [--pairs 30] [--small] [--tokens 3000000]
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

from figures import Figure, report
from prosect.core.allocation import keep_freed_memory
from prosect.core.seeds import Seed
from prosect.data.batch import Batch, Row
from prosect.decompose.activations import SHARD_BYTES, harvest
from prosect.decompose.dictionary import Dictionary
from prosect.decompose.live import LiveStream
from prosect.decompose.recipe import Recipe
from prosect.decompose.sparsity import TopK
from prosect.model.model import Model

PART = "explore"


class Text:
    """Random tokens, made as they are asked for, so that no corpus is in memory."""

    unit = "document"

    def __init__(self, rows: int, length: int, vocabulary: int, tokens: int) -> None:
        self.rows, self.length, self.vocabulary = rows, length, vocabulary
        self.units = {PART: max(1, tokens // length)}
        self.digest = f"{rows} {length} {vocabulary} {tokens}"

    def batches(self, part: str, rows: int = 32) -> Iterator[Batch]:
        """Documents of one length."""
        for start in range(0, self.units[part], rows):
            count = min(rows, self.units[part] - start)
            generator = Seed(0).child("text", start).torch()
            ids = torch.randint(self.vocabulary, (count, self.length), generator=generator)
            mask = torch.ones_like(ids, dtype=torch.bool)
            yield Batch({"input_ids": ids}, mask, tuple(Row(start + i) for i in range(count)))


def model_of(config: GPT2Config) -> tuple[Model, nn.Module, str]:
    """A model with random weights, the same one cut after its middle block, and the site there."""
    torch.manual_seed(0)
    module = GPT2LMHeadModel(config).eval()
    half = config.n_layer // 2
    cut = GPT2LMHeadModel(config).eval()
    cut.load_state_dict(module.state_dict())
    cut.transformer.h = cut.transformer.h[:half]
    cut.transformer.ln_f = nn.Identity()
    return Model.of(module, name="gpt2"), cut.transformer, f"resid_post.{half - 1}"


def timed(work) -> float:
    """Seconds of one call."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def speed(config: GPT2Config, rows: int, length: int, batches: int, pairs: int, name: str) -> list[Figure]:
    """Tokens a second of harvesting to disk over those of the bare forward up to the same site."""
    model, bare, site = model_of(config)
    text = Text(rows, length, config.vocab_size, rows * length * batches)
    ratios = []
    for pair in range(pairs + 2):
        with tempfile.TemporaryDirectory() as folder:

            def kept(folder: str = folder) -> None:
                harvest(model, text, PART, (site,), Path(folder) / "a", rows=rows)

            def forward() -> None:
                with torch.no_grad():
                    for batch in text.batches(PART, rows):
                        bare(input_ids=batch.tensors["input_ids"], use_cache=False)

            first, second = (kept, forward) if pair % 2 else (forward, kept)
            took = {first: timed(first), second: timed(second)}
            if pair >= 2:  # the first two warm up
                ratios.append(took[forward] / took[kept])
    return [
        Figure(
            f"{name}: tokens/s of harvesting to disk over the bare forward's", median(ratios), "", ">= 0.85"
        )
    ]


def together(config: GPT2Config, rows: int, length: int, batches: int, pairs: int, name: str) -> list[Figure]:
    """Seconds of training on a live stream over those of harvesting and of training on disk, summed."""
    model, _, site = model_of(config)
    tokens = rows * length * batches
    text = Text(rows, length, config.vocab_size, tokens)
    recipe = Recipe(batch=1024, start_rows=1024)
    width = config.n_embd
    ratios = []

    def blank() -> Dictionary:
        return Dictionary(site, 8 * width, TopK(16), recipe=recipe)

    for pair in range(pairs + 1):
        with tempfile.TemporaryDirectory() as folder:

            def apart(folder: str = folder) -> None:
                kept = harvest(model, text, PART, (site,), Path(folder) / "a", rows=rows)
                blank().fit(kept.shuffled(Seed(1)))

            def live() -> None:
                buffer = min(2**14, tokens // 8)
                blank().fit(LiveStream(model, text, PART, (site,), tokens, rows=rows, buffer=buffer))

            first, second = (apart, live) if pair % 2 else (live, apart)
            took = {first: timed(first), second: timed(second)}
            if pair:  # the first warms up
                ratios.append(took[live] / took[apart])
    return [Figure(f"{name}: training live over harvesting and then training", median(ratios), "", "<= 1.1")]


TINY = {"n_embd": 32, "n_layer": 2, "n_head": 2, "vocab_size": 512, "n_positions": 128}


def tiny() -> GPT2Config:
    """Width 32, two blocks."""
    return GPT2Config(**TINY, bos_token_id=0, eos_token_id=0)


def harvest_here(tokens: int) -> None:
    """Harvest and stream so many tokens in this process, and print its peak memory in MB."""
    torch.set_num_threads(1)
    model, _, site = model_of(tiny())
    with tempfile.TemporaryDirectory() as folder:
        # more than a few shards for the little text already, so that neither is all in memory
        kept = harvest(
            model,
            Text(32, 128, 512, tokens),
            PART,
            (site,),
            Path(folder) / "a",
            shard_bytes=SHARD_BYTES // 64,
        )
        for _ in kept.shuffled(Seed(0)).blocks():
            pass
    print(peak())


def peak() -> float:
    """Peak memory of this process in MB. What getrusage says can be that of the process that started it."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return float(line.split()[1]) / 1024


def memory(tokens: int) -> list[Figure]:
    """Peak memory for little and for much text, each in a process of its own."""
    peaks = []
    for count in (100_000, tokens):
        command = [sys.executable, __file__, "--harvest", str(count)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        peaks.append(float(done.stdout.split()[-1]))
    return [
        Figure("peak memory at 100,000 tokens, width 32", peaks[0], "MB"),
        Figure(f"peak memory at {tokens:,} tokens, width 32", peaks[1], "MB"),
        Figure("the second over the first", peaks[1] / peaks[0], "", "<= 1.1"),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--pairs", type=int, default=30)
    parser.add_argument("--tokens", type=int, default=3_000_000)
    parser.add_argument("--small", action="store_true", help="a small model only, to see that it runs")
    parser.add_argument("--harvest", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    keep_freed_memory()  # as the command line does
    if asked.harvest:
        harvest_here(asked.harvest)
        return 0
    torch.set_num_threads(min(2, torch.get_num_threads()))
    few = max(1, asked.pairs // 3)
    sizes = {"n_embd": 256, "n_layer": 4, "n_head": 8, "vocab_size": 4096, "n_positions": 128}
    middling = GPT2Config(**sizes, bos_token_id=0, eos_token_id=0)
    figures = speed(middling, 32, 128, 8, asked.pairs, "width 256, 2 of 4 blocks")
    figures += together(middling, 32, 128, 16, few, "width 256, 2,048 latents")
    if not asked.small:
        figures += speed(GPT2Config(), 8, 128, 4, few, "GPT-2-small size, 6 of 12 blocks")
    figures += memory(asked.tokens)
    return 0 if report(figures, asked.json) else 1


if __name__ == "__main__":
    sys.exit(main())
