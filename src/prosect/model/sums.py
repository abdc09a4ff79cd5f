"""Sums that lead from what enters a block to what leaves it, found by arithmetic on a recorded pass.

No name of a family or of a module is looked at. Among the tensors that pass the boundaries of a block's
modules, those are searched that lead from what enters the block to what leaves it by addition: stream + part =
next stream, or stream + part + part where the parts are computed side by side. A part may be multiplied by a
constant on its way, and a norm may lie on the stream after each sum (as in BERT). What adds up on one input by
chance would not on another: the self-check repeats the sums with other tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from prosect.model.probe import Probe
from prosect.model.sitemap import Place

SIDE_BY_SIDE = 2
"""Most parts that one sum may take in at once."""


@dataclass
class Value:
    """A distinct tensor of the pass, and every place where it was met, with the place's turn in the pass."""

    vector: Tensor
    places: list[tuple[Place, int]]

    @property
    def first(self) -> int:
        """When it was met first."""
        return self.places[0][1]


@dataclass(frozen=True)
class Sum:
    """values[start] + Σ factor · values[part] = values[end], of which a norm may make values[normed]."""

    start: int
    parts: tuple[int, ...]
    factors: tuple[float, ...]
    end: int
    normed: int | None = None

    @property
    def arrives(self) -> int:
        """The value that the stream is after it."""
        return self.end if self.normed is None else self.normed


@dataclass(frozen=True)
class Path:
    """How a block gets from its input to its output.

    Attributes:
        values: every tensor that was met.
        sums: one after the other.
        begin: which value the first sum begins at; None if that is the block's input.
    """

    values: list[Value]
    sums: list[Sum]
    begin: int | None


def path_of(block: nn.Module, seen: Probe, precision: float) -> Path | str:
    """The sums that lead from a block's input to its output; a sentence where there are none.

    Args:
        block: ran once, given and giving a stream (rows, positions, width).
        seen: the recorded pass.
        precision: of the sums, relative to the stream.
    """
    given, gave = seen.input(block), seen.output(block)
    if given is None or gave is None or given.ndim != 3 or given.shape != gave.shape:
        return "it is not given and does not give one stream (rows, positions, width)"
    values, start, end = _values(block, seen, int(given.shape[-1]))
    if len(values) > 400:
        return f"too many tensors of the stream's shape pass in it ({len(values)})"
    if start == end:
        return "it gives what it is given"
    matrix = torch.stack([v.vector for v in values])
    gram = matrix @ matrix.T
    normed = [way.normed for way in _through_norms(values, Sum(start, (), (), start))]
    for begin in (start, *(i for i in normed if i is not None)):
        for most in range(
            1, SIDE_BY_SIDE + 1
        ):  # as fine as it goes: side by side only where one by one fails
            path = _search(values, gram, begin, end, precision, most, set())
            if path is not None:
                return Path(values, path, None if begin == start else begin)
    return "no tensors at the boundaries of its modules add up to what it adds to the stream"


def _values(block: nn.Module, seen: Probe, width: int) -> tuple[list[Value], int, int]:
    """Distinct tensors of the stream's shape in a block, and which are its input and its output."""
    inside = {id(m) for m in block.modules()}
    values: list[Value] = []
    index: dict[bytes, int] = {}
    ends: dict[str, int] = {}
    numbers = 0
    for order, event in enumerate(seen.events):
        if id(event.module) not in inside or event.value is None or not seen.once(event.module):
            continue
        own = event.module is block
        numbers = event.value.numel() if own and event.side == "in" else numbers
        if event.value.numel() != numbers or event.value.shape[-1] != width:
            continue
        key = event.value.cpu().float().numpy().tobytes()
        if key not in index:
            index[key] = len(values)
            values.append(Value(event.value.cpu().double().flatten(), []))
        values[index[key]].places.append((Place(event.module, event.side), order))
        if own:
            ends[event.side] = index[key]
    return values, ends["in"], ends["out"]


