"""What a block adds to its residual stream, found by arithmetic on a recorded pass.

No name of a family or of a module is looked at. Among the tensors that pass the boundaries of a block's
modules, those are searched that lead from what enters the block to what leaves it by addition: stream + part =
next stream, or stream + part + part where the parts are computed side by side. A part may be multiplied by a
constant on its way, and a norm may lie on the stream after each sum (as in BERT). What adds up on one input by
chance would not on another: the self-check repeats the sums with other tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from prosect.model.probe import Probe, mixes
from prosect.model.sitemap import Place

SIDE_BY_SIDE = 2
"""Most parts that one sum may take in at once."""


@dataclass(frozen=True)
class Part:
    """Something that a block adds to its stream.

    Attributes:
        kind: ``attn`` where a softmax over positions runs in it, ``cross_attn`` where what attends there is given
            what an encoder gave, ``mixer`` where positions are mixed in another way, ``mlp`` where they are not;
            ``attn2``, ``mixer2`` and ``mlp2`` for the second in a block.
        added: where the tensor that is added lies.
        factor: what it is multiplied by on the way.
        out: where the tensor lies before a norm that follows it; the same as ``added`` without one.
        read: where the tensor that the sublayer reads lies; None if that is not at a module's boundary.
        inner: the input of the last projection; None if there is none.
        modules: what the sublayer is made of.
    """

    kind: str
    added: Place
    factor: float
    out: Place
    read: Place | None
    inner: Place | None
    modules: tuple[nn.Module, ...]


@dataclass(frozen=True)
class Step:
    """One sum: parts, where the stream lies after it, and where the sum lies if a norm follows.

    Attributes:
        parts: what is added.
        after: where the stream that results lies; None if at no module's boundary.
        total: where the bare sum lies, if a norm makes the next stream of it; else None.
        before: where the stream lies that is added to, if a norm makes it of the block's input; else None.
    """

    parts: tuple[Part, ...]
    after: Place | None
    total: Place | None
    before: Place | None = None


@dataclass
class _Value:
    """A distinct tensor of the pass, and every place where it was met, with the place's turn in the pass."""

    vector: Tensor
    places: list[tuple[Place, int]]

    @property
    def first(self) -> int:
        return self.places[0][1]


@dataclass(frozen=True)
class _Sum:
    """values[start] + Σ factor · values[part] = values[end], of which a norm may make values[normed]."""

    start: int
    parts: tuple[int, ...]
    factors: tuple[float, ...]
    end: int
    normed: int | None = None

    @property
    def arrives(self) -> int:
        return self.end if self.normed is None else self.normed


def steps(block: nn.Module, seen: Probe, precision: float = 3e-6) -> list[Step] | str:
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
    normed = [way.normed for way in _through_norms(values, _Sum(start, (), (), start))]
    for begin in (start, *(i for i in normed if i is not None)):
        for most in range(
            1, SIDE_BY_SIDE + 1
        ):  # as fine as it goes: side by side only where one by one fails
            path = _search(values, gram, begin, end, precision, most, set())
            if path is not None:
                return _Description(block, seen, values).steps(path, None if begin == start else begin)
    return "no tensors at the boundaries of its modules add up to what it adds to the stream"


def _values(block: nn.Module, seen: Probe, width: int) -> tuple[list[_Value], int, int]:
    """Distinct tensors of the stream's shape in a block, and which are its input and its output."""
    inside = {id(m) for m in block.modules()}
    values: list[_Value] = []
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
            values.append(_Value(event.value.cpu().double().flatten(), []))
        values[index[key]].places.append((Place(event.module, event.side), order))
        if own:
            ends[event.side] = index[key]
    return values, ends["in"], ends["out"]


def _search(
    values: list[_Value], gram: Tensor, start: int, end: int, precision: float, most: int, dead: set[int]
) -> list[_Sum] | None:
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


def _sums(values: list[_Value], gram: Tensor, start: int, precision: float, most: int) -> list[_Sum]:
    """Every sum that begins at ``start``: nearest ends, factors of 1 and fewest parts first."""
    found: list[tuple[int, bool, int, float, _Sum]] = []
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
                found.append((value.first, scaled, len(parts), error, _Sum(start, parts, factors, t)))
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


def _through_norms(values: list[_Value], step: _Sum) -> list[_Sum]:
    """The same sum with what norms make of it as the stream that goes on."""
    out = []
    for place, order in values[step.end].places:
        if place.side == "in" and is_norm(place.module):
            for i, value in enumerate(values):
                if any(p.module is place.module and p.side == "out" and o > order for p, o in value.places):
                    out.append(_Sum(step.start, step.parts, step.factors, step.end, i))
    return out


