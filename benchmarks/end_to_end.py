"""What a short end through the model gains: KL with a dictionary in the place of activations, at equal L0, on pylm.

For each seed a TopK dictionary is trained on activations until it hardly improves, and goes on for some steps either on
activations or end to end, at the same rate. The KL divergence from the clean predictions to those with the dictionary in
their place is measured on documents that none of them saw; differences are paired by document, and intervals resample
documents. With `--scratch`, one that is end to end from the start on as many tokens is measured too.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from figures import Figure, report
from prosect.assay.openings.unstudied import unstudied
from prosect.assay.presets import resolve
from prosect.core.intervals import INTERVAL_DRAWS, Mean, Resamples
from prosect.core.seeds import Seed
from prosect.data.batch import Batch
from prosect.decompose.contract import ActivationStream
from prosect.decompose.dictionary import Dictionary
from prosect.decompose.live import LiveStream
from prosect.decompose.recipe import Recipe
from prosect.decompose.sparsity import TopK
from prosect.decompose.streams import ArrayStream, first
from prosect.decompose.through import Through, ThroughTrainer
from prosect.decompose.trainer import Trainer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--site", default="resid_post.1")
    parser.add_argument("--latents", type=int, default=512)
    parser.add_argument("--k", type=int, default=16)
    parser.add_argument("--batch", type=int, default=1024, help="positions in a step")
    parser.add_argument("--steps", type=int, default=120, help="of an epoch on activations, and of the end")
    parser.add_argument("--epochs", type=int, default=10, help="on activations")
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--end-rate", type=float, default=1e-3)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--scratch", action="store_true")
    parser.add_argument("--rows", type=int, default=96, help="rows of held-out text")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    opened = unstudied(resolve("pylm", {"data.explore_windows": 10**6}))
    site = options.site
    held = list(islice(opened.source.batches("validate.0", 16), options.rows // 16))
    tokens = options.batch * options.steps
    stream = LiveStream(opened.model, opened.source, "explore", (site,), tokens, Seed(0).child("text"))
    kept = first(stream, tokens)
    figures: list[Figure] = []
    for seed in options.seeds:
        kl: dict[str, np.ndarray] = {}
        for way, (made, trainer, seconds) in trained(options, stream, kept, Seed(seed)).items():
            made.with_weights(trainer.weights(), {site: kept.widths[site]})
            trainer.note()
            kl[way], l0, fvu = measured(opened.model, made, held)
            what = f"seed {seed}, {way}"
            figures += [
                Figure(f"{what}: KL", float(kl[way][:, 1].sum() / kl[way][:, 0].sum()), "nats"),
                Figure(f"{what}: L0", l0),
                Figure(f"{what}: FVU of the activations", fvu),
                Figure(f"{what}: dead", float(trainer.history[-1]["dead"])),
                Figure(f"{what}: training", seconds, "s"),
            ]
        sums = np.stack([kl["local"][:, 0], kl["local"][:, 1] - kl["e2e"][:, 1]], axis=1)
        gain = Resamples(len(sums), INTERVAL_DRAWS, Seed(0)).measure([sums], Mean()).measured
        figures.append(Figure(f"seed {seed}: KL local less e2e", float(gain.estimate or 0), "nats", ">= 0"))
        figures.append(Figure(f"seed {seed}: its interval from", float(gain.low or 0), "nats"))
        figures.append(Figure(f"seed {seed}: its interval to", float(gain.high or 0), "nats"))
    if not report(figures, options.json):
        raise SystemExit(1)


def trained(
    options: argparse.Namespace, stream: LiveStream, kept: ArrayStream, seed: Seed
) -> dict[str, tuple[Dictionary, Trainer, float]]:
    """What each way ends with, and the seconds of its own part."""
    recipe = Recipe(batch=options.batch, rate=options.rate)
    through = Recipe(batch=options.batch, rate=options.end_rate, end_to_end=True)

    def made(recipe: Recipe) -> Dictionary:
        return Dictionary(options.site, options.latents, TopK(options.k), recipe=recipe, seed=seed)

    widths = kept.widths
    start = Trainer(made(recipe), widths, options.steps * options.epochs)
    start.start(kept)
    out = {"start": (start.dictionary, start, gone(start, kept.shuffled(Seed(1), options.epochs)))}
    on = Trainer(made(replace(recipe, rate=options.end_rate)), widths, options.steps)
    end = ThroughTrainer(made(through), stream)
    for way, trainer in (("local", on), ("e2e", end)):
        trainer.restore({name: t.clone() for name, t in start.tensors().items()}, 0, [])
        trainer.optimiser.state.clear()
        out[way] = (trainer.dictionary, trainer, gone(trainer, kept.shuffled(Seed(2), 1)))
    if options.scratch:
        alone = ThroughTrainer(made(replace(through, rate=options.rate)), stream)
        alone.start(alone.inputs)
        out["e2e from the start"] = (alone.dictionary, alone, gone(alone, stream))
    return out


def gone(trainer: Trainer, stream: ActivationStream) -> float:
    """Train to the end; the seconds."""
    began = time.perf_counter()
    for _ in trainer.over(stream):
        pass
    return time.perf_counter() - began


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
