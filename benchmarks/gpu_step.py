"""What a training step costs on a GPU: tokens a second, by Triton and by torch, beside what the device could do at best.

The roofline is measured, not read off a datasheet: the rate of a large product in bfloat16 and of a large copy, on
random numbers. A step at its best makes the encoder's product once, reads and writes the pre-activations once, gathers k
rows a token four times (decoding, the codes' gradient, and two of weights), and goes over the weights and their moments.
Before anything is timed, the steps of both ways are compared: they must have the same losses.
"""

from __future__ import annotations

import importlib.util
import time
from dataclasses import dataclass
from statistics import median

import torch

from figures import Figure
from prosect.core.seeds import Seed
from prosect.decompose.dictionary import Dictionary
from prosect.decompose.recipe import Recipe
from prosect.decompose.sparsity import TopK
from prosect.decompose.streams import ArrayStream
from prosect.decompose.trainer import Trainer

NONE = "no CUDA device: torch finds none, so nothing was measured; --gpu is for a machine that has one"
SETS = 4
"""Batches in turn, so that no cache holds the next one."""


@dataclass(frozen=True)
class Size:
    """What is trained."""

    width: int = 768
    latents: int = 24_576
    k: int = 32
    batch: int = 32_768

    @property
    def words(self) -> str:
        return f"d={self.width} n={self.latents} k={self.k}, batch {self.batch:,}"


def seconds(work, device: str, repeats: int) -> float:
    """Median seconds of one call, with all its work done; the first calls compile and are not counted."""

    def ready() -> None:
        if device != "cpu":
            torch.cuda.synchronize()

    times = []
    for _ in range(repeats + 3):
        ready()
        began = time.perf_counter()
        work()
        ready()
        times.append(time.perf_counter() - began)
    return median(times[3:])


def batches(size: Size, device: str) -> list[torch.Tensor]:
    """Random activations that are sums of few directions."""
    generator = torch.Generator(device=device).manual_seed(0)
    directions = torch.randn(4 * size.width, size.width, device=device, generator=generator)
    out = []
    for _ in range(SETS):
        there = torch.rand(size.batch, len(directions), device=device, generator=generator)
        out.append((there * (there < 32 / len(directions))) @ directions + 0.1)
    return out


def started(size: Size, x: torch.Tensor, device: str, **recipe: str) -> Trainer:
    """A trainer about to make its first step, without dead latents."""
    asked = Recipe(batch=size.batch, dead_after=10**9, **recipe)
    made = Dictionary("x", size.latents, TopK(size.k), recipe=asked, device=device, seed=Seed(0))
    trainer = Trainer(made, {"x": size.width}, 10**6)
    trainer.start(ArrayStream({"x": x.cpu()}))
    return trainer


def agreement(size: Size, device: str, ways: tuple[str, str], steps: int = 5) -> float:
    """How far FVU comes apart between two ways to make the same products, over some steps; relative."""
    data, kept = batches(size, device), []
    for kernels in ways:
        trainer = started(size, data[0], device, precision="bfloat16", kernels=kernels)
        for step in range(steps):
            trainer.advance({"x": data[step % SETS]})
            trainer.note()
        kept.append([point["fvu"] for point in trainer.history])
    return max(abs(a / b - 1) for a, b in zip(*kept, strict=True))


def speed(size: Size, device: str, repeats: int, **recipe: str) -> float:
    """Tokens a second of training."""
    data, turn = batches(size, device), iter(range(10**9))
    trainer = started(size, data[0], device, **recipe)
    return size.batch / seconds(lambda: trainer.advance({"x": data[next(turn) % SETS]}), device, repeats)


