"""What adding a direction does to how likely a token is, as something that can be measured on any text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from prosect.core.errors import BadInput
from prosect.data.batch import Batch
from prosect.data.source import Source
from prosect.describe.executables import Stored
from prosect.model import Model, steer


@dataclass(frozen=True, eq=False)
class SteerEffect(Stored):
    """Rise of a token's log-probability (nats), mean over a row's scored positions, when a direction is added.

    Attributes:
        site: where it is added, at every position.
        direction: what is added, times ``strength``.
        strength: the dose.
        token: whose probability is looked at.
        sign: 1 for a claim that it rises, -1 that it falls.
    """

    site: str
    direction: Float[Tensor, " width"]
    strength: float
    token: int
    sign: int = 1

    kind = "steer-effect"

    def __post_init__(self) -> None:
        if self.sign not in (1, -1) or not self.strength or self.token < 0:
            raise BadInput(
                f"a steering effect with strength {self.strength}, token {self.token} and sign {self.sign}",
                "a strength that is not 0, a token, and 1 or -1",
            )

    @classmethod
    def measure(
        cls, wanted: Sequence[SteerEffect], model: Model, batch: Batch, source: Source
    ) -> Float[np.ndarray, "wanted rows"]:
        """The rises on each row, all of them in one sweep; a row without a scored position has none."""
        edits = [[steer(w.site, w.direction.to(model.device, model.dtype), w.strength)] for w in wanted]
        out = np.full((len(wanted), len(batch)), np.nan)
        for token in dict.fromkeys(w.token for w in wanted):
            mine = [i for i, w in enumerate(wanted) if w.token == token]
            found = model.sweep([[], *(edits[i] for i in mine)], batch, log_probability(token))
            for place, i in enumerate(mine, 1):
                out[i] = wanted[i].sign * (found[place] - found[0])
        some = (
            np.ones(len(batch), dtype=bool) if batch.scored is None else batch.scored.any(dim=1).cpu().numpy()
        )
        return np.where(some, out, np.nan)


def log_probability(token: int) -> Callable[[Tensor, Batch], Tensor]:
    """A metric: log-probability of one token (nats), mean over the scored positions of each row; 0 without any."""

    def metric(output: Tensor, batch: Batch) -> Tensor:
        logp = output.float().log_softmax(dim=-1)[..., token].double()
        if batch.scored is None:
            return logp.reshape(len(batch), -1).mean(dim=1)
        scored = batch.scored.to(logp.device)
        return torch.where(scored, logp, 0.0).sum(dim=1) / scored.sum(dim=1).clamp(min=1)

    return metric
