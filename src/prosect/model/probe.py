"""One recorded pass: which modules run, what goes in and out of each, and which attention calls are made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

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
    """

    module: nn.Module
    heads: int
    key_heads: int
    d_head: int
    d_value: int


@dataclass
class Probe:
    """What was seen.

    Attributes:
        inputs, outputs: module id → its main tensor at each of its calls.
        attention: attention calls in order; empty where attention cannot be tapped.
    """

    inputs: dict[int, list[Tensor | None]] = field(default_factory=dict)
    outputs: dict[int, list[Tensor | None]] = field(default_factory=dict)
    attention: list[Call] = field(default_factory=list)

    def input(self, module: nn.Module) -> Tensor | None:
        """What ``module`` was given; None unless it ran exactly once."""
        return _only(self.inputs.get(id(module)))

    def output(self, module: nn.Module) -> Tensor | None:
        """What ``module`` gave; None unless it ran exactly once."""
        return _only(self.outputs.get(id(module)))

    def at(self, place: Place) -> Tensor | None:
        """The tensor at a module's boundary."""
        return self.input(place.module) if place.side == "in" else self.output(place.module)


def _only(calls: list[Tensor | None] | None) -> Tensor | None:
    return calls[0] if calls is not None and len(calls) == 1 else None


def probe(module: nn.Module, example: Batch) -> Probe:
    """Run ``module`` on ``example`` with every boundary recorded, then once more for its attention calls."""
    seen = Probe()
    forward = Forward(module)
    arguments = forward.arguments(example)
    handles = []
    for m in module.modules():
        handles.append(m.register_forward_pre_hook(_entering(seen), with_kwargs=True))
        handles.append(m.register_forward_hook(_leaving(seen)))
    try:
        with settled(module):
            forward(arguments)
    finally:
        for handle in handles:
            handle.remove()
    if can_route(module):

        def record(m: nn.Module, side: str, x: Tensor, allowed: Tensor | None) -> Tensor:
            if side == "q":
                heads[id(m)] = (int(x.shape[2]), int(x.shape[3]))
            elif side == "v":
                n, width = heads[id(m)]
                seen.attention.append(Call(m, n, int(x.shape[2]), width, int(x.shape[3])))
            return x

        heads: dict[int, tuple[int, int]] = {}
        with settled(module), routed(module, record):
            forward(arguments)
    return seen


def _entering(seen: Probe) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]:
    def hook(m: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen.inputs.setdefault(id(m), []).append(main_input(args, kwargs))

    return hook


def _leaving(seen: Probe) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
    def hook(m: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        seen.outputs.setdefault(id(m), []).append(main_output(output))

    return hook
