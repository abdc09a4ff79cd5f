"""A model's weights replaced by random ones, from the top down or a few layers at a time, and put back.

The model itself is changed for as long as a block lasts; its own tensors, not copies, come back afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise

import torch
from torch import nn

from prosect.core.seeds import Seed
from prosect.data.batch import Batch
from prosect.model import Model


def layers(model: Model, batch: Batch) -> list[tuple[str, list[nn.Parameter]]]:
    """Modules with parameters of their own, in the order in which a pass first reaches them.

    A module that is never called by itself (a projection whose weight its parent reads) goes with the
    nearest one above it that is. A parameter that two modules share is where the later of them is: weights
    tied to the unembedding are at the top.
    """
    called: dict[nn.Module, int] = {}

    def met(module: nn.Module, _: object) -> None:
        called.setdefault(module, len(called))

    handles = [m.register_forward_pre_hook(met) for m in model.module.modules()]
    try:
        with torch.no_grad():
            model.run(batch.select([0]))
    finally:
        for handle in handles:
            handle.remove()
    order: dict[str, int] = {}
    for path, module in model.module.named_modules():
        above = path.rsplit(".", 1)[0] if "." in path else ""
        order[path] = called.get(module, order.get(above if path else "", len(called)))
    where: dict[int, tuple[int, str, nn.Parameter]] = {}
    for path, module in model.module.named_modules():
        for parameter in module.parameters(recurse=False):
            known = where.get(id(parameter))
            if parameter.is_floating_point() and (known is None or known[0] < order[path]):
                where[id(parameter)] = (order[path], path, parameter)
    found: dict[str, list[nn.Parameter]] = {}
    for _, path, parameter in sorted(where.values(), key=lambda entry: entry[0]):
        found.setdefault(path or "the model", []).append(parameter)
    return list(found.items())


def grouped(
    found: Sequence[tuple[str, list[nn.Parameter]]], count: int
) -> list[tuple[tuple[str, ...], list[nn.Parameter]]]:
    """Layers in at most ``count`` groups of about as many each, the top of the model first."""
    top = list(reversed(found))
    several = min(count, len(top))
    cuts = [round(i * len(top) / several) for i in range(several + 1)] if top else []
    groups = [top[a:b] for a, b in pairwise(cuts)]
    return [(tuple(name for name, _ in g), [p for _, ps in g for p in ps]) for g in groups]


@contextmanager
def randomised(parameters: Sequence[nn.Parameter], seed: Seed) -> Iterator[None]:
    """Random numbers in place of ``parameters``, whatever happens inside, until the block ends.

    A matrix gets normal numbers of mean zero and its own root mean square, so that sizes stay and nothing
    else does. A vector (a bias, a norm's gain) is permuted, for a gain of mean zero would break the network
    rather than randomise it.
    """
    kept = [p.data for p in parameters]
    try:
        for i, parameter in enumerate(parameters):
            data = parameter.data
            rng = seed.child(i).torch()
            if data.ndim < 2:
                order = torch.randperm(data.numel(), generator=rng).to(data.device)
                parameter.data = data.reshape(-1)[order].reshape(data.shape)
            else:
                size = data.double().square().mean().sqrt()
                noise = torch.randn(data.shape, generator=rng, dtype=torch.float64).to(data.device)
                parameter.data = (noise * size).to(data.dtype)
        yield
    finally:
        for parameter, data in zip(parameters, kept, strict=True):
            parameter.data = data
