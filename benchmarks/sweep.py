"""What a sweep costs against one forward for each cell, and against the floor that the cone of each edit allows.

GPT-2-small size, random weights, one pair of prompts of 64 positions, one logit difference at the last position.
(a) every (layer, position) of the residual stream patched from the other prompt; (b) every head at every position.
The baseline is one whole pass for each of some cells drawn at random; the scores of these are compared.

The floor counts the weights that must be applied: 12 d² for each position of a block from the edited one on, in the
last block keys and values (2 d²) for those and all of it for the read one, one unembedding; for a head, in its own
block what follows attention at its own position alone.
"""

from __future__ import annotations

import argparse
import gc
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from figures import Figure, report
from prosect.core.seeds import Seed
from prosect.data.batch import Batch
from prosect.model import edits
from prosect.model.edits import Edit
from prosect.model.model import Model

POSITIONS, LAYERS, HEADS, WIDTH, VOCABULARY = 64, 12, 12, 768, 50257


def difference(output: Tensor, batch: Batch) -> Tensor:
    """One logit less another, at the only or the last position."""
    return output[:, -1, 17] - output[:, -1, 4711]


def floor(heads: bool) -> float:
    """Mean share of a forward that a cell must cost, by the weights that it must apply."""
    head = VOCABULARY / WIDTH  # in units of d²
    whole = POSITIONS * (LAYERS * 12 + head)
    cells = []
    for layer in range(LAYERS):
        for position in range(POSITIONS):
            reach, last = POSITIONS - position, position == POSITIONS - 1
            blocks = LAYERS - 1 - layer  # entered before the last, if it is not the last itself
            own = 9.0 if heads else 0.0
            if heads and layer == LAYERS - 1:
                cells.append((own + head) if last else 0.0)
                continue
            full = blocks - 1 if heads else blocks
            cells.append(own + full * 12 * reach + 2 * reach + 10 + head)
    return float(np.mean(cells)) / whole


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--baseline", type=int, default=96, help="cells timed one by one")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--budget", type=float, default=512.0, help="MB")
    parser.add_argument("--every", type=int, default=1, help="take each so-manieth position alone")
    parser.add_argument("--part", choices=["stream", "heads", "both"], default="both")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    model = Model.of(GPT2LMHeadModel(GPT2Config()).eval(), name="gpt2-small size")
    pair = torch.randint(VOCABULARY, (2, POSITIONS), generator=Seed(0).child("tokens").torch())
    batch = model.batch(pair[:1])
    names = [f"{kind}.{layer}" for layer in range(LAYERS) for kind in ("resid_pre", "z")]
    other = model.run(pair[1:], names)
    assert model.placing is not None  # proved once for a model, before anything is timed
    figures: list[Figure] = []
    stream = [
        [edits.patch(f"resid_pre.{layer}", other[f"resid_pre.{layer}"], positions=p)]
        for layer in range(LAYERS)
        for p in range(layer % options.every, POSITIONS, options.every)
    ]
    heads = [
        [edits.patch(f"z.{layer}", other[f"z.{layer}"], positions=p, heads=h)]
        for layer in range(LAYERS)
        for p in range(layer % options.every, POSITIONS, options.every)
        for h in range(HEADS)
    ]
    jobs = (
        ("stream", "every layer and position", stream, 5.0),
        ("heads", "every head and position", heads, 6.0),
    )
    for part, what, cells, bar in jobs:
        if options.part in (part, "both"):
            figures += measured(model, batch, cells, options, what, bar, 1 / floor(part == "heads"))
    if not report(figures, options.json):
        raise SystemExit(1)


def measured(
    model: Model,
    batch: Batch,
    cells: list[list[Edit]],
    options: argparse.Namespace,
    what: str,
    bar: float,
    ceiling: float,
) -> list[Figure]:
    """One sweep against some of its cells run one by one, half of these before it and half after."""
    chosen = (
        Seed(0).child("cells").numpy().choice(len(cells), min(options.baseline, len(cells)), replace=False)
    )
    half = len(chosen) // 2
    model.run(batch, edits=cells[0])  # warm
    first, seconds_first = singly(model, batch, [cells[i] for i in chosen[:half]])
    start = time.perf_counter()
    with peak() as memory:
        swept = model.swept(cells, batch, difference, budget_mb=options.budget, reads=-1)
    seconds = time.perf_counter() - start
    second, seconds_second = singly(model, batch, [cells[i] for i in chosen[half:]])
    one = (seconds_first + seconds_second) / len(chosen)
    error = np.abs(np.concatenate([first, second]) - swept.scores[chosen, 0]).max()
    faster = one * len(cells) / seconds
    assert swept.ways == {"cone": len(cells)}, swept.reasons
    return [
        Figure(f"{what}: cells", float(len(cells))),
        Figure(f"{what}: one forward", one * 1e3, "ms"),
        Figure(f"{what}: faster than one forward for each cell", faster, "×", f">= {bar:g}"),
        Figure(f"{what}: what the cone allows", ceiling, "×"),
        Figure(f"{what}: share of what the cone allows", faster / ceiling),
        Figure(f"{what}: forwards' worth of weights applied, for each cell", swept.forwards / len(cells)),
        Figure(f"{what}: largest difference of a score", float(error), "", "<= 1e-05"),
        Figure(f"{what}: passes", float(swept.passes)),
        Figure(f"{what}: memory planned", swept.planned_mb, "MB", f"<= {options.budget:g}"),
        Figure(
            f"{what}: largest resident memory over that before",
            max(memory) - memory[0],
            "MB",
            f"<= {options.budget:g}",
        ),
    ]


@contextmanager
def peak() -> Iterator[list[float]]:
    """Resident memory in MB, before and then every few milliseconds while the block lasts."""
    gc.collect()
    page = 4096 / 2**20
    seen: list[float] = []
    done = threading.Event()

    def look() -> None:
        seen.append(int(Path("/proc/self/statm").read_text().split()[1]) * page)

    def watch() -> None:
        while not done.wait(0.003):
            look()

    look()
    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        done.set()
        thread.join()


def singly(model: Model, batch: Batch, cells: list[list[Edit]]) -> tuple[np.ndarray, float]:
    """Each cell in a pass of its own, and the seconds they took."""
    start = time.perf_counter()
    scores = [float(difference(model.run(batch, edits=listed).output, batch)) for listed in cells]
    return np.array(scores), time.perf_counter() - start


if __name__ == "__main__":
    main()
