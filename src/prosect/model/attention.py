"""Attention written out, so that what happens inside it can be read and changed.

transformers lets an attention function be registered by name and chosen in a model's configuration. For a
pass that taps the inside of attention, the configuration names the function below, which computes scores,
probabilities and outputs itself with a tap on each; afterwards the configuration is as it was, and the
model's own kernel runs again. The inputs decide what the family does: scaling, a cap on the scores, sinks
(an extra column in the softmax that takes weight and gives nothing), a bias by position, grouped queries.
Whether this reproduces a family's own attention is measured when the model is opened (`check`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

NAME = "prosect"

Tap = Callable[[nn.Module, str, Tensor, Tensor | None], Tensor]
"""(attention module, quantity, its value, which entries may be edited or None for all) → the value to use.

q, k, v and z come as (rows, positions, heads, d_head); scores and probs as (rows, heads, queries, keys).
"""

_tap: ContextVar[Tap | None] = ContextVar("tap", default=None)


def _met(
    tap: Tap | None, module: nn.Module, quantity: str, x: Tensor, allowed: Tensor | None = None
) -> Tensor:
    return x if tap is None else tap(module, quantity, x, allowed)


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    softcap: float | None = None,
    position_bias: Tensor | None = None,
    s_aux: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, Tensor]:
    """Softmax attention with a tap on every step.

    Args:
        module: the attention module that calls.
        query: (rows, heads, queries, d_head).
        key: (rows, key heads, keys, d_head).
        value: (rows, key heads, keys, d_value).
        attention_mask: added to the scores, (rows, 1 or heads, queries, keys), or True where allowed.
        scaling: factor on the scores; 1/√d_head without one.
        softcap: scores are softcap · tanh(scores / softcap).
        position_bias: added to the scores.
        s_aux: the sinks, one score for each head.

    Returns:
        (rows, queries, heads, d_value), and the probabilities.
    """
    at = partial(_met, _tap.get(), module)
    query = at("q", query.transpose(1, 2)).transpose(1, 2)
    key = at("k", key.transpose(1, 2)).transpose(1, 2)
    value = at("v", value.transpose(1, 2)).transpose(1, 2)
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    scores = query @ key.transpose(-1, -2) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if position_bias is not None:
        scores = scores + position_bias
    allowed = None
    if attention_mask is not None:
        lowest = torch.finfo(scores.dtype).min
        if attention_mask.dtype == torch.bool:
            allowed = attention_mask.expand_as(scores)
            scores = scores.masked_fill(~allowed, lowest)
        else:
            mask = attention_mask[..., : key.shape[-2]]
            allowed = (mask > lowest / 2).expand_as(scores)
            scores = torch.where(allowed, scores + mask, lowest)
    scores = at("scores", scores, allowed)
    sinks = getattr(module, "sinks", None) if s_aux is None else s_aux
    wide = torch.promote_types(scores.dtype, torch.float32)
    if isinstance(sinks, Tensor):
        column = sinks.reshape(1, -1, 1, 1).expand(*scores.shape[:-1], 1).to(scores.dtype)
        probs = torch.cat([scores, column], dim=-1).softmax(dim=-1, dtype=wide)[..., :-1].to(value.dtype)
    else:
        probs = scores.softmax(dim=-1, dtype=wide).to(value.dtype)
    probs = at("probs", probs, allowed)
    return at("z", (probs @ value).transpose(1, 2)).contiguous(), probs


@contextmanager
def tapped(tap: Tap) -> Iterator[None]:
    """Have `attention` hand its steps to ``tap`` for as long as the block lasts, whoever calls it."""
    token = _tap.set(tap)
    try:
        yield
    finally:
        _tap.reset(token)


def configurations(module: nn.Module) -> list[Any]:
    """Every configuration in a transformers model that names an attention function, each once."""
    found: dict[int, Any] = {}
    pending = [getattr(m, "config", None) for m in module.modules()]
    while pending:
        config = pending.pop()
        if id(config) in found or not hasattr(config, "_attn_implementation_internal"):
            continue
        found[id(config)] = config
        pending.extend(getattr(config, name, None) for name in getattr(config, "sub_configs", {}))
    return list(found.values())


def can_route(module: nn.Module) -> bool:
    """Whether ``module`` has a configuration that names its attention function."""
    return bool(configurations(module))


@contextmanager
def implemented(module: nn.Module, name: str, function: Callable[..., Any]) -> Iterator[None]:
    """Have the attention of ``module`` call ``function``, with masks written out, for as long as the block lasts.

    Args:
        module: a transformers model.
        name: of the function in transformers' AttentionInterface.
        function: (module, query, key, value, mask, **options) → (z, probabilities or None).
    """
    from transformers.masking_utils import AttentionMaskInterface, eager_mask
    from transformers.modeling_utils import AttentionInterface

    AttentionInterface.register(name, function)
    AttentionMaskInterface.register(name, eager_mask)
    configs = configurations(module)
    before = [config._attn_implementation_internal for config in configs]
    try:
        for config in configs:
            config._attn_implementation_internal = name
        yield
    finally:
        for config, implementation in zip(configs, before, strict=True):
            config._attn_implementation_internal = implementation


@contextmanager
def routed(module: nn.Module, tap: Tap) -> Iterator[None]:
    """Have the attention of ``module`` go through `attention` and ``tap`` for as long as the block lasts."""
    with implemented(module, NAME, attention), tapped(tap):
        yield
