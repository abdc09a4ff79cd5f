"""Random directions: the control for every claim that a direction is special.

A random direction gets a threshold of its own, so that it fires exactly as often as what it is compared
with; otherwise a difference in firing rate would pass for a difference in meaning.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from prosect.core.errors import BadInput, TooLittleData, Unsupported
from prosect.core.seeds import Seed
from prosect.decompose.base import SEED, OneSite
from prosect.decompose.contract import ActivationStream, Codes
from prosect.decompose.streams import finite_blocks


@dataclass(eq=False)
class RandomDirections(OneSite):
    """Unit directions u drawn uniformly from the sphere; the code is relu(u · (x - mean) - threshold).

    The threshold of each direction lies midway between two projections that the stream takes on it, so
    that the direction fires at floor(rate · n) of the n positions, or at fewer where activations repeat
    exactly; `rates_` says at what share it does. There is no `decode`: nothing was fitted to reconstruct.

    Args:
        site: what it decomposes.
        rates: firing rate of each direction, within (0, 1).
        seed: of the directions.
        budget: bytes that finding the thresholds may use.
    """

    kind: ClassVar[str] = "random"
    supports = frozenset({"directions", "unit", "nonnegative", "sparse", "streaming"})

    site: str
    rates: tuple[float, ...]
    seed: Seed = SEED
    budget: int = 2**30
    widths_: dict[str, int] = field(init=False, repr=False)
    mean_: Float[Tensor, " width"] = field(init=False, repr=False)
    directions_: Float[Tensor, "m width"] = field(init=False, repr=False)
    thresholds_: Float[Tensor, " m"] = field(init=False, repr=False)
    rates_: Float[Tensor, " m"] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not self.rates or not all(0.0 < rate < 1.0 for rate in self.rates):
            raise BadInput(f"firing rates {self.rates[:8]}", "at least one rate, each between 0 and 1")

    @staticmethod
    def alike(site: str, count: int, rate: float, seed: Seed = SEED) -> RandomDirections:
        """``count`` directions that all fire at ``rate``."""
        return RandomDirections(site, (rate,) * count, seed)

    @property
    def n_components(self) -> int:
        """One for each rate."""
        return len(self.rates)

    def _fit(self, stream: ActivationStream) -> None:
        width, m = stream.widths[self.site], len(self.rates)
        drawn = torch.randn((m, width), generator=self.seed.child(self.kind).torch(), dtype=torch.float64)
        self.directions_ = drawn / drawn.norm(dim=1, keepdim=True)

        n, total = 0, torch.zeros(width, dtype=torch.float64)
        for block in finite_blocks(stream, (self.site,)):
            n, total = n + len(block[self.site]), total + block[self.site].to("cpu", torch.float64).sum(dim=0)
        firing = (torch.tensor(self.rates, dtype=torch.float64) * n).floor().long()
        if not n or int(firing.min()) < 1:
            rarest = min(self.rates)
            raise TooLittleData(
                f"{n:,} positions for a direction that fires at {rarest:g} of them",
                f"at least {1 / rarest:,.0f}",
                "more positions or a higher rate",
            )
        self.mean_ = total / n
        largest = self._largest(stream, int(firing.max()) + 1)
        around = largest.gather(0, torch.stack([firing - 1, firing])).to(torch.float64)
        self.thresholds_ = around.mean(dim=0)  # midway, so that rounding moves no position across it

        fired = torch.zeros(m, dtype=torch.float64)
        for block in finite_blocks(stream, (self.site,)):
            fired += self._encode(block).firing()
        self.rates_ = fired / n

    def _largest(self, stream: ActivationStream, keep: int) -> Float[Tensor, "keep m"]:
        """The ``keep`` largest projections on each direction, in descending order."""
        bytes_needed = 3 * keep * len(self.rates) * 4
        if bytes_needed > self.budget:
            raise Unsupported(
                f"{len(self.rates)} random directions at rates up to {max(self.rates):g} "
                f"({bytes_needed / 2**20:,.0f} MiB of projections)",
                f"at most {self.budget / 2**20:,.0f} MiB",
                "fewer directions at a time, lower rates, or a sample, first(stream, n)",
            )
        best: list[Tensor] = []
        held = 0
        for block in finite_blocks(stream, (self.site,)):
            best.append(self._project(block[self.site].cpu()))
            held += len(best[-1])
            if held >= 2 * keep:
                best = [torch.cat(best).topk(keep, dim=0).values]
                held = keep
        return torch.cat(best).topk(keep, dim=0).values

    def _project(self, x: Tensor) -> Tensor:
        return (x - self.mean_.to(x)) @ self.directions_.to(x).T

    def _encode(self, x: Mapping[str, Tensor]) -> Codes:
        here = self._project(x[self.site])
        return Codes.of_sparse(torch.relu(here - self.thresholds_.to(here)))

    def _directions(self) -> Tensor:
        return self.directions_
