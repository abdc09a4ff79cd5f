"""What heads look at and what they move from there, for some destinations of each row."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from prosect.core.errors import BadInput, TooLittleData, Unsupported
from prosect.core.seeds import Seed
from prosect.data.batch import Batch
from prosect.describe.lens.branch import Branch, branch
from prosect.model.forward import settled
from prosect.model.model import Model
from prosect.model.trace import Trace


@dataclass(frozen=True, eq=False)
class Layer:
    """One layer's attention at some destinations.

    Attributes:
        number: of the layer.
        pattern: probability of each source, 0 at what is not before the destination.
        flow: length of what is moved from each source, over the length of the stream at the destination.
        moved: α · v before the output projection.
        mean: α · the head's mean value over all real positions.
        z: what the head gives at the destination.
    """

    number: int
    pattern: Float[Tensor, "rows slots heads sources"]
    flow: Float[Tensor, "rows slots heads sources"]
    moved: Float[Tensor, "rows slots heads sources d_head"]
    mean: Float[Tensor, "rows slots heads sources d_head"]
    z: Float[Tensor, "rows slots heads d_head"]


def look(model: Model, batch: Batch, layer: int, at: Int[Tensor, "rows slots"]) -> Layer:
    """Pattern, values and flow of one layer's heads.

    Args:
        model: what is run.
        batch: rows of tokens.
        layer: which.
        at: index of the destinations of each row.

    Raises:
        Unsupported: the layer's attention cannot be read, or is not linear behind its heads.
    """
    around = [f"{k}.{layer}" for k in ("attn_out_post", "resid_pre", "resid_mid")]
    sites = [f"probs.{layer}", f"v.{layer}", f"z.{layer}"]
    trace = model.run(batch, [*sites, *(s for s in around if s in model.sites)])
    rows = torch.arange(len(batch), device=at.device)[:, None]
    probs = trace[sites[0]].transpose(1, 2)[rows, at].double()
    values = trace[sites[1]].double()
    groups = probs.shape[2] // values.shape[2]
    values = values.repeat_interleave(groups, dim=2).transpose(1, 2)  # (rows, heads, sources, d_head)
    real = torch.ones(probs.shape[0], probs.shape[-1], device=at.device)
    if batch.mask is not None:
        real = batch.mask.to(at.device, torch.float32)
    weight = real.double()[:, None, :, None]
    middle = (values * weight).sum(dim=(0, 2)) / weight.sum()
    probs = probs * weight[:, None, :, :, 0]
    moved = probs[..., None] * values[:, None]
    stream = trace[f"resid_pre.{layer}"][rows, at].double().norm(dim=-1)
    return Layer(
        layer,
        probs,
        _flow(model, trace, layer, at, probs, values) / stream.clamp(min=1e-30)[:, :, None, None],
        moved,
        probs[..., None] * middle[None, None, :, None],
        trace[sites[2]][rows, at].double(),
    )


def _flow(
    model: Model,
    trace: Trace,
    layer: int,
    at: Int[Tensor, "rows slots"],
    probs: Float[Tensor, "rows slots heads sources"],
    values: Float[Tensor, "rows heads sources d_head"],
) -> Float[Tensor, "rows slots heads sources"]:
    """‖α · W_O v‖ through what follows the projection, its scale held at the destination's."""
    rows = torch.arange(len(at), device=at.device)
    ends = [
        branch(model, trace, "attn", layer, at[:, j], _added(trace, layer, rows, at[:, j]))
        for j in range(at.shape[1])
    ]
    out = torch.zeros_like(probs)
    for head in range(values.shape[1]):
        wrote = _projected(ends[0], values, head)
        for j, end in enumerate(ends):
            if end.norm is not None:
                end = replace(end, norm=replace(end.norm, inverse=end.norm.inverse[:, None]))
            out[:, j, head] = probs[:, j, head] * end.after(wrote).norm(dim=-1)
    return out


def _projected(
    end: Branch, values: Float[Tensor, "rows heads sources d_head"], head: int
) -> Float[Tensor, "rows sources d_model"]:
    """What one head's values become behind the output projection, without its bias."""
    alone = torch.zeros_like(values)
    alone[:, head] = values[:, head]
    flat = alone.transpose(1, 2).flatten(2).to(end.inner.dtype)
    with settled(end.projection):
        made: Tensor = end.projection(flat) - end.projection(torch.zeros_like(flat[:1, :1]))
    return made


def _added(trace: Trace, layer: int, rows: Tensor, at: Tensor) -> Tensor:
    if f"attn_out_post.{layer}" in trace:
        return trace[f"attn_out_post.{layer}"][rows, at]
    if f"resid_mid.{layer}" not in trace:
        raise Unsupported(
            f"what attention of layer {layer} adds to the stream", "a model that has it as a site"
        )
    return trace[f"resid_mid.{layer}"][rows, at] - trace[f"resid_pre.{layer}"][rows, at]


def destinations_of(batch: Batch, wanted: int | list[list[int]], seed: Seed) -> Int[Tensor, "rows slots"]:
    """Index of the destinations of each row: so many drawn from its scored positions but the first, or those given.

    Raises:
        BadInput: a position that is not there, or not as many for each row.
        TooLittleData: a row with fewer positions than are to be drawn.
        Unsupported: rows without positions.
    """
    if batch.mask is None or batch.scored is None:
        raise Unsupported("rows without positions", "rows of tokens")
    if not isinstance(wanted, int):
        return _given(batch, wanted)
    out = []
    for row, scored in enumerate(batch.scored.cpu()):
        usable = scored.nonzero().flatten().numpy()
        usable = usable[usable > 0]
        if wanted < 1 or len(usable) < wanted:
            raise TooLittleData(
                f"{len(usable)} positions of row {row} for {wanted} destinations",
                "at least one destination, and as many positions after the first",
                "longer rows",
            )
        drawn = seed.child("destinations", row).numpy().choice(usable, wanted, replace=False)
        out.append(np.sort(drawn))
    return torch.from_numpy(np.stack(out)).to(batch.mask.device)


def _given(batch: Batch, wanted: list[list[int]]) -> Int[Tensor, "rows slots"]:
    if len(wanted) != len(batch) or len({len(w) for w in wanted}) != 1 or not wanted[0]:
        raise BadInput(
            f"destinations for {len(wanted)} rows", f"as many for each of {len(batch)} rows, at least one"
        )
    out = []
    for row, (chosen, length) in enumerate(zip(wanted, batch.lengths.tolist(), strict=True)):
        wrong = [p for p in chosen if not -length <= p < length]
        if wrong:
            raise BadInput(
                f"position {wrong[0]} of row {row}", f"at most {length - 1}: it has {length} tokens"
            )
        out.append([p % length for p in chosen])
    return torch.tensor(out, device=None if batch.mask is None else batch.mask.device)
