"""How small networks are trained: their first weights, and Adam with a rate that falls to zero."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor, nn

from prosect.core.errors import NotFinite
from prosect.core.seeds import Seed


def descend(
    parameters: Iterable[Tensor],
    steps: int,
    rate: float,
    loss: Callable[[int], Tensor],
    after: Callable[[int], None] | None = None,
    constant: bool = False,
    clip: float | None = None,
) -> None:
    """Adam (Kingma & Ba 2015) on ``loss(step)``, in place.

    Args:
        parameters: what is trained.
        steps: how many.
        rate: of the first step; it falls linearly to zero.
        loss: of a step, a number with a gradient; it draws its own batch.
        after: called with the step once it is made: masks are put back here, and neurons swapped.
        constant: the rate does not fall.
        clip: longest gradient of all parameters together; a longer one is made this long.

    Raises:
        NotFinite: the last loss is NaN or infinite.
    """
    trained = list(parameters)
    adam = torch.optim.Adam(trained, lr=rate)
    value = torch.zeros(())
    for step in range(steps):
        adam.param_groups[0]["lr"] = rate if constant else rate * (1 - step / steps)
        adam.zero_grad()
        value = loss(step)
        value.backward()  # type: ignore[no-untyped-call]
        if clip is not None:
            nn.utils.clip_grad_norm_(trained, clip)
        adam.step()
        if after is not None:
            with torch.no_grad():
                after(step)
    if not math.isfinite(value.item()):
        raise NotFinite(f"a loss of {value.item()} after {steps} steps", "a finite one", "a smaller rate")


def started(module: nn.Module, seed: Seed) -> dict[str, np.ndarray]:
    """Initial weights for a module, by name: matrices normal with variance 1 / inputs, gains 1, the rest 0.

    Every weight has a stream of its own under its name, so twins that share a name and a shape start alike.
    """
    gains = {f"{path}.weight" for path, m in module.named_modules() if isinstance(m, nn.LayerNorm)}
    state = {}
    for name, parameter in module.named_parameters():
        shape = tuple(parameter.shape)
        if name in gains:
            state[name] = np.ones(shape)
        elif len(shape) < 2:
            state[name] = np.zeros(shape)
        else:
            state[name] = seed.child(name).numpy().standard_normal(shape) / math.sqrt(shape[-1])
    return state
