"""Passes over the cone of edits: tokens of many rows and lists of edits in one line, block by block.

What lies between attention calls treats every position by itself, so the positions to compute, whatever row and
list they belong to, stand one after another as a single row of tokens. Attention is computed here: each lane (one
row under one list) has the keys and values of the pass without edits, with its own new ones put in their places.
The blocks are the model's own modules; so is everything after the last, which is the model with its blocks
bypassed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor, nn
from torch.nn import functional as F

from prosect.core.errors import ShapeMismatch, Unsupported
from prosect.data.batch import Batch
from prosect.model.apply import Block, Bound, make
from prosect.model.attention import attention, tapped
from prosect.model.boundary import main_input, main_output, with_main_input, with_main_output
from prosect.model.clean import Clean, gathered, routed
from prosect.model.cone import Cone
from prosect.model.entry import After, Blocks, entered
from prosect.model.forward import settled
from prosect.model.placing import Placing
from prosect.model.reads import Reads
from prosect.model.sitemap import Place
from prosect.model.taps import Stop

if TYPE_CHECKING:
    from prosect.model.model import Model

Ids = Int[np.ndarray, "_"]
"""lane · positions + column of each token, ascending."""


@dataclass(frozen=True)
class Part:
    """One list of edits on some rows.

    Attributes:
        number: of the list.
        edits: in order.
        rows: of the user's batch.
        cones: what to compute for each of them.
    """

    number: int
    edits: tuple[Bound, ...]
    rows: tuple[int, ...]
    cones: tuple[Cone, ...]

    @property
    def lanes(self) -> tuple[int, ...]:
        """Which of its rows need computing."""
        return tuple(i for i, c in enumerate(self.cones) if len(c.tail))


class Packed:
    """Runs parts of sweeps.

    Args:
        model: what is run.
        placing: where its sites lie in its blocks.
        clean: the pass without edits over some of the user's rows.
        first: number of the first of these rows; the others follow.
        total: how many rows the user's batch has.
        reads: of the rows of ``clean``.
    """

    def __init__(
        self, model: Model, placing: Placing, clean: Clean, first: int, total: int, reads: Reads
    ) -> None:
        self.model, self.placing, self.clean = model, placing, clean
        self.first, self.total, self.reads = first, total, reads
        assert clean.batch.mask is not None
        self.mask = clean.batch.mask.cpu()
        self.length = int(self.mask.shape[1])
        self.device = clean.last.device

    def run(self, parts: Sequence[Part]) -> list[Tensor]:
        """The output of each part at what is read: (rows, reads, ...)."""
        return _Pass(self, parts).run()


class _Pass:
    """One pass under way."""

    def __init__(self, packed: Packed, parts: Sequence[Part]) -> None:
        self.on, self.parts, self.clean = packed, parts, packed.clean
        self.length = packed.length
        self.cones: list[Cone] = []
        self.starts: list[int] = []  # the first lane of each part, and the end of the last
        rows: list[int] = []
        for part in parts:
            self.starts.append(len(rows))
            for i in part.lanes:
                rows.append(part.rows[i] - packed.first)
                self.cones.append(part.cones[i])
        self.starts.append(len(rows))
        self.rows = np.array(rows, dtype=np.int64)  # of the recorded pass, for each lane
        self.before: dict[int, list[Bound]] = {}
        self.stream: dict[int, list[tuple[int, Bound]]] = {}
        self.taps: dict[Place, list[tuple[int, Bound]]] = {}
        for number, part in enumerate(parts):
            for bound in part.edits:
                layer, at = packed.placing.of(bound)
                if bound.entry.place == packed.placing.table:
                    self.before.setdefault(number, []).append(bound)
                elif at == "stream":
                    self.stream.setdefault(layer, []).append((number, bound))
                else:
                    self.taps.setdefault(bound.entry.place, []).append((number, bound))
        for due in self.stream.values():  # what leaves a block is edited before what enters the next
            due.sort(key=lambda pair: (pair[0], pair[1].entry.place.side == "in"))
        self.layer, self.ids = 0, np.empty(0, dtype=np.int64)
        self.further: tuple[Ids, Tensor, Tensor] | None = None
        self.keys_only = False

    def run(self) -> list[Tensor]:
        self.begun = self._begun()
        with settled(self.on.model.module), self._installed():
            ids, x = self._through()
            changed = self._tail(x) if len(ids) else None
        return [self._output(number, ids, changed) for number in range(len(self.parts))]

    def _through(self) -> tuple[Ids, Tensor]:
        """The stream after the last block at the tokens that are read, with their ids."""
        blocks = self.clean.blocks
        ids = np.empty(0, dtype=np.int64)
        x = self.clean.last.new_zeros(0, self.clean.last.shape[-1])
        with routed(self.on.model.module, self._attend):
            for layer in range(len(blocks)):
                queries = self._ids(layer, [c.queries[layer] for c in self.cones])
                keys = self._ids(layer, [c.keys[layer] for c in self.cones])
                if not len(queries):
                    continue
                needed = np.union1d(queries, keys) if len(keys) else queries
                x = self._carried(layer, ids, x, needed)
                if layer == 0:
                    x = self._begin(x, needed)
                x = self._edited(x, needed, self.stream.get(layer, ()))
                self.layer, self.further = layer, None
                if len(keys):
                    self._keys(layer, keys, x[_at(needed, keys, x)])
                    x = x[_at(needed, queries, x)]
                x = self._block(layer, queries, x)
                ids = queries
        wanted = self._ids(len(blocks), [c.tail for c in self.cones])
        x = self._carried(len(blocks), ids, x, wanted)
        self.ids = wanted
        return wanted, self._edited(x, wanted, self.stream.get(len(blocks), ()))

    def _begun(self) -> dict[int, Tensor]:
        """What enters the first block in lanes with edits before it: the model's own forward up to there."""
        lanes: list[int] = []
        blocks, on = [], self.on
        for number, edits in self.before.items():
            own = range(self.starts[number], self.starts[number + 1])
            rows = self.rows[own.start : own.stop]
            base = tuple(int(r) + on.first for r in rows)
            at = slice(len(lanes), len(lanes) + len(own))
            blocks.append((Block(at, base, on.total, on.mask[rows]), edits))
            lanes.extend(own)
        if not lanes:
            return {}
        batch = self.clean.batch.select([int(self.rows[lane]) for lane in lanes])
        first = on.model.runner.go(batch, blocks, ["resid_pre.0"], stop_early=True).values["resid_pre.0"]
        return dict(zip(lanes, first, strict=True))

    def _begin(self, x: Tensor, ids: Ids) -> Tensor:
        for lane, stream in self.begun.items():
            low, high = (int(i) for i in np.searchsorted(ids, [lane * self.length, (lane + 1) * self.length]))
            x[low:high] = stream[torch.from_numpy(ids[low:high] % self.length).to(x.device)]
        return x

    def _ids(self, layer: int, columns: Sequence[np.ndarray]) -> Ids:
        parts = [lane * self.length + c for lane, c in enumerate(columns) if len(c)]
        return np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)

    def _carried(self, layer: int, ids: Ids, x: Tensor, needed: Ids) -> Tensor:
        """The stream into a block at the tokens it needs: what edits changed, and elsewhere what it was."""
        if len(ids) == len(needed) and np.array_equal(ids, needed):
            return x
        out = self.clean.stream(layer)[self._rows(needed), self._columns(needed)]
        old = np.isin(ids, needed, assume_unique=True)
        if old.all():
            out[_at(needed, ids, x)] = x
        elif old.any():
            out[_at(needed, ids[old], x)] = x[torch.from_numpy(old).to(x.device)]
        return out

    def _rows(self, ids: Ids) -> Tensor:
        return torch.from_numpy(self.rows[ids // self.length]).to(self.on.device)

    def _columns(self, ids: Ids) -> Tensor:
        return torch.from_numpy(ids % self.length).to(self.on.device)

    def _block(self, layer: int, ids: Ids, x: Tensor) -> Tensor:
        """One block on a line of tokens."""
        self.ids = ids
        block = self.clean.blocks[layer]
        where = (self._rows(ids), self._columns(ids), (len(self.on.mask), self.length))
        args, kwargs = with_main_input(block.args, block.kwargs, x[None])
        new = main_input(args, kwargs)
        args = tuple(a if a is new else gathered(a, *where) for a in args)
        kwargs = {n: a if a is new else gathered(a, *where) for n, a in kwargs.items()}
        out = main_output(block.module(*args, **kwargs))
        if out is None or out.numel() != x.numel():
            raise ShapeMismatch(f"no stream from block {layer}", f"{tuple(x.shape)}")
        return out.reshape(x.shape)

    def _keys(self, layer: int, ids: Ids, x: Tensor) -> None:
        """Keys and values of tokens that nobody needs anything else of."""
        self.keys_only = True
        try:
            self._block(layer, ids, x)
        except Stop:
            return
        finally:
            self.keys_only = False
        raise Unsupported(f"a part of block {layer}", "attention in it")

    def _attend(
        self, module: nn.Module, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, **options: Any
    ) -> tuple[Tensor, Tensor | None]:
        """Attention of a line of tokens, each lane by itself: (1, tokens, heads, d)."""
        block, ids = self.clean.blocks[self.layer], self.ids
        if self.keys_only:
            self.further = ids, k, v
            raise Stop
        every = ids // self.length
        lanes, where = np.unique(every, return_inverse=True)
        rows = torch.from_numpy(self.rows[lanes]).to(q.device)
        keys, values = block.keys[rows], block.values[rows]
        own = [(ids, k, v)] if self.further is None else [(ids, k, v), self.further]
        for at, new_k, new_v in own:
            lane = torch.from_numpy(np.searchsorted(lanes, at // self.length)).to(q.device)
            keys[lane, :, self._columns(at)] = new_k[0].transpose(0, 1)
            values[lane, :, self._columns(at)] = new_v[0].transpose(0, 1)
        columns = ids % self.length
        inside = any(place.inside and place.module is module for place in self.taps)
        plain = not inside and not any(
            options.get(n) is not None for n in ("softcap", "position_bias", "s_aux")
        )
        plain = plain and getattr(module, "sinks", None) is None
        low, high = (int(columns.min()), int(columns.max()) + 1) if plain else (0, self.length)
        lane, column = torch.from_numpy(where).to(q.device), torch.from_numpy(columns - low).to(q.device)
        queries = q.new_zeros(len(lanes), q.shape[1], high - low, q.shape[-1])
        queries[lane, :, column] = q[0].transpose(0, 1)
        allowed = block.mask
        if allowed is not None:
            allowed = (allowed if len(allowed) == 1 else allowed[rows])[:, :, low:high, : self.length]
        if plain:
            z = F.scaled_dot_product_attention(
                queries,
                keys,
                values,
                attn_mask=allowed,
                scale=options.get("scaling"),
                enable_gqa=queries.shape[1] != keys.shape[1],
            ).transpose(1, 2)
        else:
            with tapped(lambda m, quantity, x, may: self._inside(m, quantity, x, may, lanes)):
                z, _ = attention(module, queries, keys, values, allowed, **options)
        return z[lane, column][None], None

    def _inside(
        self, module: nn.Module, quantity: str, x: Tensor, allowed: Tensor | None, lanes: np.ndarray
    ) -> Tensor:
        """Edits to a quantity of attention, for all positions of the lanes that are here."""
        due = self.taps.get(Place(module, quantity), ())  # type: ignore[arg-type]
        out = x
        for number, bound in due:
            here = np.nonzero((lanes >= self.starts[number]) & (lanes < self.starts[number + 1]))[0]
            if not len(here):
                continue
            out = out.clone() if out is x else out
            for i in here:
                one = slice(int(i), int(i) + 1)
                new = make(bound, out[one], self._row_of(int(lanes[i])), bound.entry.info.layout)
                out[one] = new if allowed is None else torch.where(allowed[one], new, out[one])
        return out

    def _row_of(self, lane: int) -> Block:
        row = int(self.rows[lane])
        return Block(slice(0, 1), (row + self.on.first,), self.on.total, self.on.mask[row : row + 1])

    def _edited(self, x: Tensor, ids: Ids, due: Sequence[tuple[int, Bound]]) -> Tensor:
        """Tokens (tokens, ...) after the edits that are due; each lane sees its own, all positions at once."""
        out = x
        for number, bound in due:
            bounds = [self.starts[number] * self.length, self.starts[number + 1] * self.length]
            low, high = (int(i) for i in np.searchsorted(ids, bounds))
            if low == high:
                continue
            out = out.clone() if out is x else out
            for lane in np.unique(
                ids[low:high] // self.length
            ):  # one at a time: all of its positions are made
                first, last = np.searchsorted(ids, [lane * self.length, (lane + 1) * self.length])
                at = torch.from_numpy(ids[first:last] % self.length).to(x.device)
                row = x.new_zeros(1, self.length, *x.shape[1:])
                row[0, at] = out[first:last]
                heads = bound.entry.info.heads if bound.entry.split else None
                seen = row if heads is None else row.reshape(*row.shape[:-1], heads, row.shape[-1] // heads)
                new = make(bound, seen, self._row_of(int(lane)), bound.entry.info.layout)
                out[first:last] = new.reshape(row.shape)[0, at]
        return out

    @contextmanager
    def _installed(self) -> Iterator[None]:
        """Hooks at the modules where an edit is made."""
        with ExitStack() as stack:
            for place, due in self.taps.items():
                if place.side == "in":
                    hook = partial(self._entering, place, due)
                    stack.callback(place.module.register_forward_pre_hook(hook, with_kwargs=True).remove)
                elif place.side == "out":
                    stack.callback(place.module.register_forward_hook(partial(self._leaving, due)).remove)
            yield

    def _met(self, raw: Tensor, due: Sequence[tuple[int, Bound]]) -> Tensor:
        width = raw.shape[-1]
        if raw.numel() != len(self.ids) * width:
            raise ShapeMismatch(f"{tuple(raw.shape)} at {due[0][1].site}", f"{len(self.ids)} tokens")
        flat = raw.reshape(len(self.ids), width)
        new = self._edited(flat, self.ids, due)
        return raw if new is flat else new.reshape(raw.shape)

    def _entering(
        self,
        place: Place,
        due: Sequence[tuple[int, Bound]],
        _: nn.Module,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        x = main_input(args, kwargs)
        if x is None:
            raise Unsupported(f"{due[0][1].words}", "a module that is given a tensor")
        new = self._met(x, due)
        if new is x:
            return None
        if place.through:
            x.copy_(new)
            return None
        return with_main_input(args, kwargs, new)

    def _leaving(self, due: Sequence[tuple[int, Bound]], _: nn.Module, __: Any, output: Any) -> Any:
        x = main_output(output)
        if x is None:
            raise Unsupported(f"{due[0][1].words}", "a module that gives a tensor")
        new = self._met(x, due)
        return None if new is x else with_main_output(output, new)

    def _tail(self, x: Tensor) -> Tensor:
        """What the model makes of the stream after its blocks: tokens as rows of one position."""
        rows, columns = self._rows(self.ids), self._columns(self.ids)
        tensors = {n: t[rows, columns][:, None] for n, t in self.clean.batch.tensors.items()}
        few = Batch(tensors, torch.ones(len(rows), 1, dtype=torch.bool), _rows(self.clean.batch, rows))
        modules = tuple(block.module for block in self.clean.blocks)
        containers = tuple(block.container for block in self.clean.blocks)
        forward = self.on.model.runner.forward
        with entered(Blocks(modules, containers), After(len(modules) - 1, x[:, None])):
            output = main_output(forward(forward.arguments(few)))
        if output is None or tuple(output.shape[:2]) != (len(rows), 1):
            raise Unsupported("the end of a pass by itself", "an output with rows and positions")
        return output[:, 0]

    def _output(self, number: int, ids: Ids, changed: Tensor | None) -> Tensor:
        """The output of a part: what the pass without edits had, with what has changed put in."""
        part, on = self.parts[number], self.on
        local = [row - on.first for row in part.rows]
        out = self.clean.output[local]
        bounds = [self.starts[number] * self.length, self.starts[number + 1] * self.length]
        low, high = (int(i) for i in np.searchsorted(ids, bounds))
        if changed is None or low == high:
            return out
        if on.reads.columns is None:
            row = np.array(part.lanes)[ids[low:high] // self.length - self.starts[number]]
            out[torch.from_numpy(row), torch.from_numpy(ids[low:high] % self.length)] = changed[low:high]
            return out
        for lane, i in enumerate(part.lanes, start=self.starts[number]):
            for slot, column in enumerate(on.reads.columns[local[i]]):
                found = int(np.searchsorted(ids[low:high], lane * self.length + column)) + low
                if found < high and ids[found] == lane * self.length + column:
                    out[i, slot] = changed[found]
        return out


def _at(among: Ids, ids: Ids, like: Tensor) -> Tensor:
    return torch.from_numpy(np.searchsorted(among, ids)).to(like.device)


def _rows(batch: Batch, index: Tensor) -> tuple[Any, ...]:
    return tuple(batch.rows[i] for i in index.tolist())
