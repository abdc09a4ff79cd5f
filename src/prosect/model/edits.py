"""Edits: changes to what is at a site while the model runs.

Rules, the same wherever edits are used:

- Edits at one site apply in list order, each seeing what the one before left; sites apply in the order in
  which the model reaches them. Captures are taken after all edits.
- ``rows`` are rows of the batch. ``positions`` count real tokens, negatives from the end of each row; one
  set for all rows, or one for each selected row. ``heads`` are heads. None means all.
- Padding is never edited, nor are keys that the attention mask excludes.
- A tensor ``value`` has one axis (the last of the site) or all axes of the site, each as long as the site's
  or 1; the entries that the edit selects are taken from it. Its dtype is the site's.
- ``direction`` confines an edit to the span of one vector or of the rows of a matrix: only the component of
  the change along it is made.
- No tensor is changed in place that anyone else could hold.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypedDict, Unpack

from torch import Tensor

from prosect.core.errors import BadInput, ShapeMismatch

Op = Literal["patch", "zero", "mean", "resample", "steer", "project_out", "scale", "freeze", "replace"]


class Where(TypedDict, total=False):
    """Where in a site an edit is made; what is left out, or None, means everywhere.

    Attributes:
        rows: rows of the batch.
        positions: real positions, negatives from the end of each row: one set for all rows, or one list for
            each selected row.
        heads: heads.
    """

    rows: int | Sequence[int] | None
    positions: int | Sequence[int] | Sequence[Sequence[int]] | None
    heads: int | Sequence[int] | None


class Along(Where, total=False):
    """Where, and along what.

    Attributes:
        direction: (width,) or (n, width): only the change in this span is made.
    """

    direction: Tensor | None


@dataclass(frozen=True, eq=False)
class Edit:
    """One change at one site. Use the constructors of this module.

    Attributes:
        site: its name.
        op: what is done.
        value: what is put there, or the factor; the bank for ``resample``.
        function: for ``replace``: the site's tensor → the tensor to use, of the same shape and dtype.
        rows, positions, heads: where; None for everywhere.
        direction: the span that the change is confined to; for ``steer`` the vector that is added.
        seed: of the draws of ``resample``.
    """

    site: str
    op: Op
    value: Tensor | int | float | None = None
    function: Callable[[Tensor], Tensor] | None = None
    rows: tuple[int, ...] | None = None
    positions: tuple[int, ...] | tuple[tuple[int, ...], ...] | None = None
    heads: tuple[int, ...] | None = None
    direction: Tensor | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("rows", "positions", "heads"):
            chosen = getattr(self, name)
            if chosen is not None and len(chosen) == 0:
                raise BadInput(f"no {name} in an edit of {self.site}", f"some {name}, or None for all")
        if self.direction is None:
            return
        if self.direction.ndim not in (1, 2) or not self.direction.is_floating_point():
            raise ShapeMismatch(
                f"a direction of shape {tuple(self.direction.shape)} and {self.direction.dtype}",
                "floating numbers of shape (width,) or (n, width)",
            )
        if not bool((self.direction != 0).any(dim=-1).all()):
            raise BadInput(f"a direction of length zero in an edit of {self.site}", "a vector with a length")


def patch(site: str, value: Tensor, **where: Unpack[Along]) -> Edit:
    """Put ``value`` there, such as what another run had at the same place."""
    return _edit(site, "patch", value, where)


def zero(site: str, **where: Unpack[Along]) -> Edit:
    """Put zeros there."""
    return _edit(site, "zero", 0.0, where)


def mean(site: str, value: Tensor, **where: Unpack[Along]) -> Edit:
    """Put a mean there, measured beforehand on other data."""
    return _edit(site, "mean", value, where)


def resample(site: str, bank: Tensor, seed: int = 0, **where: Unpack[Along]) -> Edit:
    """Put there, at each row and position, an entry of ``bank`` drawn independently.

    Args:
        site: any but an attention pattern.
        bank: (n, ...): what the site had at n other positions.
        seed: of the draws; the same seed draws the same entries, however a sweep batches its rows.
        where: see `Along`.

    Raises:
        ShapeMismatch: the bank is empty or a single vector.
    """
    if bank.ndim < 2 or bank.shape[0] == 0:
        raise ShapeMismatch(f"a bank of shape {tuple(bank.shape)}", "(n, ...) with n at least 1")
    return _edit(site, "resample", bank, where, seed=seed)


def steer(site: str, direction: Tensor, strength: int | float = 1.0, **where: Unpack[Where]) -> Edit:
    """Add ``strength`` times ``direction``, (width,), which is not normalised."""
    if direction.ndim != 1:
        raise ShapeMismatch(f"a direction of shape {tuple(direction.shape)} to steer by", "(width,)")
    return _edit(site, "steer", strength, Along(**where, direction=direction))


def project_out(site: str, direction: Tensor, **where: Unpack[Where]) -> Edit:
    """Take out the component along ``direction``, (width,), or in the span of its rows, (n, width)."""
    return _edit(site, "project_out", 0.0, Along(**where, direction=direction))


def scale(site: str, factor: int | float, **where: Unpack[Along]) -> Edit:
    """Multiply by ``factor``; with a ``direction``, only the component along it."""
    return _edit(site, "scale", factor, where)


def freeze(site: str, value: Tensor | None = None, **where: Unpack[Where]) -> Edit:
    """Hold the site at ``value``, or at what it has, and let no gradient through to what came before."""
    return _edit(site, "freeze", value, where)


def replace(site: str, function: Callable[[Tensor], Tensor], **where: Unpack[Along]) -> Edit:
    """Put there what ``function`` makes of the site's whole tensor, of the same shape and dtype."""
    return _edit(site, "replace", None, where, function=function)


def _edit(
    site: str,
    op: Op,
    value: Tensor | int | float | None,
    where: Where | Along,
    function: Callable[[Tensor], Tensor] | None = None,
    seed: int = 0,
) -> Edit:
    known = ("rows", "positions", "heads", "direction")
    unknown = sorted(set(where) - set(known))
    if unknown:
        raise BadInput(f"{unknown[0]} in an edit of {site}", f"one of {', '.join(known)}")
    direction = where.get("direction")
    return Edit(
        site,
        op,
        value,
        function,
        _whole(where.get("rows")),
        _positions(where.get("positions")),
        _whole(where.get("heads")),
        direction if isinstance(direction, Tensor) else None,
        seed,
    )


def _whole(chosen: int | Sequence[int] | None) -> tuple[int, ...] | None:
    if chosen is None:
        return None
    return (int(chosen),) if isinstance(chosen, int) else tuple(int(i) for i in chosen)


def _positions(
    chosen: int | Sequence[int] | Sequence[Sequence[int]] | None,
) -> tuple[int, ...] | tuple[tuple[int, ...], ...] | None:
    if chosen is None or isinstance(chosen, int):
        return _whole(chosen)
    lists = [part for part in chosen if isinstance(part, Sequence)]
    if not lists:
        return tuple(int(p) for p in chosen)  # type: ignore[arg-type]
    if len(lists) != len(chosen):
        raise BadInput("positions that mix numbers and lists", "one list for all rows, or one for each row")
    return tuple(tuple(int(p) for p in part) for part in lists)
