"""Passes that begin in the middle: the blocks before an edit give what they gave in a pass without it.

An edit at a layer cannot change what came before, so a model that is run again and again under edits need not
compute the blocks below them. Whether a model can be entered like this is proved on its own example before it is
done: the pass must give the very same output. Where it does not, every pass is a whole one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from prosect.core.errors import BadInput, ProsectError
from prosect.model.boundary import main_input, with_main_output

if TYPE_CHECKING:
    from prosect.model.model import Model


@dataclass(frozen=True)
class After:
    """Begin after a block.

    Attributes:
        layer: the block whose output is given; it and those before it are not computed.
        resid: its output, ``resid_post`` of that layer, for every row of the batch.
    """

    layer: int
    resid: Float[Tensor, "rows positions d_model"]


@dataclass(frozen=True)
class Blocks:
    """The blocks of a model but the last, and the containers they give their output in."""

    modules: tuple[nn.Module, ...]
    outputs: tuple[Any, ...]


def blocks_of(model: Model) -> Blocks | None:
    """The blocks of a model that can be entered; None for one that cannot."""
    if not model.n_layers or model.n_layers < 2:
        return None
    with suppress(ProsectError):
        places = [
            model.sites.entry(model.sites.site(f"resid_post.{i}")).place for i in range(model.n_layers - 1)
        ]
        modules = tuple(place.module for place in places)
        if any(place.side != "out" for place in places) or len(set(modules)) < len(modules):
            return None
        return _proved(model, modules)
    return None


def _proved(model: Model, modules: tuple[nn.Module, ...]) -> Blocks | None:
    given: dict[int, Any] = {}
    hooks = [
        m.register_forward_hook(lambda _m, _a, output, i=i: given.__setitem__(i, output))
        for i, m in enumerate(modules)
    ]
    last = len(modules) - 1
    name = f"resid_post.{last}"
    try:
        whole = model.run(model.example, capture=(name,), finite=False)
    finally:
        for hook in hooks:
            hook.remove()
    if whole.output is None or len(given) != len(modules):
        return None
    blocks = Blocks(modules, tuple(_empty(given[i]) for i in range(len(modules))))
    with entered(blocks, After(last, whole[name])):
        again = model.run(model.example, finite=False)
    return blocks if again.output is not None and torch.equal(again.output, whole.output) else None


def _empty(output: Any) -> Any:
    """The container of an output, without what it held."""
    return None if isinstance(output, Tensor) else with_main_output(output, torch.zeros(0))


def _handed_on(container: Any, given: Tensor | None, *args: Any, **kwargs: Any) -> Any:
    """In place of a block's forward: what it is told to give, or else what it was given."""
    x = main_input(args, kwargs) if given is None else given
    return x if container is None or x is None else with_main_output(container, x)


@contextmanager
def entered(blocks: Blocks, after: After) -> Iterator[None]:
    """The model with its first blocks giving what they are told, for as long as the block lasts.

    Raises:
        BadInput: there is no such block, or none after it.
    """
    if not 0 <= after.layer < len(blocks.modules):
        raise BadInput(f"block {after.layer}", f"one from 0 to {len(blocks.modules) - 1}")

    replaced = blocks.modules[: after.layer + 1]
    own = [vars(module).get("forward") for module in replaced]
    try:
        for layer, module in enumerate(replaced):
            module.forward = partial(
                _handed_on, blocks.outputs[layer], after.resid if layer == after.layer else None
            )
        yield
    finally:
        for module, forward in zip(replaced, own, strict=True):
            vars(module).pop("forward", None)
            if forward is not None:  # somebody else had put it there
                vars(module)["forward"] = forward
