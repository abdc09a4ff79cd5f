"""What a feature that is not there is replaced by: one baseline, or a background whose values are averaged over."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from prosect.core.errors import BadInput, NotFinite, ShapeMismatch, Unsupported
from prosect.data.batch import Batch
from prosect.describe.attribution.explicand import Explicand

Baseline = str | int | float | Tensor
MOST = 100
"""Rows of a batch that stand in for a background that was not given."""


@dataclass(frozen=True, eq=False)
class Reference:
    """Points that stand for absence.

    Attributes:
        points: (m, *shape) shared by all rows, or (rows, 1, *shape), one for each.
        own: whether every row has its own.
        words: what they are.
        decided: what was chosen because the caller did not say.
    """

    points: Float[Tensor, "*points"]
    own: bool
    words: str
    decided: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """How many points a row is averaged over."""
        return int(self.points.shape[1 if self.own else 0])

    def of(self, row: int) -> Float[Tensor, "m ..."]:
        """The points of one row, (m, *shape)."""
        return self.points[row] if self.own else self.points

    def rows(self, chosen: list[int]) -> Reference:
        """The same for some rows."""
        if not self.own:
            return self
        return Reference(self.points[chosen], True, self.words, self.decided)


def reference(
    explicand: Explicand,
    baseline: Baseline | None = None,
    background: Tensor | Batch | None = None,
    several: bool = False,
) -> Reference:
    """Read what the caller asked for.

    Args:
        explicand: what is explained.
        baseline: ``"zero"``; ``"mean"`` over the batch (at each number of an input, over all real positions
            of a stream, over all cells of a channel); for tokens a token id, whose embedding is used; for others a number; or a tensor
            that has the shape of a row, of the batch, or (width,).
        background: points (m, *shape), or a batch whose rows are the points.
        several: whether the method averages over a background by default: then other rows of the batch
            stand in for one that is not given.

    Raises:
        BadInput: both were given, or an unknown word.
        ShapeMismatch: points of the wrong shape.
        NotFinite: points with NaN or infinity.
        Unsupported: a token id where features are not tokens.
    """
    if baseline is not None and background is not None:
        raise BadInput("a baseline and a background", "one of them")
    if background is not None:
        return _background(explicand, background)
    if baseline is not None:
        return _baseline(explicand, baseline, ())
    if explicand.features.kind in ("inputs", "cells"):
        if not several:
            return _baseline(explicand, "zero", ("baseline: zero, because none was given",))
        points = explicand.x[:MOST]
        words = f"{len(points)} rows of the batch itself"
        return Reference(points, False, words, (f"background: {words}, because none was given",))
    return _baseline(explicand, "mean", ("baseline: mean, because none was given",))


def _background(explicand: Explicand, given: Tensor | Batch) -> Reference:
    shape = explicand.features.shape
    if isinstance(given, Batch):
        place = explicand.features.place
        if explicand.features.kind == "inputs":
            if place not in given.tensors:
                raise BadInput(f"a background without {place}", f"a batch with {place}")
            points = given.tensors[place]
        else:
            with torch.no_grad():
                points = explicand.model.run(given, [place], stop_early=True)[place]
        words = f"a background batch of {len(points)} rows"
    else:
        points, words = given, f"a background of {len(given) if given.ndim else 0} points"
    if points.ndim != len(shape) + 1 or tuple(points.shape[1:]) != shape or len(points) == 0:
        raise ShapeMismatch(
            f"a background of shape {tuple(points.shape)}",
            f"(m, {', '.join(map(str, shape))}) with m at least 1, each point as a row is",
            "background[None] for a single point; rows of one length",
        )
    return Reference(_fitted(explicand, points), False, words)


def _baseline(explicand: Explicand, given: Baseline, decided: tuple[str, ...]) -> Reference:
    x, shape, kind = explicand.x, explicand.features.shape, explicand.features.kind
    if isinstance(given, str):
        if given == "zero":
            return Reference(torch.zeros_like(x[:1]), False, "zeros", decided)
        if given == "mean":
            return Reference(_mean(explicand), False, "the batch's mean", decided)
        raise BadInput(f"baseline {given!r}", "'zero', 'mean', a number, a token id or a tensor")
    if isinstance(given, bool):
        raise BadInput(f"baseline {given}", "'zero', 'mean', a number, a token id or a tensor")
    if isinstance(given, int | float):
        if kind == "tokens":
            return Reference(_token(explicand, given), True, f"token {given} at every position", decided)
        return Reference(torch.full_like(x[:1], float(given)), False, f"{given:g} everywhere", decided)
    points = _fitted(explicand, given)
    if tuple(given.shape) == shape:
        return Reference(points[None], False, "a given point", decided)
    if tuple(given.shape) == tuple(x.shape):
        return Reference(points[:, None], True, "a given point for each row", decided)
    if kind in ("tokens", "positions") and tuple(given.shape) == shape[-1:]:
        return Reference(points.expand(1, *shape).clone(), False, "a given vector at every position", decided)
    vector = "" if kind in ("inputs", "cells") else f", or ({shape[-1]},), the same at every position"
    raise ShapeMismatch(
        f"a baseline of shape {tuple(given.shape)}",
        f"{shape}, as a row has, or {tuple(x.shape)}, as the batch has{vector}",
        "background= for several points",
    )


def _mean(explicand: Explicand) -> Tensor:
    x = explicand.x.double()
    if explicand.features.kind == "inputs":
        return x.mean(dim=0, keepdim=True).to(explicand.x.dtype)
    if explicand.features.kind == "cells":
        return x.mean(dim=(0, 2, 3), keepdim=True).expand_as(x[:1]).to(explicand.x.dtype).clone()
    flat = x[explicand.present.to(x.device)]  # (real positions, ...): padding is never averaged
    return flat.mean(dim=0).expand(1, *explicand.features.shape).clone().to(explicand.x.dtype)


def _token(explicand: Explicand, token: int | float) -> Tensor:
    if not isinstance(token, int):
        raise BadInput(f"token {token}", "a whole number: the token's id")
    ids = explicand.batch.tensors.get("input_ids")
    if ids is None:
        raise Unsupported("a token as baseline of a batch without token ids", "a batch of token ids")
    tensors = {**explicand.batch.tensors, "input_ids": torch.full_like(ids, token)}
    filled = Batch(tensors, explicand.batch.mask, explicand.batch.rows, explicand.batch.special)
    with torch.no_grad():
        place = explicand.features.place
        return explicand.model.run(filled, [place], stop_early=True)[place][:, None]


def _fitted(explicand: Explicand, points: Tensor) -> Tensor:
    if not points.is_floating_point():
        raise ShapeMismatch(f"points of {points.dtype}", f"{explicand.x.dtype}", ".float()")
    if not bool(torch.isfinite(points).all()):
        raise NotFinite("NaN or infinity in a baseline", "finite numbers")
    return points.detach().to(explicand.x.device, explicand.x.dtype)
