"""What a block adds to its residual stream: the sums that were found in it, as places and modules.

Which tensors add up is found by arithmetic (`sums`); here each sum's parts are traced to the sublayer that made
them, what that reads, and whether it attends. No name of a family or of a module is looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from prosect.model.probe import Probe, mixes
from prosect.model.sitemap import Place
from prosect.model.sums import Path, Sum, is_norm, path_of


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


def steps(block: nn.Module, seen: Probe, precision: float = 3e-6) -> list[Step] | str:
    """The sums that lead from a block's input to its output; a sentence where there are none.

    Args:
        block: ran once, given and giving a stream (rows, positions, width).
        seen: the recorded pass.
        precision: of the sums, relative to the stream.
    """
    found = path_of(block, seen, precision)
    return found if isinstance(found, str) else _Description(block, seen, found).steps()


class _Description:
    """Turns sums of values into places and modules.

    Args:
        block: whose sums they are.
        seen: the recorded pass.
        found: the sums, and the values that they are sums of.
    """

    def __init__(self, block: nn.Module, seen: Probe, found: Path) -> None:
        self.block, self.seen, self.found, self.values = block, seen, found, found.values
        self.paths: dict[int, str] = {id(m): path for path, m in block.named_modules()}
        self.turn: dict[tuple[int, str], int] = {}
        for order, event in enumerate(seen.events):
            if id(event.module) in self.paths:
                self.turn[id(event.module), event.side] = order
        self.ran = [m for m in block.modules() if (id(m), "out") in self.turn]

    def steps(self) -> list[Step]:
        """Name the parts of every sum."""
        path, begin = self.found.sums, self.found.begin
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

    def _added(self, step: Sum, i: int) -> Place:
        """The last place that the part passes before it is added: an output if there is one."""
        before = [(p, o) for p, o in self.values[step.parts[i]].places if o < self._limit(step)]
        outs = [p for p, _ in before if p.side == "out"]
        return outs[-1] if outs else before[-1][0]

    def _limit(self, step: Sum) -> int:
        return self.values[step.end].first

    def _part(self, step: Sum, i: int, root: nn.Module, before: list[str]) -> Part:
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

    def _norm_input(self, step: Sum) -> Place | None:
        for place, _ in self.values[step.end].places:
            made = self._index(place.module, "out") if place.side == "in" else None
            if made is not None and made == step.normed:
                return Place(place.module, "in")
        return None
