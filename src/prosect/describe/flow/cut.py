"""What depends on what a head moves: its z without the share of one source, and how far the output moves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from prosect.core.seeds import Seed
from prosect.data.batch import Batch, Row
from prosect.describe.flow.moved import Layer
from prosect.model.edits import Edit, patch
from prosect.model.model import Model

FINEST = 5e-7
"""Nats; a divergence of this size is what sums of float32 leave where nothing has changed."""


@dataclass(frozen=True)
class Cuts:
    """How far the output moves, in nats: KL(as it is ‖ changed), summed from the destination on.

    Attributes:
        effect: when what is moved from a source is taken out.
        control: when a random vector of the same length is taken out in its place.
        noise: the most that a change of nothing does, which is rounding; at least `FINEST`.
        passes: cells that were run, of how many there are; the others would change nothing.
        cells: how many there are.
    """

    effect: Float[np.ndarray, "rows slots heads sources"]
    control: Float[np.ndarray, "rows slots heads sources"]
    noise: float
    passes: int
    cells: int


def cut(
    model: Model,
    batch: Batch,
    layer: Layer,
    heads: list[int],
    at: Int[Tensor, "rows slots"],
    by: str,
    seed: Seed | None,
    budget_mb: int | float,
) -> Cuts:
    """Take out every (source, destination) of some heads of one layer, one at a time; no control without a seed."""
    rows, slots, _, sources = layer.pattern.shape
    # every row its own unit, so that a metric that sees some of the rows knows which
    numbered = replace(batch, rows=tuple(Row(unit=i) for i in range(rows)))
    base = model.run(numbered).output.float().log_softmax(dim=-1)
    effect = np.zeros((rows, slots, len(heads), sources))
    control, noise, ran = np.zeros_like(effect), FINEST, 0
    taken = layer.moved - layer.mean if by == "mean" else layer.moved
    for j in range(slots):
        cells: list[tuple[int, int]] = []
        lists: list[list[Edit]] = []
        places = [[p] for p in at[:, j].tolist()]
        for i, head in enumerate(heads):
            z = layer.z[:, j, head]
            smallest = torch.finfo(model.dtype).eps * float(z.abs().max())
            lists.append([_edit(model, layer, head, z, places)])
            cells.append((i, -1))
            for source in range(sources):
                share = taken[:, j, head, source]
                if float(share.abs().max()) <= smallest:
                    continue  # as far as this dtype goes, z without it is z
                each = [share]
                if seed is not None:
                    draw = seed.child("control", layer.number, head, j, source).torch()
                    random = torch.randn(share.shape, generator=draw, dtype=torch.float64).to(share.device)
                    each.append(random * (share.norm(dim=-1) / random.norm(dim=-1))[:, None])
                lists += [[_edit(model, layer, head, z - x, places)] for x in each]
                cells.append((i, source))
        read = _behind(numbered, at[:, j])
        found = model.sweep(lists, numbered, _divergence(base, at[:, j], read), budget_mb, reads=read)
        ran += len(lists)
        k = 0
        for i, source in cells:
            if source < 0:
                noise = max(noise, float(found[k].max()))
                k += 1
                continue
            effect[:, j, i, source] = found[k]
            k += 1
            if seed is not None:
                control[:, j, i, source] = found[k]
                k += 1
    return Cuts(effect, control, noise, ran, slots * len(heads) * sources)


def _edit(model: Model, layer: Layer, head: int, value: Tensor, places: list[list[int]]) -> Edit:
    return patch(f"z.{layer.number}.h{head}", value[:, None].to(model.dtype), positions=places)


def _behind(batch: Batch, at: Int[Tensor, " rows"]) -> list[list[int]] | None:
    """The positions from each row's destination on, where they are as many in every row; else None, for all."""
    left = set((torch.from_numpy(batch.lengths) - at.cpu()).tolist())
    return [list(range(p, p + max(left))) for p in at.tolist()] if len(left) == 1 else None


def _divergence(
    base: Float[Tensor, "rows positions vocab"], at: Int[Tensor, " rows"], read: list[list[int]] | None
) -> Callable[[Tensor, Batch], Tensor]:
    """KL from the output as it is, summed over real positions from the destination on.

    Where ``read`` says which those are, nothing else of the output is there.
    """
    some = None if read is None else base.gather(1, _wide(torch.tensor(read, device=base.device), base))

    def metric(output: Tensor, batch: Batch) -> Tensor:
        index = torch.from_numpy(batch.units).to(output.device)
        before, after = (base if some is None else some)[index], output.float().log_softmax(dim=-1)
        each = (before.exp() * (before - after)).sum(dim=-1, dtype=torch.float64).clamp(min=0.0)
        if some is not None:
            return each.sum(dim=-1)
        later = torch.arange(output.shape[1], device=output.device) >= at[index][:, None]
        real = later if batch.mask is None else later & batch.mask
        return (each * real).sum(dim=-1)

    return metric


def _wide(columns: Int[Tensor, "rows reads"], like: Tensor) -> Tensor:
    return columns[:, :, None].expand(-1, -1, like.shape[-1])
