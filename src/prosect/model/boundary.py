"""The one tensor that matters at a module's boundary, whatever container it travels in.

Modules are called with positional and keyword arguments and give tensors, tuples or named outputs. A site at
a boundary means the hidden state in there; these functions find it and put another in its place.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

_NAMED = ("logits", "last_hidden_state")
_SEQUENCE = (tuple, list)  # made once: a union of types is made anew whenever it is written


def main_output(output: object) -> Tensor | None:
    """The main tensor of what a module gave; None if there is none.

    Logits or the last hidden state of a named output, else the first tensor, looking into nested tuples.
    """
    if isinstance(output, Tensor):
        return output
    if isinstance(output, _SEQUENCE):
        for part in output:
            inner = main_output(part)
            if inner is not None:
                return inner
    elif isinstance(output, Mapping):
        for name in _NAMED:
            if isinstance(output.get(name), Tensor):
                found: Tensor = output[name]
                return found
        return main_output(tuple(output.values()))
    return None


def with_main_output(output: Any, new: Tensor) -> Any:
    """``output`` with its main tensor replaced by ``new``; the container given is left as it was."""
    if isinstance(output, Tensor):
        return new
    if isinstance(output, Mapping):
        key = next((n for n in _NAMED if isinstance(output.get(n), Tensor)), None)
        if key is None:
            key = next(k for k, part in output.items() if main_output(part) is not None)
        changed = {**output, key: with_main_output(output[key], new)}
        return changed if type(output) is dict else type(output)(**changed)
    at = next(i for i, part in enumerate(output) if main_output(part) is not None)
    parts = [*output[:at], with_main_output(output[at], new), *output[at + 1 :]]
    if isinstance(output, list):
        return parts
    return type(output)(*parts) if hasattr(output, "_fields") else tuple(parts)


def _input_key(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> int | str | None:
    """Where the hidden state is: ``hidden_states``, else the first floating tensor, else the first tensor."""
    if isinstance(kwargs.get("hidden_states"), Tensor):
        return "hidden_states"
    if args and isinstance(args[0], Tensor) and args[0].is_floating_point():
        return 0
    every: list[tuple[int | str, Any]] = [*enumerate(args), *kwargs.items()]
    tensors = [(key, value) for key, value in every if isinstance(value, Tensor)]
    floating = [key for key, value in tensors if value.is_floating_point()]
    if floating:
        return floating[0]
    return tensors[0][0] if tensors else None


def main_input(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor | None:
    """The main tensor that a module was called with; None if there is none."""
    key = _input_key(args, kwargs)
    if key is None:
        return None
    found: Tensor = args[key] if isinstance(key, int) else kwargs[key]
    return found


def with_main_input(
    args: tuple[Any, ...], kwargs: dict[str, Any], new: Tensor
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The call with its main tensor replaced by ``new``."""
    key = _input_key(args, kwargs)
    if isinstance(key, int):
        return (*args[:key], new, *args[key + 1 :]), kwargs
    return args, {**kwargs, str(key): new}
