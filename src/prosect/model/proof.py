"""Whether a model can be run in parts, proved on its own example before it is done.

For every kind of site one edit is made in a whole pass and in a pass over its cone, with all of the output read and
with one position of each row. A kind that does not agree is swept in whole passes from then on; a model whose
residual stream does not agree is always run whole.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from prosect.core.errors import ProsectError, Unsupported
from prosect.core.seeds import Seed
from prosect.data.batch import Batch
from prosect.model.apply import Block, Bound
from prosect.model.check import relative
from prosect.model.clean import all_positions, blocks_in_order, record
from prosect.model.cone import Change, cone
from prosect.model.edits import Edit, patch, scale
from prosect.model.packed import Packed, Part
from prosect.model.placing import Placing
from prosect.model.reads import Reads

if TYPE_CHECKING:
    from prosect.model.model import Model

BARS = {torch.float64: 1e-10, torch.float32: 1e-5}
"""Largest error relative to the largest number of the output, by dtype; 3e-2 for shorter ones."""
_TOGETHER = 8  # lists of edits in one whole pass of the proof


def bar(model: Model) -> float:
    """How far a pass over a cone may be from a whole one."""
    return BARS.get(model.dtype, 3e-2)


def prove(model: Model) -> Placing:
    """Where edits can be made in passes over cones.

    Raises:
        Unsupported: this model is always run whole; the reason is named.
    """
    example = model.example
    if not all_positions(example):
        raise Unsupported(f"a part of a pass of {model.name}", "inputs that all have rows and positions")
    try:
        return _proved(model, example)
    except (ProsectError, RuntimeError, TypeError, ValueError, IndexError, AttributeError, KeyError) as error:
        # whatever goes wrong on the example is a reason to run whole passes, not to fail
        if isinstance(error, Unsupported):
            raise
        raise Unsupported(
            f"a part of a pass of {model.name} ({type(error).__name__}: {str(error)[:160]})",
            "a model that can be run block by block",
        ) from error


def _proved(model: Model, example: Batch) -> Placing:
    assert example.mask is not None
    blocks = blocks_in_order(model)
    placing = Placing.of_model(model, blocks, record(model, example, Reads(None)).causal)
    lists = _lists(model, placing, int(example.lengths.min()) // 2)
    bound = {kind: tuple(model.runner.bind([edit], example)) for kind, edit in lists.items()}
    whole = _whole(model, example, [(), *bound.values()])
    wrong: dict[str, float] = {}
    for reads in (Reads(None), Reads.of(-1, example)):
        clean = record(model, example, reads)
        runner = Packed(model, placing, clean, 0, len(example), reads)
        parts = [_control(example, len(blocks), reads, clean.causal)]
        mask = example.mask.cpu().numpy()
        for edits in bound.values():
            changes = placing.changes(edits, len(example), mask)
            parts.append(_part(edits, changes, example, len(blocks), reads, clean.causal))
        for kind, got, expected in zip(("", *bound), runner.run(parts), whole, strict=True):
            error = relative(got, reads.taken(expected, range(len(example))))
            wrong[kind] = max(error, wrong.get(kind, 0.0))
    failed = {kind for kind, error in wrong.items() if not error <= bar(model)}
    if failed & {"", "resid_pre", "resid_post"}:
        raise Unsupported(
            f"a part of a pass of {model.name}, off by {max(wrong.values()):.2g}", f"at most {bar(model):g}"
        )
    return replace(placing, unproved=frozenset(failed))


def _lists(model: Model, placing: Placing, position: int) -> dict[str, Edit]:
    """For every kind of site one edit, in another block for each: a vector put there, or patterns turned round.

    A vector and not a factor: what is off by a factor on its way would agree with itself.
    """
    names: dict[str, list[str]] = {}
    for name in model.sites.names():
        site = model.sites.site(name)
        if model.sites.entry(site).place in placing.at and site.kind != "module":
            names.setdefault(site.kind, []).append(name)
    chosen = {kind: of[i % len(of)] for i, (kind, of) in enumerate(names.items())}
    return {kind: _edit(model, name, position) for kind, name in chosen.items()}


def _edit(model: Model, name: str, position: int) -> Edit:
    info = model.sites.info(name)
    if info.width is None or info.layout == "pattern":
        return scale(name, -0.5, positions=[position])
    drawn = torch.randn(info.width, generator=Seed(0).child("proof", name).torch())
    return patch(name, drawn.to(model.device, model.dtype), positions=[position])


def _whole(model: Model, example: Batch, lists: list[tuple[Bound, ...]]) -> list[Tensor]:
    """The output of a whole pass under each list."""
    out: list[Tensor] = []
    count = len(example)
    mask = None if example.mask is None else example.mask.cpu()
    for start in range(0, len(lists), _TOGETHER):
        some = lists[start : start + _TOGETHER]
        expanded = example.select(list(range(count)) * len(some))
        blocks = [
            (Block(slice(i * count, (i + 1) * count), tuple(range(count)), count, mask), edits)
            for i, edits in enumerate(some)
        ]
        routed = any(b.entry.place.inside for edits in some for b in edits)
        got = model.runner.go(expanded, blocks, routed=routed).output
        if got is None:
            raise Unsupported(f"a part of a pass of {model.name}", "an output")
        out.extend(got[block.at] for block, _ in blocks)
    return out


def _control(batch: Batch, layers: int, reads: Reads, causal: bool) -> Part:
    """No edit, and the cone of one in the first block."""
    position = int(batch.lengths.min()) // 3
    assert batch.mask is not None
    real = batch.mask.cpu().numpy()
    changes: dict[int, tuple[Change, ...]] = {
        row: (Change(0, "stream", (int(real[row].nonzero()[0][position]),)),) for row in range(len(batch))
    }
    return _part((), changes, batch, layers, reads, causal)


def _part(
    edits: tuple[Bound, ...],
    changes: dict[int, tuple[Change, ...]],
    batch: Batch,
    layers: int,
    reads: Reads,
    causal: bool,
) -> Part:
    assert batch.mask is not None
    real = batch.mask.cpu().numpy()
    cones = []
    for row in range(len(batch)):
        length = int(real[row].nonzero()[0].max()) + 1
        read = None if reads.columns is None else reads.columns[row]
        cones.append(cone(changes.get(row, ()), layers, length, read, causal))
    return Part(0, edits, tuple(range(len(batch))), tuple(cones))
