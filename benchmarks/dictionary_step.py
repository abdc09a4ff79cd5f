"""What a training step of a TopK dictionary costs, beside the one dense product it cannot avoid, and others beside it.

What is compared is timed in turn, so that whatever else the machine does falls on both; medians. AuxK is on, with
a hundredth, a tenth and a quarter of the latents dead. Memory is kept as `prosect fit` keeps it. The bar for the
large size is 1.5 products on a processor that multiplies bfloat16, and 2.2 on others.

    python benchmarks/dictionary_step.py [--json FILE] [--pairs 30] [--large] [--peer]
    python benchmarks/dictionary_step.py --gpu [--json FILE] [--pairs 30] [--profile]

``--peer`` puts steps of SAELens' own trainer beside ours, on the same batches, in the environment of `formats.py`.
``--gpu`` measures tokens a second on a CUDA device instead (`gpu_step.py`), at d=768 n=24,576 k=32 in bfloat16.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from statistics import median

import torch

import gpu_step
from figures import Figure, report
from prosect.core.allocation import keep_freed_memory
from prosect.core.seeds import Seed
from prosect.decompose.dictionary import Dictionary
from prosect.decompose.objectives import L1, BatchTopK, Gated, JumpReLU, Matryoshka, Objective
from prosect.decompose.recipe import Recipe
from prosect.decompose.screening import available
from prosect.decompose.sparsity import TopK
from prosect.decompose.streams import ArrayStream
from prosect.decompose.trainer import Trainer

BATCH = 2048


def timed(work) -> float:
    """Seconds of one call."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def started(sparsity: TopK | Objective, x: torch.Tensor, latents: int) -> Trainer:
    """A trainer about to make its first step."""
    recipe = Recipe(batch=BATCH, dead_after=10 * BATCH)
    trainer = Trainer(Dictionary("x", latents, sparsity, recipe=recipe), {"x": x.shape[1]}, 10**6)
    trainer.start(ArrayStream({"x": x}))
    return trainer


def beside_topk(width: int, latents: int, k: int, pairs: int) -> dict[str, float]:
    """What steps of other kinds cost, over TopK's: the median of the ratios of neighbours in time."""
    x = torch.randn(BATCH, width, generator=Seed(0).torch())
    trainers = [started(of(k), x, latents) for of in (TopK, BatchTopK, Matryoshka)]
    times = []
    for _ in range(pairs + 3):
        times.append([timed(lambda t=trainer: t.advance({"x": x})) for trainer in trainers])
    plain, *others = zip(*times[3:], strict=True)
    return {
        trainer.objective.name: median(a / b for a, b in zip(other, plain, strict=True))
        for trainer, other in zip(trainers[1:], others, strict=True)
    }


def cost(width: int, latents: int, k: int, pairs: int, dead: float) -> tuple[float, float]:
    """Median seconds of a step and of the encoder's product."""
    x = torch.randn(BATCH, width, generator=Seed(0).torch())
    trainer = started(TopK(k), x, latents)
    batch, weight, bias = {"x": x}, trainer.encoder.detach().clone(), trainer.bias.detach().clone()
    steps, products = [], []
    for _ in range(pairs + 3):
        trainer.idle.zero_()
        trainer.idle[: int(dead * latents)] = 10**9
        steps.append(timed(lambda: trainer.advance(batch)))
        products.append(timed(lambda: torch.addmm(bias, x, weight.T)))
    return median(steps[3:]), median(products[3:])