def _search(
    values: list[Value], gram: Tensor, start: int, end: int, precision: float, most: int, dead: set[int]
) -> list[Sum] | None:
    """Sums from ``start`` to ``end``, the nearest first; None if there are none."""
    for step in _sums(values, gram, start, precision, most):
        for way in (step, *_through_norms(values, step)):
            if way.arrives == end:
                return [way]
            if way.arrives not in dead:
                rest = _search(values, gram, way.arrives, end, precision, most, dead)
                if rest is not None:
                    return [way, *rest]
    dead.add(start)
    return None


def _sums(values: list[Value], gram: Tensor, start: int, precision: float, most: int) -> list[Sum]:
    """Every sum that begins at ``start``: nearest ends, factors of 1 and fewest parts first."""
    found: list[tuple[int, bool, int, float, Sum]] = []
    for t, value in enumerate(values):
        if value.first <= values[start].first:
            continue
        # r = values[t] - values[start]; everything below is in terms of inner products
        size = float(gram[t, t] - 2 * gram[t, start] + gram[start, start])
        allowed = min(precision**2 * float(gram[t, t]), 1e-6 * size)
        if size <= 1e-10 * float(gram[t, t]):
            continue
        usable = [c for c, v in enumerate(values) if c != start and v.first < value.first and gram[c, c] > 0]
        for parts, factors, error in _fits(gram, gram[t] - gram[start], size, usable, most):
            if error <= allowed:
                scaled = any(f != 1.0 for f in factors)
                found.append((value.first, scaled, len(parts), error, Sum(start, parts, factors, t)))
    return [step for *_, step in sorted(found, key=lambda one: one[:4])]


def _fits(
    gram: Tensor, dots: Tensor, size: float, usable: list[int], most: int
) -> list[tuple[tuple[int, ...], tuple[float, ...], float]]:
    """The best ways to write r as a combination of one or two values, with the squared error of each.

    Args:
        gram: inner products of all values.
        dots: inner products of r with them.
        size: of r with itself.
        usable: which values may take part.
        most: how many at once.
    """
    if not usable:
        return []
    of = torch.tensor(usable)
    b, g = dots[of], gram[of][:, of]
    norms = g.diagonal()
    out: list[tuple[tuple[int, ...], tuple[float, ...], float]] = []
    single = b / norms
    errors = (size - b * single).abs()
    for i in errors.argsort()[:3].tolist():
        out.append(((usable[i],), (_neat(single[i]),), float(errors[i])))
    if most > 1 and len(usable) > 1:
        i, j = torch.triu_indices(len(usable), len(usable), 1)
        det = norms[i] * norms[j] - g[i, j] ** 2
        sound = det > 1e-8 * norms[i] * norms[j]
        i, j, det = i[sound], j[sound], det[sound]
        first = (norms[j] * b[i] - g[i, j] * b[j]) / det
        second = (norms[i] * b[j] - g[i, j] * b[i]) / det
        errors = (size - first * b[i] - second * b[j]).abs()
        for k in errors.argsort()[:3].tolist():
            pair = (usable[int(i[k])], usable[int(j[k])])
            out.append((pair, (_neat(first[k]), _neat(second[k])), float(errors[k])))
    return [one for one in out if all(1e-3 < abs(f) < 1e3 for f in one[1])]


def _neat(factor: Tensor) -> float:
    """A measured constant, without the rounding of what it was measured on."""
    return float(f"{float(factor):.5g}")


def _through_norms(values: list[Value], step: Sum) -> list[Sum]:
    """The same sum with what norms make of it as the stream that goes on."""
    out = []
    for place, order in values[step.end].places:
        if place.side == "in" and is_norm(place.module):
            for i, value in enumerate(values):
                if any(p.module is place.module and p.side == "out" and o > order for p, o in value.places):
                    out.append(Sum(step.start, step.parts, step.factors, step.end, i))
    return out


def is_norm(module: nn.Module) -> bool:
    """Whether a module looks like a norm: no module below it, one gain or more for each number, nothing else.

    Dropout and identities, which have no parameters, are none.
    """
    own = list(module.parameters())
    leaf = not any(True for _ in module.children())
    flat = bool(own) and all(p.ndim == 1 for p in own)
    return leaf and (flat or "norm" in type(module).__name__.lower())
