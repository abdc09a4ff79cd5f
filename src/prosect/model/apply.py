"""Making an edit: which entries it selects, what it puts there, and the tensor that results."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from prosect.core.errors import BadInput, ShapeMismatch, Unsupported
from prosect.core.seeds import Seed
from prosect.data.batch import Batch
from prosect.model.edits import Edit
from prosect.model.sitemap import Entry
from prosect.model.sites import Layout, Site


@dataclass(frozen=True)
class Block:
    """Rows of a pass that share a list of edits.

    Attributes:
        at: where they are in the pass.
        base: which rows of the user's batch they are.
        total: how many rows the user's batch has.
        mask: real positions of these rows, on the CPU; None where the batch has no positions.
    """

    at: slice
    base: tuple[int, ...]
    total: int
    mask: Bool[Tensor, "rows positions"] | None

    @classmethod
    def of(cls, batch: Batch) -> Block:
        """All rows of a batch."""
        mask = None if batch.mask is None else batch.mask.cpu()
        return cls(slice(0, len(batch)), tuple(range(len(batch))), len(batch), mask)

    @property
    def whole(self) -> bool:
        """Whether it is all of the user's batch, in order."""
        return self.base == tuple(range(self.total))


@dataclass(frozen=True)
class Bound:
    """An edit, its site found and its numbers checked.

    Attributes:
        edit: as the user wrote it.
        site: parsed.
        entry: where it lies.
        heads: the heads it touches; None for all.
        basis: orthonormal columns (width, n) spanning its direction; None for an edit that is not confined.
    """

    edit: Edit
    site: Site
    entry: Entry
    heads: tuple[int, ...] | None = None
    basis: Tensor | None = field(default=None, repr=False)

    @property
    def words(self) -> str:
        """For messages."""
        return f"{self.edit.op} at {self.site}"


def bind(edit: Edit, site: Site, entry: Entry, total: int, lengths: Int[np.ndarray, " rows"] | None) -> Bound:
    """Check an edit against its site and the batch, before anything runs.

    Args:
        edit: what the user wrote.
        site: parsed.
        entry: where it lies.
        total: rows of the batch.
        lengths: real positions of each row; None where how many there are is known only when the site fires.

    Raises:
        BadInput: a row, position or head that is not there.
        Unsupported: heads of a site without heads, a direction in an attention pattern.
    """
    words = f"{edit.op} at {site}"
    out = [r for r in edit.rows or () if not 0 <= r < total]
    if out:
        raise BadInput(f"row {out[0]} in {words}", f"rows from 0 to {total - 1}")
    if edit.positions is not None and lengths is not None:
        rows = list(range(total)) if edit.rows is None else list(edit.rows)
        for row, chosen in zip(rows, _each_row(edit, rows, words), strict=True):
            _in_range(chosen, int(lengths[row]), row, words)
    heads = _heads(edit, site, entry, words)
    info = entry.info
    if info.layout == "pattern" and edit.direction is not None:
        raise Unsupported(f"a direction in {words}", "a site whose last axis is a vector")
    if info.layout == "pattern" and edit.op == "resample":
        raise Unsupported(words, "a site with one vector for each position", "patch from another run")
    if edit.direction is not None and info.width is not None and edit.direction.shape[-1] != info.width:
        raise ShapeMismatch(f"a direction of width {edit.direction.shape[-1]} in {words}", f"{info.width}")
    basis = None
    if edit.direction is not None and edit.op != "steer":
        vectors = edit.direction.detach().double().reshape(-1, edit.direction.shape[-1])
        left, sizes, _ = torch.linalg.svd(vectors.T, full_matrices=False)
        basis = left[:, sizes > sizes[0] * 1e-10]
    return Bound(edit, site, entry, heads, basis)


def _each_row(edit: Edit, rows: list[int], words: str) -> list[tuple[int, ...]]:
    """The positions for each of the selected rows."""
    sets: list[tuple[int, ...]] = []
    for part in edit.positions or ():
        if isinstance(part, tuple):
            sets.append(part)
    if not sets:
        return [edit.positions] * len(rows)  # type: ignore[list-item]
    if len(sets) != len(rows):
        raise BadInput(f"{len(sets)} sets of positions in {words}", f"one for each of {len(rows)} rows")
    return sets


def positions_of(bound: Bound, total: int) -> list[tuple[int, tuple[int, ...] | None]]:
    """The rows that an edit selects, each with its positions; None for all real ones."""
    edit = bound.edit
    rows = list(range(total)) if edit.rows is None else list(edit.rows)
    if edit.positions is None:
        return [(row, None) for row in rows]
    return list(zip(rows, _each_row(edit, rows, bound.words), strict=True))