def beside_saelens(
    kind: str, width: int, latents: int, k: int, pairs: int, dead: float
) -> tuple[float, float]:
    """Seconds of a step of SAELens' trainer of a kind, with its defaults, and of ours.

    TopK's sparse activations are an option there that stops with an error where latents are dead (6.54.12, torch
    2.13). On random activations half of all latents fire under L1, JumpReLU and Gated, as they do when a training begins.
    """
    from sae_lens import saes
    from sae_lens.config import LoggingConfig, SAETrainerConfig
    from sae_lens.training.sae_trainer import SAETrainer

    own_kinds: dict[str, tuple[TopK | Objective, str, dict[str, float]]] = {
        "topk": (TopK(k), "TopK", {"k": k}),
        "l1": (L1(), "Standard", {"l1_coefficient": 1.0}),
        "jumprelu": (JumpReLU(target_l0=float(k)), "JumpReLU", {}),
        "gated": (Gated(), "Gated", {"l1_coefficient": 1.0}),
    }
    objective, name, more = own_kinds[kind]
    x = torch.randn(BATCH, width, generator=Seed(0).torch())
    config = getattr(saes, f"{name}TrainingSAEConfig")(
        d_in=width, d_sae=latents, dtype="float32", device="cpu", **more
    )
    theirs = SAETrainer(
        SAETrainerConfig(
            total_training_samples=10**6 * BATCH,
            train_batch_size_samples=BATCH,
            lr_end=3e-4,
            logger=LoggingConfig(log_to_wandb=False),
        ),
        getattr(saes, f"{name}TrainingSAE")(config),
        iter([]),
    )
    trainer, count = started(objective, x, latents), int(dead * latents)

    def peer() -> None:
        theirs.n_forward_passes_since_fired.zero_()
        theirs.n_forward_passes_since_fired[:count] = 10**6
        theirs._train_step(theirs.sae, x)

    def own() -> None:
        trainer.idle.zero_()
        trainer.idle[:count] = 10**9
        trainer.advance({"x": x})

    times = [(timed(peer), timed(own)) for _ in range(pairs + 2)][2:]
    return median(t for t, _ in times), median(t for _, t in times)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--pairs", type=int, default=30)
    parser.add_argument("--large", action="store_true", help="also d=768 n=12,288 k=32")
    parser.add_argument("--peer", action="store_true", help="also SAELens' trainer at that size")
    parser.add_argument(
        "--gpu", action="store_true", help="tokens a second on a CUDA device, and nothing else"
    )
    parser.add_argument("--profile", action="store_true", help="with --gpu: where the time of a step goes")
    asked = parser.parse_args()
    if asked.gpu:
        if not torch.cuda.is_available():
            print(gpu_step.NONE, file=sys.stderr)
            return 2
        sizes = [gpu_step.Size(batch=batch) for batch in (4096, 32_768)]
        found = gpu_step.measured(sizes, asked.pairs)
        if asked.profile:
            print(gpu_step.profile(sizes[-1], "cuda"))
        return 0 if report(found, asked.json) else 1
    torch.set_num_threads(min(2, torch.get_num_threads()))
    keep_freed_memory()
    print("bfloat16 units:", "yes" if available() else "no")
    sizes = [(256, 1024, 16), (256, 2048, 32)] + ([(768, 12_288, 32)] if asked.large else [])
    figures = []
    for width, latents, k in sizes:
        for dead in (0.0099, 0.1, 0.25):
            step, product = cost(width, latents, k, asked.pairs, dead)
            name = f"step, d={width} n={latents} k={k}, {dead:.0%} dead"
            figures.append(Figure(name, 1e3 * step, "ms", "<= 60" if width == 256 and dead < 0.01 else ""))
            bar = f"<= {1.5 if available() else 2.2}" if width == 768 and dead <= 0.1 else ""
            figures.append(Figure(f"{name}: over its encoder product", step / product, "times", bar))
        for name, ratio in beside_topk(width, latents, k, asked.pairs).items():
            figures.append(
                Figure(f"step, d={width} n={latents} k={k}: {name} over topk", ratio, "times", "<= 1.5")
            )
    for dead in (0.0, 0.0099, 0.1) if asked.peer else ():
        peer, own = beside_saelens("topk", 768, 12_288, 32, max(3, asked.pairs // 5), dead)
        name = f"step, d=768 n=12288 k=32, {dead:.0%} dead: SAELens"
        figures.append(Figure(name, 1e3 * peer, "ms"))
        figures.append(Figure(f"{name} over ours", peer / own, "times", ">= 6"))
    for width, latents in ((256, 1024), (768, 12_288)) if asked.peer else ():
        for kind in ("l1", "jumprelu", "gated"):
            peer, own = beside_saelens(kind, width, latents, 32, max(3, asked.pairs // 5), 0.0)
            name = f"step, d={width} n={latents}: SAELens' {kind} over ours"
            figures.append(Figure(name, peer / own, "times", "" if kind == "gated" else ">= 1"))
    return 0 if report(figures, asked.json) else 1


if __name__ == "__main__":
    sys.exit(main())
