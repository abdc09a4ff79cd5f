"""What a part of a sweep costs: memory that a pass takes, and computing in forwards of one row."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from prosect.model.packed import Part

if TYPE_CHECKING:
    from prosect.model.model import Model

TOKENS = 1024
"""Most tokens in one pass: more would not fill the processor better, and fall out of its caches."""


@dataclass(frozen=True)
class Cost:
    """Sizes of a model and of rows, from which costs are counted.

    Attributes:
        layers, width, length: blocks, of the stream, positions of a row.
        heads, keys: numbers in the queries of a position, and in its keys and values together.
        widest: of what a module in a block gives for one position.
        outputs: numbers in the output of a position.
        patterns: heads of queries.
        block, head: weights of a block, and of what follows the last.
        size: bytes of one number.
    """

    layers: int
    width: int
    length: int
    heads: int
    keys: int
    widest: int
    outputs: int
    patterns: int
    block: float
    head: float
    size: int

    @classmethod
    def of(cls, model: Model, blocks: Sequence[nn.Module], length: int) -> Cost:
        """Read off the model and its sites."""
        width = model.d_model or 1
        flow = {kind: _numbers(model, f"{kind}.0") or width for kind in ("q", "k", "v")}
        inside = {id(m) for block in blocks for m in block.modules()}
        widths = [4 * width]
        for path, module in model.module.named_modules():
            if id(module) in inside:
                widths.append(model.sites.entry(model.sites.site(path)).info.width or 0)
        weights = [sum(p.numel() for p in block.parameters() if p.ndim > 1) for block in blocks]
        outputs = model.vocab_size if model.is_language_model and model.vocab_size else width
        return cls(
            layers=len(blocks),
            width=width,
            length=length,
            heads=flow["q"],
            keys=flow["k"] + flow["v"],
            widest=max(widths),
            outputs=outputs,
            patterns=model.n_heads or 1,
            block=float(np.mean(weights)),
            head=float(outputs * width) if model.is_language_model else 0.0,
            size=torch.finfo(model.dtype).bits // 8,
        )

    def clean(self, rows: int, reads: int | None) -> int:
        """Bytes held for the pass without edits over some rows."""
        flow = self.layers * (self.width + self.keys) + self.width
        output = self.outputs * (self.length if reads is None else reads)
        masks = 2 * self.length**2  # some models have one for sliding windows and one for all positions
        return self.size * rows * (self.length * flow + output + masks)

    def recording(self, rows: int, reads: int | None) -> int:
        """Bytes while that pass is made: what is held, and all of its output."""
        work = self.outputs + 10 * self.widest + self.patterns * 5 * self.length
        return self.clean(rows, reads) + self.size * rows * self.length * work

    def part(self, part: Part, reads: int | None) -> int:
        """Bytes that a part adds to a pass."""
        numbers = len(part.rows) * (self.length if reads is None else reads) * self.outputs
        explicit = any(b.entry.place.inside for b in part.edits)
        for lane in part.lanes:
            cone = part.cones[lane]
            most = int(cone.tokens.max(initial=0))
            span = self.length if explicit else self.length - cone.first
            numbers += most * (6 * self.width + 4 * (self.heads + self.keys) + 6 * self.widest)
            numbers += (self.keys + self.width) * self.length + 2 * self.heads * span
            numbers += 5 * self.patterns * self.length**2 if explicit else span * self.length
            numbers += 2 * len(cone.tail) * self.outputs
        return self.size * numbers

    @property
    def working(self) -> int:
        """Bytes that any pass takes: one edit at a time is made on all positions of a row."""
        return self.size * 6 * self.length * max(self.widest, self.width)

    def forwards(self, parts: Iterable[Part]) -> float:
        """Computing that parts take, in whole passes of one row; attention itself is left out."""
        weights = 0.0
        for part in parts:
            for lane in part.lanes:
                cone = part.cones[lane]
                through, keys = sum(map(len, cone.queries)), sum(map(len, cone.keys))
                weights += through * self.block + len(cone.tail) * self.head
                weights += keys * self.width * (self.heads + self.keys)
        return weights / (self.length * (self.layers * self.block + self.head))


def packed(
    parts: Sequence[Part], cost: Cost, room: int, reads: int | None, tokens: int = TOKENS
) -> list[list[Part]]:
    """Parts gathered into passes that take no more than ``room`` bytes and, if they can, ``tokens`` tokens.

    A part that does not fit is cut by rows; a single row is run whatever it takes. Parts that enter at the same
    block, and there at the same position, come together.
    """
    cut: list[Part] = []
    for part in parts:
        if cost.part(part, reads) <= room or len(part.rows) == 1:
            cut.append(part)
            continue
        for row, cone in zip(part.rows, part.cones, strict=True):
            cut.append(Part(part.number, part.edits, (row,), (cone,)))
    passes: list[list[Part]] = []
    bytes_left, filled = 0, np.zeros(cost.layers, dtype=np.int64)
    for part in sorted(cut, key=_order):
        needed = cost.part(part, reads)
        more = sum((part.cones[i].tokens for i in part.lanes), np.zeros(cost.layers, dtype=np.int64))
        if not passes or needed > bytes_left or (filled + more).max(initial=0) > tokens:
            passes.append([])
            bytes_left, filled = room, np.zeros(cost.layers, dtype=np.int64)
        passes[-1].append(part)
        bytes_left -= needed
        filled = filled + more
    return passes


def _order(part: Part) -> tuple[int, bool, int, int, tuple[int, ...]]:
    cones = [part.cones[i] for i in part.lanes]
    explicit = any(b.entry.place.inside for b in part.edits)
    enter = min((c.enter for c in cones), default=0)
    return enter, explicit, min((c.first for c in cones), default=0), part.number, part.rows


def _numbers(model: Model, name: str) -> int | None:
    """Numbers at one position of a site with heads."""
    if name not in model.sites:
        return None
    info = model.sites.entry(model.sites.site(name)).info
    return info.width * info.heads if info.width and info.heads else None
