"""Clean rows beside corrupted ones, and which position of one is which of the other.

Positions are those of the clean rows throughout, whichever of the two runs is patched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from prosect.core.canonical import digest
from prosect.core.errors import BadInput, ShapeMismatch, Unsupported
from prosect.core.seeds import Seed
from prosect.data.batch import Batch
from prosect.model.sites import Layout

if TYPE_CHECKING:
    from prosect.model.inputs import Inputs
    from prosect.model.model import Model

Direction = Literal["noising", "denoising"]
Alignment = Sequence[tuple[int, int]] | Sequence[Sequence[tuple[int, int]]]
"""Pairs (position of the clean row, position of the corrupted row): one list for all rows, or one for each."""
Positions = Literal["each", "all"] | Sequence[int] | Mapping[str, Sequence[int] | Sequence[Sequence[int]]]
"""Which positions make a cell: ``each`` by itself, ``all`` at once, these by themselves, or sets with names."""


@dataclass(frozen=True)
class Span:
    """Positions that are patched together.

    Attributes:
        label: for people; the number of a single position.
        at: for each row, clean positions; none where the row does not have them. None where the model's
            inputs have no positions: the whole site.
    """

    label: str
    at: tuple[tuple[int, ...], ...] | None


@dataclass(frozen=True, eq=False)
class Pairs:
    """Clean and corrupted rows, row by row.

    Attributes:
        clean: rows on which the behaviour shows.
        corrupted: the same rows with what it depends on changed; their row ids are those of the clean rows.
        columns: the corrupted position that each clean one corresponds to; -1 where there is none, as at
            padding. None where the inputs have no positions.
        aligned: whether the user said which position is which.
    """

    clean: Batch
    corrupted: Batch
    columns: Int[np.ndarray, "rows positions"] | None
    aligned: bool = False

    @classmethod
    def of(cls, model: Model, clean: Inputs, corrupted: Inputs, alignment: Alignment | None = None) -> Pairs:
        """Pair rows up.

        Raises:
            ShapeMismatch: not as many rows, or a pair of unequal length without an alignment.
            BadInput: an alignment that names a position twice, or one that is not there.
        """
        a, b = model.batch(clean), model.batch(corrupted)
        if len(a) != len(b):
            raise ShapeMismatch(f"{len(a)} clean rows and {len(b)} corrupted ones", "one for each")
        b = replace(b, rows=a.rows)
        if a.mask is None or b.mask is None:
            if alignment is not None:
                raise BadInput("an alignment of inputs without positions", "none")
            return cls(a, b, None)
        mine, others = a.lengths, b.lengths
        columns = np.full(tuple(a.mask.shape), -1, dtype=np.int64)
        for row, (n, m) in enumerate(zip(mine.tolist(), others.tolist(), strict=True)):
            if alignment is None:
                if n != m:
                    raise ShapeMismatch(
                        f"a clean row {row} of {n} positions and a corrupted one of {m}",
                        "pairs of the same length, so that positions correspond",
                        "texts that differ in single tokens, or alignment=[(clean position, corrupted position), ...]",
                    )
                columns[row, :n] = np.arange(n)
                continue
            for p, q in _listed(alignment, row, len(a)):
                p, q = _counted(p, n, row, "clean"), _counted(q, m, row, "corrupted")
                if columns[row, p] >= 0 or q in columns[row]:
                    raise BadInput(
                        f"position {p} or {q} twice in the alignment of row {row}", "pairs one to one"
                    )
                columns[row, p] = q
        return cls(a, b, columns, alignment is not None)

    def __len__(self) -> int:
        return len(self.clean)

    def base(self, direction: Direction) -> Batch:
        """The run that is patched."""
        return self.clean if direction == "noising" else self.corrupted

    def donor(self, direction: Direction) -> Batch:
        """The run that values are taken from."""
        return self.corrupted if direction == "noising" else self.clean

    @cached_property
    def complete(self) -> bool:
        """Whether every position of either row is the same position of the other."""
        if self.columns is None:
            return True
        a, b = self.clean.mask, self.corrupted.mask
        assert a is not None and b is not None
        if not np.array_equal(self.clean.lengths, self.corrupted.lengths):
            return False
        own = np.arange(self.columns.shape[1])
        return bool(np.all((self.columns == own) | ~a.cpu().numpy()))

    @cached_property
    def digests(self) -> tuple[str, ...]:
        """One for each pair: what its clean and corrupted inputs are."""
        return tuple(
            digest([digest_of(batch, row) for batch in (self.clean, self.corrupted)])
            for row in range(len(self))
        )

    def spans(self, positions: Positions) -> tuple[Span, ...]:
        """The sets of positions that cells are made of.

        Raises:
            BadInput: a position that is not there, or has no counterpart.
            Unsupported: single positions of inputs without positions.
        """
        if self.columns is None:
            if positions != "all":
                raise Unsupported("positions of inputs that have none", 'positions="all"')
            return (Span("all", None),)
        every = [tuple(np.flatnonzero(row >= 0).tolist()) for row in self.columns]
        if positions == "all":
            return (Span("all", tuple(every)),)
        if positions == "each":
            longest = sorted({p for row in every for p in row})
            return tuple(Span(str(p), tuple((p,) if p in row else () for row in every)) for p in longest)
        if len(positions) == 0 or not isinstance(positions, Mapping | list | tuple | range):
            raise BadInput(f"positions {positions!r}", "'each', 'all', some numbers, or sets by name")
        if isinstance(positions, Mapping):
            return tuple(self._span(name, chosen) for name, chosen in positions.items())
        return tuple(self._span(str(p), [int(p)]) for p in positions)

    def _span(self, label: str, chosen: Sequence[int] | Sequence[Sequence[int]]) -> Span:
        assert self.columns is not None
        lists = [list(part) for part in chosen if isinstance(part, Sequence)]
        if lists and len(lists) != len(self):
            raise BadInput(
                f"{len(lists)} lists of positions for {label!r}", f"one for each of {len(self)} rows"
            )
        at = []
        for row, length in enumerate(self.clean.lengths.tolist()):
            wanted = lists[row] if lists else [int(p) for p in chosen]  # type: ignore[arg-type]
            counted = tuple(_counted(p, length, row, "clean") for p in wanted)
            for p in counted:
                if self.columns[row, p] < 0:
                    raise BadInput(
                        f"position {p} of row {row}, which has no counterpart", "positions that are aligned"
                    )
            at.append(counted)
        return Span(label, tuple(at))

    def in_base(self, span: Span, direction: Direction) -> tuple[tuple[int, ...], ...] | None:
        """The positions of a span in the run that is patched."""
        if span.at is None or self.columns is None or direction == "noising":
            return span.at
        return tuple(tuple(int(self.columns[row, p]) for p in at) for row, at in enumerate(span.at))

    def moved(self, x: Tensor, layout: Layout, direction: Direction, name: str) -> Tensor:
        """What the donor had, at the positions of the run that is patched.

        Raises:
            Unsupported: an attention pattern between positions that are not the same.
        """
        if self.complete or self.columns is None or layout == "module":
            return x
        if layout == "pattern":
            raise Unsupported(
                f"an attention pattern at {name} between rows whose positions differ",
                "pairs of the same length without an alignment",
                "z, q, k or v",
            )
        columns = self.columns if direction == "noising" else self._backwards
        index = torch.as_tensor(columns, device=x.device).clamp(min=0)
        return x[torch.arange(len(x), device=x.device)[:, None], index]

    @cached_property
    def _backwards(self) -> Int[np.ndarray, "rows positions"]:
        assert self.columns is not None and self.corrupted.mask is not None
        out = np.full(tuple(self.corrupted.mask.shape), -1, dtype=np.int64)
        for row, columns in enumerate(self.columns):
            for p in np.flatnonzero(columns >= 0):
                out[row, columns[p]] = p
        return out

    def strangers(self, seed: Seed) -> Int[np.ndarray, " rows"] | None:
        """For each row one of another unit, drawn among the longest alike; None where all are one unit."""
        units, lengths = self.clean.units, np.minimum(self.clean.lengths, self.corrupted.lengths)
        rng = seed.child("strangers").numpy()
        if len(set(units.tolist())) < 2:
            return None
        out = np.empty(len(self), dtype=np.int64)
        for row in range(len(self)):
            others = np.flatnonzero(units != units[row])
            short = np.maximum(lengths[row] - lengths[others], 0)
            out[row] = rng.choice(others[short == short.min()])
        return out


def _listed(alignment: Alignment, row: int, rows: int) -> list[tuple[int, int]]:
    """The pairs of one row."""
    if len(alignment) == 0:
        raise BadInput("an alignment of no positions", "pairs (clean position, corrupted position)")
    try:
        if isinstance(alignment[0][0], int):
            return [(int(p), int(q)) for p, q in alignment]  # type: ignore[arg-type]
        if len(alignment) != rows:
            raise BadInput(
                f"alignments of {len(alignment)} rows", f"one list for all, or one for each of {rows}"
            )
        return [(int(p), int(q)) for p, q in alignment[row]]  # type: ignore[misc]
    except (TypeError, IndexError) as error:
        raise BadInput(
            "an alignment of another form", "pairs (clean position, corrupted position)"
        ) from error


def _counted(p: int, length: int, row: int, which: str) -> int:
    if not -length <= p < length:
        raise BadInput(
            f"position {p} of {which} row {row}", f"at most {length - 1}: it has {length} real positions"
        )
    return int(p) % length


def digest_of(batch: Batch, row: int) -> str:
    """What the inputs of one row are, without padding."""
    length = int(batch.lengths[row])
    out: list[object] = []
    for name in sorted(batch.tensors):
        x = batch.tensors[name][row]
        real = x[:length] if batch.mask is not None and x.ndim else x
        if name != "attention_mask":
            out.append([name, real.double().cpu().tolist()])
    return digest(out)
