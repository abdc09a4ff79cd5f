"""What a way of training a dictionary has to say for itself, so that one trainer can do them all.

An objective says which latents take part in a step, what their codes are, what the step costs, what is
learned besides encoder, bias, decoder and offset, and how all that is folded into the form used after
training (`prosect.decompose.sparsity`). The trainer does the rest, alike for all.

Training works in standard units: at each site activations have mean square 1 in each dimension, decoder rows
have norm 1, and an error is a mean over positions and dimensions, so that 1 is about what predicting the
mean would leave. Penalties are given in the same currency.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from prosect.core.errors import BadInput
from prosect.decompose.contract import Codes
from prosect.decompose.kernels import Picks, decode
from prosect.decompose.products import PLAIN, Products
from prosect.decompose.ranks.dealt import ALONE, Ranks
from prosect.decompose.sparsity import Sparsity


def mean_square(residual: Float[Tensor, "n writes"]) -> Float[Tensor, ""]:
    """The error of training on activations."""
    return residual.square().mean()


@dataclass(frozen=True)
class Step:
    """One batch on its way through a dictionary in training, in standard units.

    Attributes:
        picks: latents that take part.
        values: their pre-activations, differentiable.
        target: what should be written.
        decoder: its rows.
        offset: written where no latent fires.
        around: what a skip writes, or None.
        learned: all that is learned, by name: encoder, bias, decoder, offset and the objective's own.
        state: what the objective carries from step to step; it may change in place.
        spans: columns of each site written.
        progress: share of the training done, from 0 and below 1.
        ranks: what the work is dealt to: the batch may be a part of the positions, or the latents some of all.
        error: what a residual costs.
    """

    picks: Picks
    values: Float[Tensor, " m"]
    target: Float[Tensor, "n writes"]
    decoder: Float[Tensor, "latents writes"]
    offset: Float[Tensor, " writes"]
    around: Float[Tensor, "n writes"] | None
    learned: Mapping[str, Tensor]
    state: Mapping[str, Tensor]
    spans: tuple[slice, ...]
    progress: float
    ranks: Ranks = ALONE
    error: Callable[[Tensor], Tensor] = mean_square

    def made(self, codes: Float[Tensor, " m"]) -> Float[Tensor, "n writes"]:
        """What codes make of the batch."""
        out = self.ranks.whole(decode(self.picks, codes, self.decoder)) + self.offset
        return out if self.around is None else out + self.around

    def joint_norms(self) -> Float[Tensor, " latents"] | None:
        """What penalties weigh codes by: the sum over sites of the norm of what a latent writes there.

        With one site that is 1 for every latent, for which None stands. The sum makes a latent that writes
        several sites dearer than one that writes a single site, and so makes exclusive latents exclusive
        (Lindsey et al. 2024, "Sparse crosscoders for cross-layer features and model diffing").
        """
        if len(self.spans) == 1:
            return None
        return torch.stack([self.decoder[:, span].norm(dim=1) for span in self.spans]).sum(dim=0)


class Chosen(NamedTuple):
    """Which latents take part, with their pre-activations."""

    picks: Picks
    values: Float[Tensor, " m"]


class Outcome(NamedTuple):
    """What an objective makes of a step.

    Attributes:
        codes: of the picks; one that is 0 did not fire.
        residual: what the whole dictionary's reconstruction missed.
        loss: to descend, without the auxiliary loss.
    """

    codes: Float[Tensor, " m"]
    residual: Float[Tensor, "n writes"]
    loss: Float[Tensor, ""]


class Folded(NamedTuple):
    """Weights in the form used after training; still in standard units."""

    encoder: Float[Tensor, "latents reads"]
    bias: Float[Tensor, " latents"]
    threshold: Float[Tensor, " latents"] | None


class Objective(ABC):
    """A way of training; implementations are frozen dataclasses, whose fields are their parameters.

    An objective may stand where a dictionary wants a sparsity: it brings the one that its training ends in.

    Attributes:
        name: in `prosect.decompose.objectives.OBJECTIVES`, and in the names of dictionaries.
        auxk: whether AuxK can bring its dead latents back. It cannot where a latent is dead because its
            pre-activations are all negative, for then no gradient reaches it; those are drawn anew.
        exact: whether latents are chosen by pre-activations in float32, in whatever precision products are made.
        several: whether its loss needs several reconstructions of each batch, which no pass through a model can give.
        calibrated: whether the threshold is to be found after training, from how many latents should fire.
    """

    name: ClassVar[str]
    auxk: ClassVar[bool] = True
    exact: ClassVar[bool] = False
    several: ClassVar[bool] = False
    calibrated: ClassVar[bool] = False

    @property
    @abstractmethod
    def after(self) -> Sparsity:
        """What decides after training which latents fire."""

    @property
    def target(self) -> float | None:
        """Mean number of latents that should fire at a position, where the objective says so."""
        return None

    @property
    def thresholded(self) -> bool:
        """See `Sparsity`."""
        return self.after.thresholded

    def codes(self, pre: Float[Tensor, "n latents"], threshold: Float[Tensor, " latents"] | None) -> Codes:
        """The codes after training. See `Sparsity.codes`."""
        return self.after.codes(pre, threshold)

    def check(self, latents: int) -> None:
        """Raises BadInput if it makes no sense for that many latents."""
        self.after.check(latents)

    def extra(self, latents: int) -> dict[str, Tensor]:
        """What is learned besides the dictionary's weights, one number for each latent, as it starts."""
        return {}

    def state(self) -> dict[str, Tensor]:
        """What is carried from step to step without being learned, as it starts."""
        return {}

    @abstractmethod
    def select(
        self, pre: Float[Tensor, "n latents"], learned: Mapping[str, Tensor], ranks: Ranks = ALONE
    ) -> Picks:
        """The latents that fire, any others that should receive a gradient, and maybe more; those that are here."""

    def choose(
        self,
        x: Float[Tensor, "n reads"],
        encoder: Float[Tensor, "latents reads"],
        bias: Float[Tensor, " latents"],
        learned: Mapping[str, Tensor],
        ranks: Ranks = ALONE,
        products: Products = PLAIN,
    ) -> Chosen:
        """The latents that take part, with their pre-activations; nothing has a gradient."""
        found = self.screen(x, encoder, bias, products) if ranks.size == 1 else None
        if found is None:
            pre = (products.precise if self.exact else products).affine(bias, x, encoder)
            picks = self.select(pre, learned, ranks)
            found = Chosen(picks, picks.among(pre))
        found.picks.products = products
        return found

    def screen(
        self,
        x: Float[Tensor, "n reads"],
        encoder: Float[Tensor, "latents reads"],
        bias: Float[Tensor, " latents"],
        products: Products = PLAIN,
    ) -> Chosen | None:
        """The same without all pre-activations (`prosect.decompose.screening`); None where that is not to be had."""
        return None

    def fire(self, step: Step) -> Float[Tensor, " m"]:
        """The codes of the picks, differentiable."""
        return torch.relu(step.values)

    def penalty(self, step: Step, codes: Float[Tensor, " m"]) -> Float[Tensor, ""] | None:
        """What is added to the error; None for nothing."""
        return None

    def loss(self, step: Step) -> Outcome:
        """What a step costs: the error and the penalty; means over the positions that are here."""
        codes = self.fire(step)
        residual = step.target - step.made(codes)
        loss, penalty = step.error(residual), self.penalty(step, codes)
        return Outcome(codes, residual, loss if penalty is None else loss + penalty)

    def settle(self, learned: Mapping[str, Tensor]) -> None:
        """Bring its own parameters back to where they must be, in place, after a step."""
        return

    def fold(
        self,
        encoder: Float[Tensor, "latents reads"],
        bias: Float[Tensor, " latents"],
        learned: Mapping[str, Tensor],
    ) -> Folded:
        """The form used after training, the same function."""
        return Folded(encoder, bias, torch.zeros_like(bias) if self.thresholded else None)


def require(condition: bool, got: str, expected: str) -> None:
    """Raises BadInput unless the condition holds: objectives check their parameters with it."""
    if not condition:
        raise BadInput(got, expected)
