"""How small networks are trained: their first weights, and Adam with a rate that falls to zero."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor, nn

from prosect.core.errors import NotFinite
from prosect.core.seeds import Seed


class Adam:
    """Adam (Kingma & Ba 2015, algorithm 1) on a few small tensors, with AdamW's decay (Loshchilov & Hutter 2019).

    To the bit it is that of ``torch.optim``, which is slow on tensors as small as these and
    loads a compiler before its first step.
    """

    RISE, SPREAD, LEAST = 0.9, 0.999, 1e-8
    """How fast both moments forget, and what is added to the root of the second."""

    def __init__(self, parameters: Iterable[Tensor], decay: float = 0.0) -> None:
        self.trained, self.decay = list(parameters), decay
        self.made = [0] * len(self.trained)
        self.mean, self.square = ([torch.zeros_like(w) for w in self.trained] for _ in range(2))

    def step(self, rate: float) -> None:
        """One step along the gradients there are, which are then no more."""
        with torch.no_grad():
            for i, (w, mean, square) in enumerate(zip(self.trained, self.mean, self.square, strict=True)):
                if w.grad is None:
                    continue
                self.made[i] += 1
                size = rate / (1 - self.RISE ** self.made[i])
                root = (1 - self.SPREAD ** self.made[i]) ** 0.5
                if self.decay:
                    w.mul_(1 - rate * self.decay)
                mean.lerp_(w.grad, 1 - self.RISE)
                square.mul_(self.SPREAD).addcmul_(w.grad, w.grad, value=1 - self.SPREAD)
                w.addcdiv_(mean, (square.sqrt() / root).add_(self.LEAST), value=-size)
                w.grad = None


def descend(
    parameters: Iterable[Tensor],
    steps: int,
    rate: float,
    loss: Callable[[int], Tensor],
    after: Callable[[int], None] | None = None,
    constant: bool = False,
    clip: float | None = None,
    decay: float = 0.0,
) -> None:
    """`Adam` on ``loss(step)``, in place; no gradient is left behind.

    Args:
        parameters: what is trained.
        steps: how many.
        rate: of the first step; it falls linearly to zero.
        loss: of a step, a number with a gradient; it draws its own batch.
        after: called with the step once it is made: masks are put back here, and neurons swapped.
        constant: the rate does not fall.
        clip: longest gradient of all parameters together; a longer one is made this long.
        decay: share of every weight that is taken off, times the rate.

    Raises:
        NotFinite: the last loss is NaN or infinite.
    """
    trained = list(parameters)
    for w in trained:
        w.grad = None
    adam = Adam(trained, decay)
    value = torch.zeros(())
    for step in range(steps):
        value = loss(step)
        value.backward()  # type: ignore[no-untyped-call]
        if clip is not None:
            nn.utils.clip_grad_norm_(trained, clip)
        adam.step(rate if constant else rate * (1 - step / steps))
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
