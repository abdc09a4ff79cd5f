"""A batch: tensors for a model's forward, a mask of real positions, and where each row comes from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Int, Shaped
from torch import Tensor

from prosect.core.errors import BadInput, ShapeMismatch


@dataclass(frozen=True)
class Row:
    """Where a row comes from.

    Attributes:
        unit: number of the independent unit (cluster of near-duplicate documents, input) in its part.
        document: name of the document or input.
        offset: index of the row's first position in the document.
    """

    unit: int
    document: str = ""
    offset: int = 0


@dataclass(frozen=True)
class Batch:
    """Rows for one forward pass.

    Attributes:
        tensors: what the model's forward is called with, by keyword; the first axis of each is rows.
        mask: True at real positions, padding on the right; None for inputs without a position axis.
        rows: where each row comes from.
        special: True at real positions that the model sees and statistics leave out, such as the
            beginning-of-text token, whose activations are unlike any other's; None where there are none.
    """

    tensors: Mapping[str, Tensor]
    mask: Bool[Tensor, "rows positions"] | None
    rows: tuple[Row, ...]
    special: Bool[Tensor, "rows positions"] | None = None

    def __post_init__(self) -> None:
        for name, tensor in self.tensors.items():
            if tensor.shape[0] != len(self.rows):
                raise ShapeMismatch(
                    f"{name} with {tensor.shape[0]} rows beside {len(self.rows)} row ids",
                    "one id for each row",
                )
        if self.mask is not None and self.mask.shape[0] != len(self.rows):
            raise ShapeMismatch(f"a mask of {self.mask.shape[0]} rows", f"{len(self.rows)} rows")

    def __len__(self) -> int:
        return len(self.rows)

    @classmethod
    def joined(cls, parts: Sequence[Batch]) -> Batch:
        """The rows of several batches, one after another; shorter ones are padded on the right with zeros.

        Raises:
            BadInput: there is none.
            ShapeMismatch: they do not have the same tensors, or only some have positions.
        """
        if not parts:
            raise BadInput("no batch to join", "at least one")
        names = list(parts[0].tensors)
        masks = [p.mask for p in parts if p.mask is not None]
        if any(list(p.tensors) != names for p in parts) or len(masks) not in (0, len(parts)):
            raise ShapeMismatch("batches with different tensors", "batches of one source")
        width = max((m.shape[1] for m in masks), default=0)

        def wide(x: Tensor, part: Batch) -> Tensor:
            positional = part.mask is not None and x.shape[:2] == part.mask.shape
            return F.pad(x, (0, 0) * (x.ndim - 2) + (0, width - x.shape[1])) if positional else x

        def special(part: Batch) -> Tensor:
            assert part.mask is not None
            return torch.zeros_like(part.mask) if part.special is None else part.special

        marked = any(p.special is not None for p in parts)
        return cls(
            {n: torch.cat([wide(p.tensors[n], p) for p in parts]) for n in names},
            torch.cat([wide(m, p) for m, p in zip(masks, parts, strict=True)]) if masks else None,
            tuple(row for p in parts for row in p.rows),
            torch.cat([wide(special(p), p) for p in parts]) if marked else None,
        )

    @property
    def lengths(self) -> Int[np.ndarray, " rows"]:
        """Real positions of each row, special ones included; 1 for inputs without positions."""
        if self.mask is None:
            return np.ones(len(self.rows), dtype=np.int64)
        return np.asarray(self.mask.sum(dim=1).cpu().numpy())

    @property
    def units(self) -> Int[np.ndarray, " rows"]:
        """The independent unit of each row."""
        return np.array([row.unit for row in self.rows], dtype=np.int64)

    @property
    def scored(self) -> Bool[Tensor, "rows positions"] | None:
        """The positions that statistics are made of: real and not special; None without positions."""
        if self.mask is None or self.special is None:
            return self.mask
        return self.mask & ~self.special

    @property
    def count(self) -> int:
        """Scored positions in all (rows, for inputs without positions)."""
        return len(self.rows) if self.scored is None else int(self.scored.sum())

    def flat(self, x: Shaped[Tensor, "rows ..."]) -> Shaped[Tensor, "n ..."]:
        """``x`` (rows, positions, ...) at scored positions only, rows one after another: (count, ...).

        Raises:
            ShapeMismatch: ``x`` does not have this batch's rows and positions.
        """
        scored = self.scored
        if scored is None:
            if x.shape[0] != len(self.rows):
                raise ShapeMismatch(f"{tuple(x.shape)}", f"{len(self.rows)} rows")
            return x
        if tuple(x.shape[:2]) != tuple(scored.shape):
            raise ShapeMismatch(f"{tuple(x.shape)}", f"rows and positions {tuple(scored.shape)}")
        return x[scored.to(x.device)]

    def unflat(self, flat: Shaped[Tensor, "n ..."]) -> Shaped[Tensor, "rows ..."]:
        """The inverse of `flat`, zero elsewhere."""
        scored = self.scored
        if scored is None:
            return flat
        out = flat.new_zeros((*scored.shape, *flat.shape[1:]))
        out[scored.to(flat.device)] = flat
        return out

    @property
    def flat_units(self) -> Int[np.ndarray, " n"]:
        """The unit of each scored position, in the order of `flat`."""
        if self.scored is None:
            return self.units
        return np.repeat(self.units, self.scored.sum(dim=1).cpu().numpy())

    def to(self, device: str | torch.device) -> Batch:
        """The same batch on ``device``."""
        moved = {name: t.to(device) for name, t in self.tensors.items()}
        return replace(
            self,
            tensors=moved,
            mask=None if self.mask is None else self.mask.to(device),
            special=None if self.special is None else self.special.to(device),
        )

    def select(self, index: list[int]) -> Batch:
        """Some of its rows, in the order given."""
        at = torch.tensor(index, dtype=torch.long)
        return Batch(
            {name: t[at.to(t.device)] for name, t in self.tensors.items()},
            None if self.mask is None else self.mask[at.to(self.mask.device)],
            tuple(self.rows[i] for i in index),
            None if self.special is None else self.special[at.to(self.special.device)],
        )
