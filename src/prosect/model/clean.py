"""The pass without edits, kept so that a pass with edits can leave out what no edit reaches.

Of every block: how it was called, what it was given, the keys and values of its attention and its mask. What a
position sees of the prefix, of sliding windows and of padding is taken from the mask that the model made itself;
rotary tables are taken from the call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from prosect.core.errors import Unsupported
from prosect.data.batch import Batch
from prosect.model.attention import attention, implemented
from prosect.model.boundary import main_input, main_output, with_main_input, with_main_output
from prosect.model.forward import settled
from prosect.model.reads import Reads

if TYPE_CHECKING:
    from prosect.model.model import Model

NAME = "prosect-cone"
Attend = Callable[..., tuple[Tensor, Tensor | None]]
"""What attention modules call: (module, query, key, value, mask, **options) → (rows, queries, heads, d), weights."""

_attend: ContextVar[Attend] = ContextVar("attend")


@dataclass(frozen=True)
class Recorded:
    """One block in the pass without edits.

    Attributes:
        module: the block.
        args, kwargs: what it was called with, an empty tensor in place of the stream.
        given: the residual stream that it was given.
        container: what it gives its output in; None for a bare tensor.
        keys, values: as the scores use them.
        mask: added to the scores, or True where allowed; None where every position sees every other.
    """

    module: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    given: Float[Tensor, "rows positions d_model"]
    container: Any
    keys: Float[Tensor, "rows key_heads positions d_head"]
    values: Float[Tensor, "rows key_heads positions d_value"]
    mask: Tensor | None


@dataclass(frozen=True)
class Clean:
    """The pass without edits.

    Attributes:
        batch: its rows.
        blocks: in order.
        last: the stream that leaves the last block.
        output: of the model, at what is read.
        causal: whether no position sees a later one, in any block.
    """

    batch: Batch
    blocks: tuple[Recorded, ...]
    last: Float[Tensor, "rows positions d_model"]
    output: Tensor
    causal: bool

    def stream(self, layer: int) -> Tensor:
        """What the block is given; past the last, what it gave."""
        return self.last if layer == len(self.blocks) else self.blocks[layer].given

    @property
    def bytes(self) -> int:
        """Memory that it holds."""
        tensors = [self.last, self.output]
        for block in self.blocks:
            tensors += [block.given, block.keys, block.values]
        masks = {id(b.mask): b.mask for b in self.blocks if b.mask is not None}
        return sum(t.numel() * t.element_size() for t in (*tensors, *masks.values()))


@dataclass
class _Seen:
    """One block while it is being recorded."""

    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = field(default_factory=list)
    given: Tensor | None = None
    gave: Any = None
    attended: list[tuple[Tensor, Tensor, Tensor | None]] = field(default_factory=list)


def blocks_in_order(model: Model) -> tuple[nn.Module, ...]:
    """The blocks, each with the stream that leaves it as its output.

    Raises:
        Unsupported: the model has none, or the stream leaves them elsewhere.
    """
    what = f"a part of a pass of {model.name}"
    if not model.n_layers:
        raise Unsupported(what, "a model with blocks")
    for layer in range(model.n_layers):
        if f"resid_pre.{layer}" not in model.sites or f"resid_post.{layer}" not in model.sites:
            raise Unsupported(what, f"a residual stream before and after block {layer}")
    places = [model.sites.entry(model.sites.site(f"resid_post.{i}")).place for i in range(model.n_layers)]
    modules = tuple(place.module for place in places)
    if any(place.side != "out" for place in places) or len(set(modules)) < len(modules):
        raise Unsupported(what, "a stream that is what each block gives")
    return modules


def record(model: Model, batch: Batch, reads: Reads) -> Clean:
    """Run the model as it is and keep what passes with edits will need.

    Raises:
        Unsupported: something of the model cannot be taken apart; the reason is named.
    """
    modules = blocks_in_order(model)
    seen = [_Seen() for _ in modules]
    inside = {id(m): i for i, block in enumerate(modules) for m in block.modules()}

    def attend(m: nn.Module, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, **options: Any) -> Any:
        if id(m) in inside:
            seen[inside[id(m)]].attended.append((k.contiguous(), v.contiguous(), mask))
        return attention(m, q, k, v, mask, **options)

    handles = []
    for module, one in zip(modules, seen, strict=True):
        handles.append(module.register_forward_pre_hook(partial(_entering, one), with_kwargs=True))
        handles.append(module.register_forward_hook(partial(_leaving, one)))
    try:
        with settled(model.module), routed(model.module, attend):
            output = main_output(model.runner.forward(model.runner.forward.arguments(batch)))
    finally:
        for handle in handles:
            handle.remove()
    if output is None or batch.mask is None or tuple(output.shape[:2]) != tuple(batch.mask.shape):
        raise Unsupported(f"a part of a pass of {model.name}", "an output with rows and positions")
    blocks = tuple(
        _block(model, m, one, batch, i) for i, (m, one) in enumerate(zip(modules, seen, strict=True))
    )
    gave = main_output(seen[-1].gave)
    last = blocks[-1].given if gave is None else gave.clone()
    for i in range(len(blocks) - 1):
        if not torch.equal(_given(seen[i].gave), blocks[i + 1].given):
            raise Unsupported(f"a part of a pass of {model.name}", f"nothing between blocks {i} and {i + 1}")
    return Clean(
        batch, blocks, last, reads.taken(output, range(len(batch))), all(_causal(b.mask) for b in blocks)
    )


def _block(model: Model, module: nn.Module, seen: _Seen, batch: Batch, layer: int) -> Recorded:
    what = f"a part of a pass of {model.name}"
    if len(seen.calls) != 1 or len(seen.attended) != 1:
        raise Unsupported(what, f"one call of block {layer} and one of attention in it", "whole passes")
    (args, kwargs), (keys, values, mask) = seen.calls[0], seen.attended[0]
    shape = None if batch.mask is None else tuple(batch.mask.shape)
    if seen.given is None or seen.given.ndim != 3 or tuple(seen.given.shape[:2]) != shape:
        raise Unsupported(what, f"a stream of rows and positions into block {layer}")
    if (keys.shape[0], keys.shape[2]) != shape or values.shape[:3] != keys.shape[:3]:
        raise Unsupported(what, f"one key and one value for each position in block {layer}")
    gave = seen.gave
    container = None if isinstance(gave, Tensor) else with_main_output(gave, torch.zeros(0))
    return Recorded(module, args, kwargs, seen.given, container, keys, values, mask)


def _given(gave: Any) -> Tensor:
    found = main_output(gave)
    return torch.zeros(0) if found is None else found


def _entering(seen: _Seen, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    x = main_input(args, kwargs)
    if x is not None:
        seen.given = x.clone()  # some models write into their stream later
        args, kwargs = with_main_input(args, kwargs, x.new_zeros(0))
    seen.calls.append((args, kwargs))


def _leaving(seen: _Seen, _: nn.Module, __: Any, output: Any) -> None:
    x = main_output(output)
    seen.gave = output if x is None else with_main_output(output, x.clone())


def _causal(mask: Tensor | None) -> bool:
    """Whether no query is allowed a later key."""
    if mask is None:
        return False
    allowed = mask if mask.dtype == torch.bool else mask > torch.finfo(mask.dtype).min / 2
    return not bool(torch.triu(allowed, diagonal=1).any())


@contextmanager
def routed(module: nn.Module, attend: Attend) -> Iterator[None]:
    """Have the attention of ``module`` call ``attend``, with a mask that is written out."""
    token = _attend.set(attend)
    try:
        with implemented(module, NAME, _called):
            yield
    finally:
        _attend.reset(token)


def _called(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **options: Any
) -> tuple[Tensor, Tensor | None]:
    return _attend.get()(module, query, key, value, mask, **options)


def gathered(value: Any, rows: Tensor, columns: Tensor, shape: tuple[int, int]) -> Any:
    """What a block was called with, for some tokens instead of all rows and positions.

    A tensor with an axis of positions in second place (and rows or one for all in the first), or in first place,
    is taken at the tokens, (1, tokens, ...). Attention masks are left out: attention here uses the recorded one.
    """
    if isinstance(value, Tensor):
        count, length = shape
        if value.ndim >= 4 and value.shape[-1] == length:
            return None
        if value.ndim >= 2 and value.shape[1] == length and value.shape[0] in (1, count):
            return value[rows if value.shape[0] == count else torch.zeros_like(rows), columns][None]
        if value.ndim >= 1 and value.shape[0] == length:
            return value[columns]
        return value
    if isinstance(value, dict):
        return {key: gathered(part, rows, columns, shape) for key, part in value.items()}
    if isinstance(value, tuple | list) and not hasattr(value, "_fields"):
        return type(value)(gathered(part, rows, columns, shape) for part in value)
    return value


def all_positions(batch: Batch) -> bool:
    """Whether every tensor of a batch has its rows and positions, so that it can be taken at tokens."""
    if batch.mask is None:
        return False
    return all(tuple(t.shape[:2]) == tuple(batch.mask.shape) for t in batch.tensors.values())
