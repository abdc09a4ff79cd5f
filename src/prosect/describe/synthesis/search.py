"""Search over sequences of tokens: swaps suggested by the gradient, judged by running them.

A greedy coordinate search in the manner of GCG (Zou et al. 2023, "Universal and Transferable Adversarial Attacks on
Aligned Language Models", algorithm 1): the gradient with respect to the embedding of each position says, to first
order, what every swap would do; the most promising swaps and as many random ones are run, and the best is taken if
it is better. Where the unit is off the gradient is zero and only the random ones help. At the end every single swap
is tried, as far as the budget goes, so that the result can be said to be the best within one swap, or not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from prosect.core.seeds import Seed
from prosect.describe.synthesis.unit import Unit
from prosect.model.edits import replace
from prosect.model.inputs import of_ids
from prosect.model.model import Model

ROWS = 256
"""Sequences run in one pass."""
PATIENCE = 3
"""Steps without a better swap after which the search goes on to trying every one."""


@dataclass
class Search:
    """One unit and the sequences that may be tried.

    Attributes:
        model: what is run.
        unit: what is to be activated.
        prefix, suffix: tokens before and after those that are searched for.
        allowed: tokens that may be used.
        length: how many are searched for.
        candidates: swaps run at each step; half from the gradient, half at random.
        steps: most steps.
        budget: most sequences run in all.
        used: sequences run so far.
        table: embeddings of the allowed tokens; None where the model has none to follow a gradient to.
    """

    model: Model
    unit: Unit
    prefix: tuple[int, ...]
    suffix: tuple[int, ...]
    allowed: Int[np.ndarray, " allowed"]
    length: int
    candidates: int
    steps: int
    budget: int
    used: int = 0
    table: Float[Tensor, "allowed d_model"] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        find = getattr(self.model.module, "get_input_embeddings", None)
        embedding = find() if callable(find) else None
        weight = getattr(embedding, "weight", None)
        if isinstance(weight, Tensor) and "embeddings" in self.model.sites:
            self.table = weight.detach()[torch.from_numpy(self.allowed).to(weight.device)]

    @property
    def left(self) -> int:
        """Sequences that may still be run."""
        return max(0, self.budget - self.used)

    def whole(self, free: Int[np.ndarray, "n length"]) -> list[list[int]]:
        """Sequences as the model reads them."""
        return [[*self.prefix, *row, *self.suffix] for row in free.tolist()]

    def values(self, free: Int[np.ndarray, "n length"]) -> Float[np.ndarray, " n"]:
        """The unit on sequences, run as they are."""
        self.used += len(free)
        out = [
            self.unit.measure(self.model, self.model.batch(of_ids(self.whole(free[at : at + ROWS])))).cpu()
            for at in range(0, len(free), ROWS)
        ]
        return np.asarray(torch.cat(out).numpy())

    def promises(self, free: Int[np.ndarray, " length"]) -> Float[np.ndarray, "length allowed"]:
        """What each swap would change, to first order; zero where there is no gradient."""
        if self.table is None:
            return np.zeros((self.length, len(self.allowed)))
        batch = self.model.batch(of_ids(self.whole(free[None])))
        # a leaf of its own, so that models whose weights take no gradient have one here
        leaf = replace("embeddings", lambda x: x.detach().requires_grad_())
        site = self.unit.capture(self.model)
        with torch.enable_grad():
            trace = self.model.run(batch, ["embeddings", site], [leaf], grad=True, stop_early=True)
            value = self.unit.value(self.model, trace).sum()
            (gradient,) = torch.autograd.grad(value, trace["embeddings"])
        at = slice(len(self.prefix), len(self.prefix) + self.length)
        here = trace["embeddings"][0, at].detach()
        step = gradient[0, at]
        change = step @ self.table.T - (step * here).sum(dim=-1, keepdim=True)
        return np.asarray(change.double().cpu().numpy())

    def climb(
        self, start: Int[np.ndarray, " length"], value: float, allowed: Int[np.ndarray, " usable"], seed: Seed
    ) -> tuple[Int[np.ndarray, " length"], float, bool]:
        """From one sequence to a better one.

        Args:
            start: where to begin.
            value: of the unit there.
            allowed: columns of the allowed tokens that this search may use.
            seed: of the random swaps.

        Returns:
            The sequence, the unit there, and whether every single swap was tried and none is better.
        """
        free, draw, waited = start.copy(), seed.numpy(), 0
        for _ in range(self.steps):
            if waited >= PATIENCE or self.left < self.candidates:
                break
            promise = self.promises(free)[:, allowed]
            half = max(1, self.candidates // 2)
            best = (
                np.argsort(-promise, axis=None, kind="stable")[:half] if promise.any() else np.empty(0, int)
            )
            random = draw.integers(promise.size, size=self.candidates - len(best))
            position, column = np.divmod(np.concatenate([best, random]), len(allowed))
            tried = np.repeat(free[None], len(position), axis=0)
            tried[np.arange(len(position)), position] = self.allowed[allowed[column]]
            found = self.values(tried)
            waited += 1
            if found.max() > value:
                free, value, waited = tried[int(found.argmax())], float(found.max()), 0
        return self._every(free, value, allowed)

    def _every(
        self, free: Int[np.ndarray, " length"], value: float, allowed: Int[np.ndarray, " usable"]
    ) -> tuple[Int[np.ndarray, " length"], float, bool]:
        """Try every single swap, position by position, until none is better or the budget is spent."""
        settled = 0
        while settled < self.length:
            for position in reversed(range(self.length)):  # causal models: what is nearest to the unit first
                if self.left < len(allowed):
                    return free, value, False
                tried = np.repeat(free[None], len(allowed), axis=0)
                tried[:, position] = self.allowed[allowed]
                found = self.values(tried)
                settled += 1
                if found.max() > value + 1e-6 * abs(value):
                    free, value, settled = tried[int(found.argmax())], float(found.max()), 1
                if settled >= self.length:
                    break
        return free, value, True


def needs(
    search: Search, free: Int[np.ndarray, " length"], value: float, draws: int, seed: Seed
) -> Float[np.ndarray, " length"]:
    """How much the unit loses, on average, when one position holds a token drawn at random."""
    draw = seed.numpy()
    tried: Sequence[Int[np.ndarray, " length"]] = []
    for position in range(len(free)):
        rows = np.repeat(free[None], draws, axis=0)
        rows[:, position] = draw.choice(search.allowed, draws)
        tried = [*tried, rows]
    found = search.values(np.concatenate(tried)).reshape(len(free), draws)
    return np.asarray(value - found.mean(axis=1))
