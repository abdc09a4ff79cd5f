"""What training through the model gains: KL with a dictionary in the place of activations, at equal L0, on pylm.

For each seed a TopK dictionary trained on activations, one that goes through them ten times, one trained end to end, and
one trained end to end with the error of later layers, on the same tokens with the same recipe. The KL divergence from the clean predictions to those with the
dictionary in their place is measured on documents that none of them saw; differences are paired by document, and
intervals resample documents.
"""

from __future__ import annotations

import argparse
import time
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from figures import Figure, report
from prosect.assay.openings.unstudied import unstudied
from prosect.assay.presets import resolve
from prosect.core.intervals import INTERVAL_DRAWS, Mean, Resamples
from prosect.core.seeds import Seed
from prosect.data.batch import Batch
from prosect.decompose.dictionary import Dictionary
from prosect.decompose.live import LiveStream
from prosect.decompose.recipe import Recipe
from prosect.decompose.sparsity import TopK
from prosect.decompose.streams import first
from prosect.decompose.through import Through

WAYS: dict[str, dict[str, Any]] = {
    "local": {},
    "local, 10 times": {},
    "e2e": {"end_to_end": True},
    "e2e+ds": {"end_to_end": True, "downstream": 1.0},
    "local, then e2e": {"end_to_end": True, "local": 0.75},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--site", default="resid_post.1")
    parser.add_argument("--latents", type=int, default=1024)
    parser.add_argument("--k", type=int, default=16)
    parser.add_argument("--batch", type=int, default=1024, help="positions in a step")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--ways", nargs="+", default=list(WAYS))
    parser.add_argument("--rows", type=int, default=96, help="rows of held-out text")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--work", type=Path, help="checkpoints, so that it goes on after a kill")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    opened = unstudied(resolve("pylm", {"data.explore_windows": 10**6}))
    model, site = opened.model, options.site
    held = list(islice(opened.source.batches("validate.0", 16), options.rows // 16))
    stream = LiveStream(
        model, opened.source, "explore", (site,), options.batch * options.steps, Seed(0).child("text")
    )
    kept = first(stream, len(stream))
    figures: list[Figure] = []
    for seed in options.seeds:
        kl: dict[str, np.ndarray] = {}
        for way in options.ways:
            recipe = Recipe(batch=options.batch, rate=options.rate, **WAYS[way])
            made = Dictionary(site, options.latents, TopK(options.k), recipe=recipe, seed=Seed(seed))
            shown = stream if recipe.end_to_end else kept
            if way.endswith("10 times"):  # about as much time as end to end takes
                shown = kept.shuffled(Seed(0).child("again"), epochs=10)
            began = time.perf_counter()
            work = None if options.work is None else options.work / f"{way}-{seed}"
            made.fit(shown, work, 20)
            seconds = time.perf_counter() - began
            kl[way], l0, fvu = measured(model, made, held)
            what = f"seed {seed}, {way}"
            figures += [
                Figure(f"{what}: KL", float(kl[way][:, 1].sum() / kl[way][:, 0].sum()), "nats"),
                Figure(f"{what}: L0", l0),
                Figure(f"{what}: FVU of the activations", fvu),
                Figure(f"{what}: dead", float(made.history_[-1]["dead"])),
                Figure(f"{what}: training", seconds, "s"),
            ]
            print(figures[-5:], flush=True)
        for way in options.ways:
            if way != "local" and "local" in kl:
                sums = np.stack([kl["local"][:, 0], kl["local"][:, 1] - kl[way][:, 1]], axis=1)
                gain = Resamples(len(sums), INTERVAL_DRAWS, Seed(0)).measure([sums], Mean()).measured
                figures.append(
                    Figure(f"seed {seed}: KL local less {way}", float(gain.estimate), "nats", ">= 0")
                )
                figures.append(Figure(f"seed {seed}: its interval from", float(gain.low), "nats"))
                figures.append(Figure(f"seed {seed}: its interval to", float(gain.high), "nats"))
    if not report(figures, options.json):
        raise SystemExit(1)


def measured(model: object, made: Dictionary, held: list[Batch]) -> tuple[np.ndarray, float, float]:
    """For each document its positions and the sum of their KL; L0; and the FVU of the activations."""
    (site,) = made.reads
    through = Through(model, {site: slice(0, None)})
    rows: dict[int, np.ndarray] = {}
    fired = missed = positions = 0.0
    seen = []
    with torch.no_grad():
        for batch in held:
            for i in range(len(batch)):
                one = batch.select([i])
                clean = model.run(one, capture=(site,))  # type: ignore[attr-defined]
                x = one.flat(clean[site])
                codes = made.encode({site: x})
                y = made.reconstruct({site: x}, codes)[site]
                nats = through.divergence(clean, y)[0]
                sums = np.array([len(x), float(nats) * len(x)])
                unit = int(one.units[0])
                rows[unit] = rows.get(unit, np.zeros(2)) + sums
                fired, positions = fired + float(codes.active.sum()), positions + len(x)
                missed += float((x - y).square().sum())
                seen.append(x)
    every = torch.cat(seen).double()
    spread = float((every - every.mean(dim=0)).square().sum())
    return np.stack(list(rows.values())), fired / positions, missed / spread


if __name__ == "__main__":
    main()
