"""One recorded pass: which modules run, what goes in and out of each, and which attention calls are made."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from prosect.core.errors import BadInput
from prosect.data.batch import Batch
from prosect.model.attention import can_route, routed
from prosect.model.boundary import main_input, main_output
from prosect.model.forward import Forward, settled
from prosect.model.sitemap import Place


@dataclass(frozen=True)
class Call:
    """One call of the attention function.

    Attributes:
        module: the attention module that made it.
        heads, key_heads: of queries, and of keys and values.
        d_head, d_value: widths of one query and of one value.
        queries, keys: how many positions each has.
        z: a copy of what the heads gave, (rows, positions, heads, d_value).
    """

    module: nn.Module
    heads: int
    key_heads: int
    d_head: int
    d_value: int
    queries: int
    keys: int
    z: Tensor = field(repr=False, compare=False)


@dataclass(frozen=True)
class Event:
    """A module was entered or left.

    Attributes:
        module: which.
        side: ``in`` or ``out``.
        value: a copy of its main tensor then, since models overwrite what they no longer need; None if it
            has none, or one of more than three axes.
    """

    module: nn.Module
    side: Literal["in", "out"]
    value: Tensor | None


@dataclass
class Probe:
    """What was seen.

    Attributes:
        rows, positions: of the batch; positions are None for inputs without them.
        inputs, outputs: module id → its main tensor at each of its calls.
        events: every module entered and left, in order.
        arguments: module id → what its last call was given.
        attention: attention calls in order; empty where attention cannot be tapped.
        reproduced: whether the pass with attention written out gave the model's own output.
        attending: ids of the modules in which a softmax over positions ran, tapped or not.
    """

    rows: int = 0
    positions: int | None = None
    inputs: dict[int, list[Tensor | None]] = field(default_factory=dict)
    outputs: dict[int, list[Tensor | None]] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    arguments: dict[int, tuple[tuple[Any, ...], dict[str, Any]]] = field(default_factory=dict)
    attention: list[Call] = field(default_factory=list)
    reproduced: bool = False
    attending: set[int] = field(default_factory=set)
    _values: dict[tuple[int, str], Tensor | None] = field(default_factory=dict, repr=False)

    def input(self, module: nn.Module) -> Tensor | None:
        """What ``module`` was given; None unless it ran exactly once."""
        return _only(self.inputs.get(id(module)))

    def output(self, module: nn.Module) -> Tensor | None:
        """What ``module`` gave; None unless it ran exactly once."""
        return _only(self.outputs.get(id(module)))

    def fits(self, x: Tensor) -> bool:
        """Whether a tensor has the batch's rows and positions, as its first axes or flattened into one."""
        if x.ndim == 2 and self.positions is not None:
            return int(x.shape[0]) == self.rows * self.positions
        return x.ndim >= 3 and int(x.shape[0]) == self.rows and self.positions in (None, int(x.shape[1]))

    def once(self, module: nn.Module) -> bool:
        """Whether ``module`` ran exactly once."""
        return len(self.outputs.get(id(module), ())) == 1

    def at(self, place: Place) -> Tensor | None:
        """The tensor at a module's boundary; the model may have written into it since."""
        return self.input(place.module) if place.side == "in" else self.output(place.module)

    def value(self, place: Place) -> Tensor | None:
        """A copy of the tensor at a module's boundary, as it was there; None unless the module ran once."""
        return self._values.get((id(place.module), place.side)) if self.once(place.module) else None

    def note(self, module: nn.Module, side: Literal["in", "out"], x: Tensor | None) -> None:
        """Record that a module was entered or left; images and the like are not copied."""
        flat = x is not None and x.is_floating_point() and x.ndim <= 3
        value = x.detach().clone() if x is not None and flat else None
        self.events.append(Event(module, side, value))
        self._values[id(module), side] = value


def _only(calls: list[Tensor | None] | None) -> Tensor | None:
    return calls[0] if calls is not None and len(calls) == 1 else None


