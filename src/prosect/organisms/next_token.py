"""Training a language model on token rows by next-token prediction, in pieces that give what one run would."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from prosect.core.seeds import Seed


@dataclass(frozen=True)
class Schedule:
    """AdamW (Loshchilov & Hutter 2019) with a linear warm-up and a cosine decay to a tenth.

    Attributes:
        steps: in all.
        rows: of a batch.
        rate: highest learning rate.
        decay: weight decay of matrices.
        warm: steps of warm-up.
        betas: of the two moments.
    """

    steps: int
    rows: int
    rate: float
    decay: float = 0.05
    warm: int = 100
    betas: tuple[float, float] = (0.9, 0.98)

    def at(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        warm = min(1.0, (step + 1) / self.warm)
        return self.rate * warm * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * step / self.steps)))


def initialised(module: nn.Module, seed: Seed, scale: float = 0.02) -> nn.Module:
    """Every matrix normal with this standard deviation, norms one, biases zero; nothing global is drawn from."""
    draw = seed.torch()
    with torch.no_grad():
        for name, weight in module.named_parameters():
            if weight.ndim >= 2:
                weight.copy_(torch.randn(weight.shape, generator=draw) * scale)
            else:
                weight.fill_(1.0 if name.endswith("weight") else 0.0)
    return module


def loss_of(
    module: nn.Module, ids: Int[Tensor, "rows positions"], weights: Float[Tensor, "rows positions"]
) -> Float[Tensor, ""]:
    """Mean cross-entropy (nats) of tokens after the first of their row, each counted by its weight."""
    logits = module(input_ids=ids).logits[:, :-1]
    keep = weights[:, 1:] > 0
    counted = weights[:, 1:][keep]
    each = nn.functional.cross_entropy(logits[keep], ids[:, 1:][keep], reduction="none")
    return (each * counted).sum() / counted.sum()


class Trainer:
    """A model in training: step by step, and with its moments for going on later."""

    def __init__(
        self,
        module: nn.Module,
        schedule: Schedule,
        batch: Callable[[int], tuple[Tensor, Tensor]],
    ) -> None:
        """Start at step 0.

        Args:
            module: returns ``.logits`` for ``input_ids``.
            schedule: of the rate.
            batch: step → token ids and how much each counts as a target, 0 for padding, both (rows, positions);
                of the step alone, so that a training stopped and gone on with sees what it would have seen.
        """
        self.module, self.schedule, self.batch, self.step = module, schedule, batch, 0
        plain = [p for p in module.parameters() if p.ndim < 2]
        heavy = [p for p in module.parameters() if p.ndim >= 2]
        groups = [{"params": heavy, "weight_decay": schedule.decay}, {"params": plain, "weight_decay": 0.0}]
        self.optimiser = torch.optim.AdamW(groups, lr=schedule.rate, betas=schedule.betas)

    def run(self, until: int | None = None) -> Iterator[tuple[int, float]]:
        """Train on; gives (steps done, loss) after each step."""
        self.module.train()
        while self.step < (self.schedule.steps if until is None else until):
            for group in self.optimiser.param_groups:
                group["lr"] = self.schedule.at(self.step)
            ids, weights = self.batch(self.step)
            loss = loss_of(self.module, ids, weights)
            self.optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(self.module.parameters(), 1.0)
            self.optimiser.step()
            self.step += 1
            yield self.step, float(loss.detach())

    def state(self) -> dict[str, Tensor]:
        """Weights, moments and the step, by name."""
        out = {f"weight/{n}": p.detach().clone() for n, p in self.module.named_parameters()}
        for n, p in self.module.named_parameters():
            held = self.optimiser.state.get(p, {})
            out |= {f"{k}/{n}": held[k].clone() for k in ("exp_avg", "exp_avg_sq") if k in held}
        return out | {"step": torch.tensor(self.step)}

    def resume(self, state: dict[str, Tensor]) -> None:
        """Go on from a `state`."""
        self.step = int(state["step"])
        with torch.no_grad():
            for n, p in self.module.named_parameters():
                p.copy_(state[f"weight/{n}"])
                if self.step:
                    moments = {k: state[f"{k}/{n}"].clone() for k in ("exp_avg", "exp_avg_sq")}
                    self.optimiser.state[p] = {"step": torch.tensor(float(self.step)), **moments}
