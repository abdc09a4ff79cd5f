"""How the work of a training is dealt to ranks: positions, latents, or to one process that does it all.

The trainer asks `Ranks` wherever a number depends on what another rank may have. Alone there is nobody to ask
and every answer is what went in. With positions dealt (`Positions`) each rank has all latents and its share of every
batch; gradients are averaged. With latents dealt (`Latents`) each rank has every batch and its share of the
latents, their weights and their optimiser's moments; what the shares write is added up.

Numbers that go into a loss keep the gradient of this rank's own part: a loss is a mean over positions, so the
mean over ranks of their gradients is the whole's; and a sum over latents, so each rank's latents have theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from prosect.core.errors import BadInput
from prosect.decompose.kernels import Picks, where_positive
from prosect.decompose.ranks.world import World
from prosect.decompose.sparsity import highest_but, largest, largest_of_all


class Ranks:
    """One process, which has every position and every latent.

    Attributes:
        rank: which of the processes this is.
        size: how many there are.
        how: what is dealt, in words; empty for nothing.
    """

    rank, size, how = 0, 1, ""

    @property
    def first(self) -> bool:
        """Whether this is the one that writes what all have."""
        return self.rank == 0

    @property
    def lasting(self) -> Ranks:
        """What stays dealt when training is over."""
        return ALONE

    def check(self, batch: int, latents: int) -> None:
        """Raises BadInput unless the work can be dealt evenly."""

    def agree(self, what: str, said: Any) -> None:
        """Raises Conflict unless all ranks say the same."""

    def alike(self, tensors: Mapping[str, Tensor]) -> None:
        """Give what all ranks should share the first rank's numbers, in place."""

    def wait(self) -> None:
        """Until every rank is here."""

    def share(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """This rank's positions of a batch."""
        return dict(batch)

    def positions(self, here: int) -> int:
        """How many positions all have, where this rank has ``here``."""
        return here

    def gathered(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "all d"]:
        """The rows of all positions, in the batch's order."""
        return x

    def span(self, latents: int) -> slice:
        """Which of all latents are here."""
        return slice(0, latents)

    def latents(self, here: int) -> int:
        """How many latents all have, where this rank has ``here``."""
        return here

    def before(self, count: int) -> tuple[int, int]:
        """Of things that belong to latents, ``count`` of them here: how many earlier ranks have, and all."""
        return 0, count

    def mean(self, x: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
        """The mean over all positions of what is a mean over those here."""
        return x

    def total(self, x: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
        """The sum over all latents, mean over all positions, of what is that over those here."""
        return x

    def whole(self, made: Shaped[Tensor, "n d"]) -> Shaped[Tensor, "n d"]:
        """What all latents write, where those here write ``made``."""
        return made

    def largest(self, pre: Float[Tensor, "n here"], k: int) -> Picks:
        """The k largest at each position, of all latents; those that are here."""
        return Picks.fixed(largest(pre, min(k, pre.shape[1])), pre.shape[1])

    def kept(self, values: Float[Tensor, "n here"], count: int) -> Float[Tensor, "n here"]:
        """The values, with 0 for those that are not among the ``count`` largest of their position, of all latents."""
        if count >= values.shape[1]:
            return values
        return where_positive(values, values - highest_but(values, count))

    def largest_of_all(self, pre: Float[Tensor, "n here"], count: int) -> Int[Tensor, " m"]:
        """The ``count`` largest of all positions and latents; where those that are here lie, laid flat, ascending."""
        return largest_of_all(pre, count)

    def leading(self, values: Float[Tensor, " m"], count: int) -> Float[Tensor, " all"]:
        """Numbers that belong to latents: at least the ``count`` largest that all have."""
        return values

    def leads(self, values: Float[Tensor, " n"]) -> Bool[Tensor, " n"]:
        """Where this rank's number, of latents, is the largest that any has; of equal ones the first rank's."""
        return torch.ones_like(values, dtype=torch.bool)

    def average(self, gradients: Mapping[str, Tensor]) -> None:
        """Make gradients of this rank's loss those of the whole, in place."""


ALONE = Ranks()


class Dealt(Ranks):
    """What both ways of dealing share.

    Args:
        world: the processes.
    """

    def __init__(self, world: World) -> None:
        self.world, self.rank, self.size = world, world.rank, world.size

    def agree(self, what: str, said: Any) -> None:
        """See `World.agree`."""
        self.world.agree(what, said)

    def wait(self) -> None:
        """See `World.wait`."""
        self.world.wait()

    def largest_of_all(self, pre: Float[Tensor, "n here"], count: int) -> Int[Tensor, " m"]:
        """Each rank's own largest are put together, and the count-th of them decides for all.

        Of equal entries those that come first in the whole batch's array are taken, as by one process.
        """
        own = largest_of_all(pre, min(count, pre.numel()))
        values = pre.reshape(-1)[own]
        every = torch.stack(self.world.gather(values))
        last = every.reshape(-1).topk(count, sorted=False).values.min()
        missing = count - int((every > last).sum())
        tied = values == last
        if int((every == last).sum()) > missing:
            width = pre.shape[1]
            rows = torch.div(own, width, rounding_mode="floor")
            places = torch.stack(self.world.gather(self._place(rows, own - rows * width, pre.shape)))
            tied &= places[self.rank] <= places[every == last].sort().values[missing - 1]
        return own[(values > last) | tied]

    def _place(
        self, rows: Int[Tensor, " m"], latents: Int[Tensor, " m"], shape: torch.Size
    ) -> Int[Tensor, " m"]:
        """Where entries lie in the whole batch's array laid flat."""
        raise NotImplementedError

    def _even(self, what: str, count: int) -> None:
        if count % self.size:
            raise BadInput(
                f"{count:,} {what} for {self.size} ranks",
                "as many for each",
                f"{count - count % self.size or self.size:,}",
            )

    def _sum(self, x: Tensor) -> Tensor:
        return _answered(x, self.world.sum)

    def _mean(self, x: Tensor) -> Tensor:
        return _answered(x, lambda own: self.world.sum(own) / self.size)


class Positions(Dealt):
    """Every rank has all latents, and an equal share of each batch's positions."""

    how = "positions"

    def check(self, batch: int, latents: int) -> None:
        """Raises BadInput unless a batch can be dealt evenly."""
        self._even("positions in a batch", batch)

    def alike(self, tensors: Mapping[str, Tensor]) -> None:
        """All of them."""
        for x in tensors.values():
            self.world.spread_(x)

    def share(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Its rows, one after another, in the order of the ranks."""
        count = len(next(iter(batch.values()))) // self.size
        return {site: x[self.rank * count : (self.rank + 1) * count] for site, x in batch.items()}

    def positions(self, here: int) -> int:
        """As many on each rank."""
        return here * self.size

    def gathered(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "all d"]:
        """One rank's after another's."""
        return torch.cat(self.world.gather(x))

    def mean(self, x: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
        """Over ranks."""
        return self._mean(x)

    def total(self, x: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
        """All latents are here."""
        return self._mean(x)

    def average(self, gradients: Mapping[str, Tensor]) -> None:
        """The mean over ranks."""
        for gradient in gradients.values():
            self.world.add_(gradient)
            gradient /= self.size

    def _place(
        self, rows: Int[Tensor, " m"], latents: Int[Tensor, " m"], shape: torch.Size
    ) -> Int[Tensor, " m"]:
        return (self.rank * shape[0] + rows) * shape[1] + latents


class Latents(Dealt):
    """Every rank has all positions, and an equal share of the latents: the first ones on the first rank."""

    how = "latents"

    @property
    def lasting(self) -> Ranks:
        """Latents stay where they are."""
        return self

    def check(self, batch: int, latents: int) -> None:
        """Raises BadInput unless latents can be dealt evenly."""
        self._even("latents", latents)

    def alike(self, tensors: Mapping[str, Tensor]) -> None:
        """What is not of latents: offset, skip, centre and scale."""
        for name, x in tensors.items():
            if name.partition(".")[0] in ("offset", "skip", "read", "write"):
                self.world.spread_(x)

    def span(self, latents: int) -> slice:
        """One rank's after another's."""
        here = latents // self.size
        return slice(self.rank * here, (self.rank + 1) * here)

    def latents(self, here: int) -> int:
        """As many on each rank."""
        return here * self.size

    def before(self, count: int) -> tuple[int, int]:
        """Asked of all."""
        counts = [int(c) for c in self.world.gather(torch.tensor(count))]
        return sum(counts[: self.rank]), sum(counts)

    def total(self, x: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
        """All positions are here."""
        return self._sum(x)

    def whole(self, made: Shaped[Tensor, "n d"]) -> Shaped[Tensor, "n d"]:
        """The sum of what ranks' latents write."""
        return self._sum(made)

    def largest(self, pre: Float[Tensor, "n here"], k: int) -> Picks:
        """Each rank's own k largest are put together, and the k largest of those taken.

        Of equal ones the first latents are taken, as by one process.
        """
        n, width = pre.shape
        own = largest(pre, min(k, width)).sort(dim=1).values
        values = pre.new_full((n, k), -torch.inf)  # ranks may have fewer than k
        values[:, : own.shape[1]] = pre.gather(1, own)
        every = torch.cat(self.world.gather(values), dim=1)  # in the order of all latents
        best = every.sort(dim=1, descending=True, stable=True).indices[:, :k]
        taken = torch.zeros_like(every, dtype=torch.bool).scatter_(1, best, True)
        start = self.rank * k
        rows, which = taken[:, start : start + own.shape[1]].nonzero(as_tuple=True)
        return Picks(rows, own[rows, which], n, width)

    def kept(self, values: Float[Tensor, "n here"], count: int) -> Float[Tensor, "n here"]:
        """As `largest` says."""
        picks = self.largest(values, count)
        return picks.dense(values.reshape(-1)[picks.places])

    def leading(self, values: Float[Tensor, " m"], count: int) -> Float[Tensor, " all"]:
        """Each rank's ``count`` largest."""
        own = values.new_full((count,), -torch.inf)
        best = values.topk(min(count, len(values))).values
        own[: len(best)] = best
        every = torch.cat(self.world.gather(own))
        return every[every > -torch.inf]

    def leads(self, values: Float[Tensor, " n"]) -> Bool[Tensor, " n"]:
        """All ranks' numbers are compared."""
        return torch.stack(self.world.gather(values)).max(dim=0).indices == self.rank

    def average(self, gradients: Mapping[str, Tensor]) -> None:
        """What is not of latents has one gradient on all ranks: their mean keeps it that to the bit."""
        for name in ("offset", "skip"):
            if name in gradients:
                self.world.add_(gradients[name])
                gradients[name] /= self.size

    def _place(
        self, rows: Int[Tensor, " m"], latents: Int[Tensor, " m"], shape: torch.Size
    ) -> Int[Tensor, " m"]:
        return rows * (shape[1] * self.size) + self.rank * shape[1] + latents


class _Answer(torch.autograd.Function):
    """A number of all ranks that passes on the gradient of this one's."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, answer: Callable[[Tensor], Tensor]) -> Tensor:
        return answer(own)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return gradients[0], None


def _answered(own: Tensor, answer: Callable[[Tensor], Tensor]) -> Tensor:
    return _Answer.apply(own, answer)  # type: ignore[no-untyped-call, no-any-return]