def _in_range(chosen: tuple[int, ...], length: int, row: int, words: str) -> None:
    for p in chosen:
        if not -length <= p < length:
            raise BadInput(
                f"position {p} in {words}",
                f"at most {length - 1} in row {row}, which has {length} real positions",
            )


def _heads(edit: Edit, site: Site, entry: Entry, words: str) -> tuple[int, ...] | None:
    if site.head is not None:
        if edit.heads is not None:
            raise BadInput(f"heads {edit.heads} in {words}", "either a head in the site's name or heads")
        return (site.head,)
    if edit.heads is None:
        return None
    count = entry.info.heads
    if count is None:
        raise Unsupported(f"heads in {words}", "a site with heads, such as z.0")
    out = [h for h in edit.heads if not 0 <= h < count]
    if out:
        raise BadInput(f"head {out[0]} in {words}", f"heads from 0 to {count - 1}")
    return edit.heads


def make(bound: Bound, x: Tensor, block: Block, layout: Layout) -> Tensor:
    """``x`` after the edit; ``x`` itself is left as it is.

    Args:
        bound: the edit.
        x: the site's tensor for the rows of ``block``, heads split off.
        block: whose rows these are.
        layout: how the axes of ``x`` are read: ``module`` means rows and no positions.

    Raises:
        ShapeMismatch: the value, the direction or the function's result does not fit.
        BadInput: a position that is not there.
        Unsupported: positions of a site without positions.
    """
    factor = bound.entry.factor
    if factor == 1.0:
        return _made(bound, x, block, layout)
    product = x * factor  # the model multiplies it on its way, and the name means the product
    new = _made(bound, product, block, layout)
    return torch.where(new == product, x, new / factor)  # what no edit touches stays to the last bit


def _made(bound: Bound, x: Tensor, block: Block, layout: Layout) -> Tensor:
    head_axis = {"stream": 2, "pattern": 1}.get(layout) if bound.heads is not None else None
    proposed = _proposed(bound, x, block, layout, head_axis)
    if bound.basis is not None:
        basis = bound.basis.to(x.device, x.dtype)
        if basis.shape[0] != x.shape[-1]:
            raise ShapeMismatch(f"a direction of width {basis.shape[0]} in {bound.words}", f"{x.shape[-1]}")
        proposed = x + ((proposed - x) @ basis) @ basis.T
    chosen = _selected(bound, x, block, layout, head_axis)
    return proposed if chosen is None else torch.where(chosen, proposed, x)


def _proposed(bound: Bound, x: Tensor, block: Block, layout: Layout, head_axis: int | None) -> Tensor:
    """What the edit would put everywhere, in memory of its own but for a ``freeze`` of what is there."""
    edit, value = bound.edit, bound.edit.value
    match edit.op:
        case "patch" | "mean" | "zero" | "project_out":
            return _expanded(bound, value, x, block, head_axis)
        case "resample":
            return _drawn(bound, x, block, layout, head_axis)
        case "steer":
            vector = _fitting(bound, edit.direction, x, "direction")
            return x + _number(value) * vector
        case "scale":
            return x * _number(value)
        case "freeze":
            return x.detach() if value is None else _expanded(bound, value, x, block, head_axis).detach()
        case "replace":
            return _replaced(bound, x, head_axis)


def _number(value: object) -> float:
    if not isinstance(value, int | float):
        raise BadInput(f"a {type(value).__name__} as factor", "a number")
    return float(value)


def _fitting(bound: Bound, tensor: Tensor | None, x: Tensor, what: str) -> Tensor:
    """``tensor`` on the device of ``x``, if its dtype and last axis fit."""
    if tensor is None:
        raise BadInput(f"no {what} in {bound.words}", f"a {what}")
    if tensor.dtype != x.dtype:
        raise ShapeMismatch(
            f"a {what} of {tensor.dtype} in {bound.words}", f"{x.dtype}", f".to({x.dtype}), if that is meant"
        )
    if tensor.shape[-1] not in (1, x.shape[-1]):
        raise ShapeMismatch(f"a {what} of width {tensor.shape[-1]} in {bound.words}", f"{x.shape[-1]}")
    return tensor.to(x.device)


def _expanded(
    bound: Bound, value: Tensor | int | float | None, x: Tensor, block: Block, head_axis: int | None
) -> Tensor:
    if not isinstance(value, Tensor):
        return torch.full_like(x, _number(value))
    if value.ndim == 0:
        return _fitting(bound, value.reshape(1), x, "value").expand(x.shape).clone()
    value = _fitting(bound, value, x, "value")
    if bound.site.head is not None and head_axis is not None and value.ndim == x.ndim - 1:
        value = value.unsqueeze(head_axis)
    if value.ndim == x.ndim and value.shape[0] == block.total and not block.whole:
        value = value[list(block.base)]
    fits = value.ndim in (1, x.ndim) and all(
        a in (1, b) for a, b in zip(reversed(value.shape), reversed(x.shape), strict=False)
    )
    if not fits:
        raise ShapeMismatch(
            f"a value of shape {tuple(value.shape)} in {bound.words}",
            f"{tuple(x.shape)}, with 1 for any axis that is the same throughout, or ({x.shape[-1]},)",
        )
    return value.expand(x.shape).clone()


