"""The operations of backward rules: forward as it is, another gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


def needs_gradient(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether an operation is on a way that a gradient takes."""
    return any(isinstance(x, Tensor) and x.requires_grad for x in (*args, *kwargs.values()))


def held(x: Any) -> Any:
    """``x`` as a constant."""
    return x.detach() if isinstance(x, Tensor) else x


def through(value: Float[Tensor, "*n"], like: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """``value``, with the gradient of ``like``."""
    return value.detach() + (like - like.detach())


def frozen_norm(name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """A layer norm or root-mean-square norm whose scale is a constant."""
    names = ("input", "normalized_shape", "weight", "bias", "eps")
    given = dict(zip(names if name == "layer_norm" else (*names[:3], "eps"), args, strict=False)) | kwargs
    x, shape = given["input"], given["normalized_shape"]
    axes = tuple(range(-len((shape,) if isinstance(shape, int) else tuple(shape)), 0))
    centred = x - x.mean(dim=axes, keepdim=True) if name == "layer_norm" else x
    eps = given.get("eps")
    eps = (1e-5 if name == "layer_norm" else torch.finfo(x.dtype).eps) if eps is None else eps
    y = centred / (centred.pow(2).mean(dim=axes, keepdim=True) + eps).sqrt().detach()
    y = y if given.get("weight") is None else y * given["weight"]
    y = y if given.get("bias") is None else y + given["bias"]
    return through(func(*args, **kwargs), y)


class _Tempered(torch.autograd.Function):
    """Softmax over the last axis, with the gradient that it has at a temperature."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, probs: Tensor, temperature: float) -> Tensor:
        ctx.save_for_backward(scores)
        ctx.temperature, ctx.dtype = temperature, scores.dtype
        return probs.clone()

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, None, None]:
        (scores,) = ctx.saved_tensors
        (slope,) = slopes
        probs = (scores.to(slope.dtype) / ctx.temperature).softmax(dim=-1)
        back = probs * (slope - (probs * slope).sum(dim=-1, keepdim=True)) / ctx.temperature
        return back.to(ctx.dtype), None, None


def tempered(
    func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], temperature: float
) -> Tensor:
    """A softmax over the last axis, with the gradient that it has at ``temperature``."""
    with torch.no_grad():
        probs = func(*args, **kwargs)
    out: Tensor = _Tempered.apply(args[0], probs, temperature)  # type: ignore[no-untyped-call]
    return out


class _Halved(torch.autograd.Function):
    """A product that gives each factor half its gradient."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(a, b)
        return a * b

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, Tensor]:
        a, b = ctx.saved_tensors
        (slope,) = slopes
        return slope * b / 2, slope * a / 2


def halved(a: Tensor, b: Tensor) -> Tensor:
    """a · b, with half the gradient for each."""
    out: Tensor = _Halved.apply(a, b)  # type: ignore[no-untyped-call]
    return out


def as_ratio(x: Tensor, y: Tensor) -> Tensor:
    """y = f(x) with the gradient of x times the constant f(x) / x; zero where x is."""
    flat = x.detach() == 0
    ratio = torch.where(
        flat, torch.zeros_like(x), y.detach() / torch.where(flat, torch.ones_like(x), x.detach())
    )
    return through(y, x * ratio)