def is_norm(module: nn.Module) -> bool:
    """Whether a module looks like a norm: no module below it, one gain or more for each number, nothing else.

    Dropout and identities, which have no parameters, are none.
    """
    own = list(module.parameters())
    leaf = not any(True for _ in module.children())
    flat = bool(own) and all(p.ndim == 1 for p in own)
    return leaf and (flat or "norm" in type(module).__name__.lower())


class _Description:
    """Turns sums of values into places and modules.

    Args:
        block: whose sums they are.
        seen: the recorded pass.
        values: of `_values`.
    """

    def __init__(self, block: nn.Module, seen: Probe, values: list[_Value]) -> None:
        self.block, self.seen, self.values = block, seen, values
        self.paths: dict[int, str] = {id(m): path for path, m in block.named_modules()}
        self.turn: dict[tuple[int, str], int] = {}
        for order, event in enumerate(seen.events):
            if id(event.module) in self.paths:
                self.turn[id(event.module), event.side] = order
        self.ran = [m for m in block.modules() if (id(m), "out") in self.turn]

    def steps(self, path: list[_Sum], begin: int | None) -> list[Step]:
        """Name the parts of a path; ``begin`` is the value it begins at where that is not the block's input."""
        root = self._root([self._added(step, i) for step in path for i in range(len(step.parts))])
        kinds: list[str] = []
        out = []
        for number, step in enumerate(path):
            parts = []
            for i in range(len(step.parts)):
                part = self._part(step, i, root, kinds)
                kinds.append(part.kind)
                parts.append(part)
            last = number == len(path) - 1
            after = Place(self.block, "out") if last else self._stream(step.arrives)
            total = None if step.normed is None else self._norm_input(step)
            first = None if number or begin is None else self._stream(begin)
            out.append(Step(tuple(parts), after, total, first))
        return out

    def _root(self, added: list[Place]) -> nn.Module:
        """The innermost module around everything that is added, whose children are then the sublayers."""
        root = self.block
        while True:
            children = self._children(root)
            around = [c for c in children if all(self._within(place.module, c) for place in added)]
            if len(added) < 2 or not around or any(place.module is around[0] for place in added):
                return root
            root = around[0]

    def _children(self, root: nn.Module) -> list[nn.Module]:
        """Modules that ran below ``root`` with none that ran in between, in order."""
        below = [m for m in self.ran if m is not root and self._within(m, root)]
        top = [m for m in below if not any(o is not m and self._within(m, o) for o in below)]
        return sorted(top, key=lambda m: self.turn[id(m), "in"])

    def _within(self, module: nn.Module, outer: nn.Module) -> bool:
        a, b = self.paths[id(module)], self.paths[id(outer)]
        return b in ("", a) or a.startswith(f"{b}.")

    def _added(self, step: _Sum, i: int) -> Place:
        """The last place that the part passes before it is added: an output if there is one."""
        before = [(p, o) for p, o in self.values[step.parts[i]].places if o < self._limit(step)]
        outs = [p for p, _ in before if p.side == "out"]
        return outs[-1] if outs else before[-1][0]

    def _limit(self, step: _Sum) -> int:
        return self.values[step.end].first

    def _part(self, step: _Sum, i: int, root: nn.Module, before: list[str]) -> Part:
        added = self._added(step, i)
        out = self._before_norm(added)
        core = self._core(out, root)
        out = self._last_within(out, core)
        modules = [core]
        if len(step.parts) == 1:
            begin, end = self.values[step.start].first, self.turn[id(added.module), added.side]
            modules = [
                c
                for c in self._children(root)
                if begin < self.turn[id(c), "in"] <= end or (c is core and begin < self.turn[id(c), "out"])
            ]
        kind = self._kind(modules, core)
        kind = f"{kind}2" if kind in before else kind
        return Part(
            kind,
            added,
            step.factors[i],
            out,
            self._read(step.start, modules, kind),
            self._inner(out, modules),
            tuple(modules),
        )

    def _before_norm(self, place: Place) -> Place:
        """Where what is added lies before a norm that makes it: Gemma-2's norm after each sublayer."""
        while place.side == "out" and is_norm(place.module):
            given = self._index(place.module, "in")
            turn = self.turn[id(place.module), "in"]
            outs = (
                [p for p, o in self.values[given].places if p.side == "out" and o < turn]
                if given is not None
                else []
            )
            if not outs:
                return place
            place = outs[-1]
        return place

    def _core(self, out: Place, root: nn.Module) -> nn.Module:
        """The sublayer that first gives what is added, before dropout and the like hand it on."""
        given = self._index(out.module, out.side)
        places = [] if given is None else [p for p, _ in self.values[given].places if p.side == "out"]
        first = (places or [out])[0].module
        return next(c for c in self._children(root) if self._within(first, c))

    def _last_within(self, out: Place, core: nn.Module) -> Place:
        """The last place in ``core`` that holds what lies at ``out``; ``out`` itself if there is none."""
        given = self._index(out.module, out.side)
        places = [] if given is None else [p for p, _ in self.values[given].places]
        inside = [p for p in places if p.side == "out" and self._within(p.module, core)]
        return inside[-1] if inside else out

    def _index(self, module: nn.Module, side: str) -> int | None:
        for i, value in enumerate(self.values):
            if any(p.module is module and p.side == side for p, _ in value.places):
                return i
        return None

    def _kind(self, modules: Sequence[nn.Module], core: nn.Module) -> str:
        def attends(m: nn.Module) -> bool:
            return any(id(inner) in self.seen.attending for inner in m.modules())

        for m in (core, *modules):
            if attends(m):
                return "cross_attn" if self._looks_elsewhere(m) else "attn"
        return "mixer" if any(mixes(self.seen, m) for m in modules) else "mlp"

    def _looks_elsewhere(self, module: nn.Module) -> bool:
        """Whether what attends in a module is also given what a module outside this block gave: an encoder."""
        for m in module.modules():
            if id(m) not in self.seen.attending or id(m) not in self.seen.arguments:
                continue
            args, kwargs = self.seen.arguments[id(m)]
            given = [x for x in (*args, *kwargs.values()) if isinstance(x, Tensor) and x.ndim == 3]
            outside = [
                e.value for e in self.seen.events if id(e.module) not in self.paths and e.side == "out"
            ]
            for x in given:
                if any(v is not None and v.shape == x.shape and torch.equal(v, x) for v in outside):
                    return not self._made_here(x)
        return False

    def _made_here(self, x: Tensor) -> bool:
        """Whether a tensor is what this block was given, or what a module in it gave."""
        vector = x.detach().cpu().double().flatten()
        for value in self.values:
            if value.vector.shape == vector.shape and torch.equal(value.vector, vector):
                return any(p.side == "out" or p.module is self.block for p, _ in value.places)
        return False

    def _read(self, start: int, modules: Sequence[nn.Module], kind: str) -> Place | None:
        """What the sublayer reads: what a norm makes of the stream, if one comes first, else the stream."""
        inside = [m for m in self.ran if any(self._within(m, c) for c in modules)]
        inside.sort(key=lambda m: (self.turn[id(m), "in"], -self.turn[id(m), "out"]))
        normed: set[int] = set()
        for m in self.ran:
            if is_norm(m) and self._index(m, "in") == start:
                made = self._index(m, "out")
                normed |= set() if made is None else {made}
        inner = [m for m in inside if not is_norm(m) and any(True for _ in m.parameters())]
        if "attn" in kind:
            around = [m for m in inner if any(id(x) in self.seen.attending for x in m.modules())]
            inner = [*reversed(around), *(m for m in inner if m not in around)]
        for wanted in (normed, {start}):
            for m in inner:
                if self._index(m, "in") in wanted:
                    return Place(m, "in")
        first = [
            m for m in inner if self._index(m, "in") is not None
        ]  # a stream scaled, or mixed with another
        return Place(first[0], "in") if first else None

    def _inner(self, out: Place, modules: Sequence[nn.Module]) -> Place | None:
        """The input of the projection that gives what is added."""
        given = self._index(out.module, out.side)
        if given is None:
            return None
        made = self.values[given].vector
        for value in self.values:  # it may be multiplied by a constant behind the projection
            along = torch.cosine_similarity(value.vector, made, dim=0).abs()
            for place, _ in value.places if along > 1 - 1e-9 else ():
                weight = getattr(place.module, "weight", None)
                matrix = isinstance(weight, Tensor) and weight.ndim == 2
                if place.side == "out" and matrix and any(self._within(place.module, c) for c in modules):
                    return Place(place.module, "in")
        return None

    def _stream(self, index: int) -> Place | None:
        """Where a stream between sums can be read and changed: the output that makes it, or where it is read.

        Where no module gives it, it is written through: the next module and the skip around it share it.
        """
        places = self.values[index].places
        outs = []
        for place, _ in places:
            if place.side == "in":
                break
            outs.append(place)
        if outs:
            return outs[-1]
        return Place(places[0][0].module, "in", through=True)

    def _norm_input(self, step: _Sum) -> Place | None:
        for place, _ in self.values[step.end].places:
            made = self._index(place.module, "out") if place.side == "in" else None
            if made is not None and made == step.normed:
                return Place(place.module, "in")
        return None