class _Softmaxes(TorchFunctionMode):
    """Notes the module in which each softmax over positions runs."""

    def __init__(self, seen: Probe, open_modules: list[nn.Module]) -> None:
        super().__init__()
        self.seen, self.open = seen, open_modules

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        fused = func in (F.scaled_dot_product_attention, F.multi_head_attention_forward)
        plain = getattr(func, "__name__", "") in ("softmax", "_softmax") and isinstance(out, Tensor)
        if plain:  # (…, heads, queries, keys) or (rows · heads, positions, positions), not a router's experts
            queries, keys = out.shape[-2:] if out.ndim >= 3 else (0, 0)
            plain = queries > 1 and (keys >= queries if out.ndim > 3 else keys == queries)
        if self.open and (fused or plain):
            self.seen.attending.add(id(self.open[-1]))
        return out


def probe(module: nn.Module, example: Batch) -> Probe:
    """Run ``module`` on ``example`` with every boundary recorded, then once more for its attention calls.

    Raises:
        BadInput: it cannot run on that example.
    """
    seen = Probe(len(example), None if example.mask is None else int(example.mask.shape[1]))
    forward = Forward(module)
    arguments = forward.arguments(example)
    handles = []
    open_modules: list[nn.Module] = []
    for m in module.modules():
        handles.append(m.register_forward_pre_hook(partial(_entering, seen, open_modules), with_kwargs=True))
        handles.append(m.register_forward_hook(partial(_leaving, seen, open_modules)))
    try:
        with settled(module), _Softmaxes(seen, open_modules):
            forward(arguments)
    except BadInput:
        raise
    except Exception as error:  # whatever a module's own code raises
        raise BadInput(
            f"a {type(module).__name__} that cannot run on the inputs it is opened with"
            f" ({' '.join(str(error).split())[:160]})",
            "inputs that its forward takes",
            "load(module, inputs=...): a dict of tensors by forward keyword",
        ) from error
    finally:
        for handle in handles:
            handle.remove()
    if can_route(module):

        def record(m: nn.Module, side: str, x: Tensor, allowed: Tensor | None) -> Tensor:
            shapes[side] = tuple(x.shape)
            if side == "z":
                (_, queries, n, width), (_, keys, shared, _), value = shapes["q"], shapes["k"], shapes["v"]
                z = x.detach().clone()
                seen.attention.append(Call(m, n, shared, width, value[-1], queries, keys, z))
            return x

        shapes: dict[str, tuple[int, ...]] = {}
        with settled(module), routed(module, record):
            output = main_output(forward(arguments))
        whole = seen.value(Place(module, "out"))
        same = output is not None and whole is not None and output.shape == whole.shape
        if same and output is not None and whole is not None:
            wide = torch.promote_types(output.dtype, torch.float32)
            seen.reproduced = torch.allclose(output.to(wide), whole.to(wide), rtol=1e-2, atol=1e-3)
    seen.attending |= {id(call.module) for call in seen.attention}
    return seen


def _entering(
    seen: Probe, open_modules: list[nn.Module], m: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    open_modules.append(m)
    x = main_input(args, kwargs)
    seen.inputs.setdefault(id(m), []).append(x)
    seen.note(m, "in", x)
    seen.arguments[id(m)] = (args, kwargs)


def _leaving(
    seen: Probe, open_modules: list[nn.Module], m: nn.Module, args: tuple[Any, ...], output: Any
) -> None:
    if open_modules:
        open_modules.pop()
    x = main_output(output)
    seen.outputs.setdefault(id(m), []).append(x)
    seen.note(m, "out", x)


def mixes(seen: Probe, module: nn.Module) -> bool:
    """Whether what ``module`` gives at one position depends on another: called again, one position changed.

    A module that cannot be called again by itself is taken to mix.
    """
    from prosect.model.boundary import with_main_input

    args, kwargs = seen.arguments[id(module)]
    x = main_input(args, kwargs)
    if x is None or x.ndim != 3 or x.shape[1] < 2:
        return False
    changed = x.detach().clone()
    changed[:, 0] = changed[:, 0] * -0.7 + 0.3
    outputs = []
    try:
        for value in (x.detach().clone(), changed):
            a, k = with_main_input(args, dict(kwargs), value)
            with settled(module):
                outputs.append(main_output(module(*a, **k)))
    except Exception:  # whatever a module's own code raises
        return True
    before, after = outputs
    if before is None or after is None or before.shape[:2] != x.shape[:2]:
        return before is not None and before.ndim == 3
    return not torch.allclose(before[:, 1:], after[:, 1:], rtol=1e-4, atol=1e-6)