def _drawn(bound: Bound, x: Tensor, block: Block, layout: Layout, head_axis: int | None) -> Tensor:
    """Entries of the bank, drawn for the rows of the user's batch, so that batching does not matter."""
    if not isinstance(bound.edit.value, Tensor):
        raise BadInput(f"no bank in {bound.words}", "a tensor (n, ...)")
    bank = _fitting(bound, bound.edit.value, x, "bank")
    cells = (block.total,) if layout == "module" else (block.total, x.shape[1])
    shape = list(x.shape[len(cells) :])
    if bound.site.head is not None and head_axis is not None and bank.ndim == len(shape):
        bank = bank.unsqueeze(1)
        shape[0] = 1
    if list(bank.shape[1:]) != shape:
        raise ShapeMismatch(f"a bank of shape {tuple(bank.shape)} in {bound.words}", f"(n, {shape})")
    generator = Seed(bound.edit.seed).child("resample", str(bound.site)).torch()
    drawn = torch.randint(bank.shape[0], cells, generator=generator)[list(block.base)]
    return bank[drawn.to(x.device)].expand(x.shape).clone()


def _replaced(bound: Bound, x: Tensor, head_axis: int | None) -> Tensor:
    function = bound.edit.function
    if function is None:
        raise BadInput(f"no function in {bound.words}", "a function from tensor to tensor")
    one = bound.site.head is not None and head_axis is not None
    # a copy: what the function writes into must not be what the model or a trace holds
    given = (x.select(head_axis, bound.site.head) if one else x).clone()  # type: ignore[arg-type]
    made = function(given)
    if not isinstance(made, Tensor) or made.shape != given.shape or made.dtype != given.dtype:
        got = (
            f"{tuple(made.shape)} of {made.dtype}" if isinstance(made, Tensor) else f"a {type(made).__name__}"
        )
        raise ShapeMismatch(
            f"{got} from the function in {bound.words}", f"{tuple(given.shape)} of {given.dtype}"
        )
    if one:
        return made.unsqueeze(head_axis).expand(x.shape)  # type: ignore[arg-type]
    return made if made is given else made.clone()


def _selected(bound: Bound, x: Tensor, block: Block, layout: Layout, head_axis: int | None) -> Tensor | None:
    """Which entries the edit touches, broadcastable to ``x``; None for all of them."""
    edit = bound.edit
    parts: list[Tensor] = []
    rows = list(range(block.total)) if edit.rows is None else list(edit.rows)
    if edit.rows is not None:
        chosen_rows = torch.tensor([r in set(rows) for r in block.base])
        parts.append(chosen_rows.reshape(-1, *[1] * (x.ndim - 1)))
    if layout == "module":
        if edit.positions is not None:
            raise Unsupported(f"positions in {bound.words}", "a site with an axis of positions")
    else:
        query_axis = 1 if layout == "stream" else 2
        every = torch.ones(x.shape[0], x.shape[query_axis], dtype=torch.bool)
        real = every if block.mask is None else block.mask
        if edit.positions is not None:
            parts.append(_on(_cells(bound, rows, block, real), x.ndim, query_axis))
        elif not bool(real.all()):
            parts.append(_on(real, x.ndim, query_axis))
        if layout == "pattern" and not bool(real.all()):
            parts.append(_on(real, x.ndim, 3))
    if bound.heads is not None and head_axis is not None:
        of = torch.tensor([h in bound.heads for h in range(x.shape[head_axis])])
        parts.append(of.reshape(*[1] * head_axis, -1, *[1] * (x.ndim - head_axis - 1)))
    if not parts:
        return None
    chosen = parts[0]
    for part in parts[1:]:
        chosen = chosen & part
    return chosen.to(x.device)


def _on(cells: Tensor, ndim: int, axis: int) -> Tensor:
    """(rows, positions) as a mask over ``ndim`` axes, positions on ``axis``."""
    shape = [1] * ndim
    shape[0], shape[axis] = cells.shape
    return cells.reshape(shape)


def _cells(bound: Bound, rows: list[int], block: Block, real: Tensor) -> Tensor:
    """The selected real positions of each row, (rows, positions)."""
    sets = dict(zip(rows, _each_row(bound.edit, rows, bound.words), strict=True))
    out = torch.zeros_like(real)
    for i, row in enumerate(block.base):
        if row in sets:
            columns = real[i].nonzero().flatten()
            _in_range(sets[row], len(columns), row, bound.words)
            out[i, columns[list(sets[row])]] = True
    return out
