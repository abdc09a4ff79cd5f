"""The sparse products of training made by Triton's kernels, and where they cannot be."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from prosect.decompose.fused.chunks import Sums, chunked, ends_of
from prosect.decompose.products import Products

if TYPE_CHECKING:
    from prosect.decompose.kernels import Picks

CHUNK = 128
"""Picks of a latent that one program adds up."""
PICKS = 8
"""Picks that a program reads at a time."""
COLUMNS = 256
"""Columns of a table that a program reads at a time, at most."""


def obstacle(device: torch.device) -> str | None:
    """Why Triton's kernels cannot run on a device; None if they can. Its interpreter runs them on any."""
    try:
        import_module("triton")
    except ImportError as error:
        return f"Triton cannot be imported ({error})"
    if os.environ.get("TRITON_INTERPRET") == "1":
        return None
    if device.type != "cuda":
        return "it is no CUDA device"
    return None if torch.cuda.is_available() else "torch finds no CUDA device"


@dataclass(frozen=True)
class Fused(Products):
    """Sparse products by Triton, dense ones by torch.

    In bfloat16 tables are rounded once and read in half the bytes. Each sum is made in float32 and in a fixed order.
    """

    by: ClassVar[str] = "Triton"

    def over_positions(
        self, picks: Picks, values: Float[Tensor, " m"], table: Float[Tensor, "width d"]
    ) -> Float[Tensor, "n d"]:
        """See `Products`; a program for each position."""
        ends = ends_of(picks.bags, len(picks.rows))
        sums = Sums(picks.bags, ends, torch.arange(picks.n, device=ends.device))
        out = values.new_empty((picks.n, table.shape[1]), dtype=torch.float32)
        _add(out, self._read(table), picks.latents, values, sums)
        return out

    def over_latents(
        self, picks: Picks, values: Float[Tensor, " m"], table: Float[Tensor, "n d"]
    ) -> Float[Tensor, "width d"]:
        """See `Products`; a program for each `CHUNK` of a latent's positions."""
        order = picks.order
        chunks = chunked(picks.starts, len(order), CHUNK)
        out = values.new_empty((chunks.rows, table.shape[1]), dtype=torch.float32)
        _add(out, self._read(table), picks.rows[order], values[order], chunks.first)
        if chunks.second is not None:
            each = torch.arange(chunks.rows, device=out.device)
            _add(out, out, each, values.new_ones(chunks.rows), chunks.second)
        return out[: picks.width]

    def dots(
        self, picks: Picks, x: Float[Tensor, "n d"], table: Float[Tensor, "width d"]
    ) -> Float[Tensor, " m"]:
        """See `Products`; a program for each position."""
        x, table, index = self._read(x), self._read(table), picks.latents.contiguous()
        out = x.new_empty(len(index), dtype=torch.float32)
        width = x.shape[1]
        if len(index):
            with _on(x):
                _kernels().dot_rows[(picks.n,)](
                    out,
                    x,
                    table,
                    index,
                    picks.bags,
                    ends_of(picks.bags, len(index)),
                    width,
                    PICKS=PICKS,
                    COLUMNS=_columns(width),
                )
        return out

    def _read(self, table: Tensor) -> Tensor:
        return (table.bfloat16() if self.short else table.float()).contiguous()


def _add(out: Tensor, table: Tensor, index: Int[Tensor, " m"], values: Tensor, sums: Sums) -> None:
    """Weighted sums of a table's rows, to rows of ``out``."""
    width = out.shape[1]
    columns = _columns(width)
    if not out.numel() or not len(sums.begins):
        return
    with _on(out):
        _kernels().sum_rows[(len(sums.begins), -(-width // columns))](
            out,
            table,
            index.contiguous(),
            values.float().contiguous(),
            *sums,
            width,
            PICKS=PICKS,
            COLUMNS=columns,
        )


def _columns(width: int) -> int:
    """A power of 2, and at least what one read of a GPU is good for."""
    return min(COLUMNS, max(16, 1 << (width - 1).bit_length()))


def _on(x: Tensor) -> AbstractContextManager[Any]:
    return torch.cuda.device(x.device) if x.is_cuda else nullcontext()


def _kernels() -> Any:
    return import_module("prosect.decompose.fused.kernels")
