"""Training with a penalty on the size of codes: L1, with p-annealing, and Gated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from prosect.decompose.kernels import Picks, decode, of_latents
from prosect.decompose.objective import Folded, Objective, Outcome, Step, require
from prosect.decompose.ranks.dealt import ALONE, Ranks
from prosect.decompose.sparsity import Sparsity, Threshold

SMOOTH = 1e-3
"""Added to a code before it is raised to a power below 1, whose slope at 0 would be infinite."""


@dataclass(frozen=True)
class L1(Objective):
    """ReLU codes that pay for their size.

    Σ_i (z_i w_i)^p, where w_i is the sum over sites of the norms of what the latent writes (1 with one
    site), so that nothing is gained by moving size from codes to decoder. Codes and errors are measured as
    if activations had norm 1: the weight is then that of Bricken et al. 2023, "Towards monosemanticity".

    With p-annealing (Karvonen et al. 2024, "Measuring progress in dictionary learning for language model
    interpretability with board game models") the power falls from 1 in equal steps, and the weight is scaled at
    each of them such that the batch at hand costs what it cost before.

    Args:
        weight: of the penalty.
        power: p at the end of training, above 0 and at most 1.
        anneal_from: share of the training after which p falls.
        anneal_steps: in how many steps it falls.
        warmup: share of the training over which the weight rises from 0.
    """

    name: ClassVar[str] = "l1"
    auxk: ClassVar[bool] = False

    weight: float = 0.1
    power: float = 1.0
    anneal_from: float = 0.5
    anneal_steps: int = 10
    warmup: float = 0.05

    def __post_init__(self) -> None:
        require(self.weight >= 0, f"a penalty of weight {self.weight}", "at least 0")
        require(0 < self.power <= 1, f"the power {self.power}", "above 0 and at most 1")
        require(0 <= self.anneal_from < 1, f"annealing from {self.anneal_from}", "a share from 0 to below 1")
        require(self.anneal_steps >= 1, f"annealing in {self.anneal_steps} steps", "at least 1")
        require(0 <= self.warmup <= 1, f"a warm-up of {self.warmup}", "a share from 0 to 1")

    @property
    def after(self) -> Sparsity:
        """A threshold for each latent; 0 for L1."""
        return Threshold()

    def state(self) -> dict[str, Tensor]:
        """The power in force, and by how much the weight has been scaled for it."""
        return {"power": torch.ones((), dtype=torch.float64), "scale": torch.ones((), dtype=torch.float64)}

    def select(
        self, pre: Float[Tensor, "n latents"], learned: Mapping[str, Tensor], ranks: Ranks = ALONE
    ) -> Picks:
        """Those above 0."""
        return Picks.where(pre > 0)

    def power_at(self, progress: float) -> float:
        """The power in force at a share of the training."""
        if self.power == 1 or progress < self.anneal_from:
            return 1.0
        share = (progress - self.anneal_from) / (1 - self.anneal_from)
        done = int(share * self.anneal_steps + 1e-9) + 1
        return 1 - min(done, self.anneal_steps) / self.anneal_steps * (1 - self.power)

    def penalty(self, step: Step, codes: Float[Tensor, " m"]) -> Float[Tensor, ""]:
        """The price of the codes at the power in force."""
        norms = step.joint_norms()
        sized = codes if norms is None else codes * of_latents(norms, step.picks)
        sized = sized / step.target.shape[1] ** 0.5
        power, state = self.power_at(step.progress), step.state
        total = _raised(sized, power)
        if power != float(state["power"]):
            before = step.ranks.total(_raised(sized.detach(), float(state["power"])))
            if float(before) > 0:
                after = step.ranks.total(total.detach())
                state["scale"].mul_((before.double() / after.double()).to(state["scale"]))
            state["power"].fill_(power)
        warm = min(1.0, step.progress / self.warmup) if self.warmup else 1.0
        return warm * self.weight * float(state["scale"]) * total / step.picks.n


@dataclass(frozen=True)
class Gated(L1):
    """Which latents fire and how strongly are decided apart, so that the penalty on the one does not shrink the other.

    Rajamanoharan et al. 2024, "Improving dictionary learning with gated sparse autoencoders". A latent fires
    where its gate π = E x + b is positive; its code is relu(exp(r) E x + b'). The penalty is on relu(π),
    and an auxiliary error, with decoder and offset held fixed, keeps the gate's values meaningful.
    It folds exactly into a threshold: the encoder scaled by exp(r), bias b' and threshold b' - exp(r) b,
    which may be negative.
    """

    name: ClassVar[str] = "gated"
    several: ClassVar[bool] = True

    def extra(self, latents: int) -> dict[str, Tensor]:
        """The log of the magnitudes' scale, and their bias."""
        return {"log_scale": torch.zeros(latents), "magnitude": torch.zeros(latents)}

    def loss(self, step: Step) -> Outcome:
        """The error, the penalty on the gates, and the error that the gates alone would leave."""
        picks, gate = step.picks, torch.relu(step.values)
        codes = self._magnitudes(step, gate)
        residual = step.target - step.made(codes)
        alone = step.ranks.whole(decode(picks, gate, step.decoder.detach())) + step.offset.detach()
        if step.around is not None:
            alone = alone + step.around.detach()
        loss = residual.square().mean() + self.penalty(step, gate) + (step.target - alone).square().mean()
        return Outcome(codes, residual, loss)

    def _magnitudes(self, step: Step, gate: Tensor) -> Tensor:
        learned, picks = step.learned, step.picks
        scale = of_latents(learned["log_scale"].exp(), picks)
        size = scale * (gate - of_latents(learned["bias"], picks)) + of_latents(learned["magnitude"], picks)
        return torch.relu(torch.where(gate > 0, size, 0.0))

    def fold(
        self,
        encoder: Float[Tensor, "latents reads"],
        bias: Float[Tensor, " latents"],
        learned: Mapping[str, Tensor],
    ) -> Folded:
        """Magnitudes become the pre-activations, the gate their threshold."""
        scale, magnitude = learned["log_scale"].exp(), learned["magnitude"]
        return Folded(scale[:, None] * encoder, magnitude.clone(), magnitude - scale * bias)


def _raised(sized: Float[Tensor, " m"], power: float) -> Float[Tensor, ""]:
    """Σ (z + s)^p - s^p; Σ z at p = 1."""
    if power == 1:
        return sized.sum()
    raised: Tensor = (sized + SMOOTH) ** power - SMOOTH**power
    return raised.sum()