def roofline(size: Size, device: str, repeats: int, large: int = 8192) -> tuple[float, float, float]:
    """Tokens a second at best, and what that is made of: products in bfloat16 (1/s) and bytes moved (1/s)."""
    generator = torch.Generator(device=device).manual_seed(1)
    a, b = (torch.randn(large, large, device=device, generator=generator).bfloat16() for _ in range(2))
    rate = 2 * large**3 / seconds(lambda: a @ b, device, repeats)
    block = torch.randn(4 * large, large, device=device, generator=generator)
    other = torch.empty_like(block)
    moved = 2 * 4 * block.numel() / seconds(lambda: other.copy_(block), device, repeats)
    operations = 2 * size.width * size.latents + 4 * 2 * size.k * size.width
    weights = 2 * size.width * size.latents
    each = 2 * 2 * size.latents + 4 * 2 * size.k * size.width + 28 * weights / size.batch
    return 1 / max(operations / rate, each / moved), rate, moved


def saelens(size: Size, device: str, repeats: int) -> float:
    """Tokens a second of SAELens' TopK trainer under its autocast."""
    from sae_lens import TopKTrainingSAE, TopKTrainingSAEConfig
    from sae_lens.config import LoggingConfig, SAETrainerConfig
    from sae_lens.training.sae_trainer import SAETrainer

    config = TopKTrainingSAEConfig(
        d_in=size.width, d_sae=size.latents, k=size.k, dtype="float32", device=device
    )
    theirs = SAETrainer(
        SAETrainerConfig(
            total_training_samples=10**6 * size.batch,
            train_batch_size_samples=size.batch,
            lr_end=3e-4,
            device=device,
            autocast=True,
            logger=LoggingConfig(log_to_wandb=False),
        ),
        TopKTrainingSAE(config),
        iter([]),
    )
    data, turn = batches(size, device), iter(range(10**9))
    return size.batch / seconds(
        lambda: theirs._train_step(theirs.sae, data[next(turn) % SETS]), device, repeats
    )


def profile(size: Size, device: str, steps: int = 5) -> str:
    """Where the time of steps goes, by operation."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as recorded

    data = batches(size, device)
    trainer = started(size, data[0], device, precision="bfloat16")
    for step in range(3):
        trainer.advance({"x": data[step % SETS]})
    with recorded(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as found:
        for step in range(steps):
            trainer.advance({"x": data[step % SETS]})
        if device != "cpu":
            torch.cuda.synchronize()
    order = "self_cpu_time_total" if device == "cpu" else "self_device_time_total"
    return found.key_averages().table(sort_by=order, row_limit=20, max_name_column_width=60)


def measured(
    sizes: list[Size],
    repeats: int,
    device: str = "cuda",
    ways: tuple[str, str] = ("triton", "torch"),
    large: int = 8192,
) -> list[Figure]:
    """Every figure; the bars are those of the project's plan for an H200."""
    figures = []
    first, second = ways
    for size in sizes:
        best, rate, moved = roofline(size, device, repeats, large)
        figures.append(Figure(f"product in bfloat16 at {large}", rate / 1e12, "TFLOP/s"))
        figures.append(Figure("copy", moved / 1e9, "GB/s"))
        figures.append(Figure(f"{size.words}: roofline", best / 1e6, "M tokens/s"))
        apart = agreement(size, device, ways)
        figures.append(Figure(f"{size.words}: FVU of {first} from {second}'s", apart, "of it", "<= 0.001"))
        rates = {}
        for kernels in ways:
            for precision in ("bfloat16", "float32"):
                rates[kernels, precision] = speed(size, device, repeats, kernels=kernels, precision=precision)
                name = f"{size.words}: {kernels} in {precision}"
                figures.append(Figure(name, rates[kernels, precision] / 1e6, "M tokens/s"))
        fastest = rates[first, "bfloat16"]
        figures.append(Figure(f"{size.words}: {first} of the roofline", fastest / best, "of it"))
        figures.append(
            Figure(
                f"{size.words}: {first} over {second}", fastest / rates[second, "bfloat16"], "times", ">= 1"
            )
        )
        if importlib.util.find_spec("sae_lens") is not None:
            theirs = saelens(size, device, max(3, repeats // 3))
            figures.append(Figure(f"{size.words}: SAELens", theirs / 1e6, "M tokens/s"))
            figures.append(Figure(f"{size.words}: over SAELens", fastest / theirs, "times"))
        else:
            print("SAELens is not installed here; it is not compared with")
    return figures
