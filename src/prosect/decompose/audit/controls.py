"""What stands beside the user's dictionary: one that loses nothing, one of random directions, one that is shuffled.

Random directions are as many, as sparse, centred on the same means, and scaled by the one factor that makes them
reconstruct best, so that they are not worse than randomness makes them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from prosect.core.canonical import Json
from prosect.core.errors import Unsupported
from prosect.core.seeds import Seed
from prosect.decompose.audit.sample import Seen
from prosect.decompose.contract import ActivationStream, Codes, Decomposition
from prosect.decompose.dictionary import Dictionary, Weights
from prosect.decompose.sparsity import TopK

Rows = dict[str, Float[Tensor, "n _"]]


@dataclass(eq=False)
class Altered(Decomposition):
    """A dictionary whose reconstructions are changed before they are used.

    Args:
        inner: the dictionary.
        change: (activations, reconstructions) → reconstructions, by site.
        said: what was changed, for its name.
    """

    kind: ClassVar[str] = "altered"

    inner: Dictionary
    change: Callable[[Mapping[str, Tensor], Rows], Rows]
    said: str

    @property
    def supports(self) -> frozenset[str]:
        """As the dictionary."""
        return self.inner.supports

    @property
    def name(self) -> str:
        """The dictionary's, and what was changed."""
        return f"{self.inner.name}, {self.said}"

    @property
    def reads(self) -> tuple[str, ...]:
        """What it reads and what it writes: the change may look at both."""
        return tuple(dict.fromkeys((*self.inner.reads, *self.inner.writes)))

    @property
    def writes(self) -> tuple[str, ...]:
        """As the dictionary."""
        return self.inner.writes

    @property
    def n_components(self) -> int:
        """As the dictionary."""
        return self.inner.n_components

    def fit(self, stream: ActivationStream) -> Altered:
        """Refused: it is made of a fitted one."""
        raise Unsupported(f"fitting {self.name}", "fitting the dictionary itself")

    def encode(self, x: Mapping[str, Float[Tensor, "n _"]]) -> Codes:
        """As the dictionary."""
        return self.inner.encode({site: x[site] for site in self.inner.reads})

    def decode(self, codes: Codes) -> Rows:
        """As the dictionary."""
        return self.inner.decode(codes)

    def reconstruct(self, x: Mapping[str, Float[Tensor, "n _"]], codes: Codes | None = None) -> Rows:
        """The dictionary's reconstructions, changed."""
        made = self.inner.reconstruct({site: x[site] for site in self.inner.reads}, codes)
        return self.change(x, made)

    @property
    def directions(self) -> Float[Tensor, "n_components width"]:
        """As the dictionary."""
        return self.inner.directions

    def state(self) -> tuple[dict[str, Tensor], Json]:
        """Refused: a control is never kept."""
        raise Unsupported(f"keeping {self.name}", "keeping the dictionary itself")

    @classmethod
    def from_state(cls, tensors: Mapping[str, Tensor], about: Json) -> Altered:
        """Refused likewise."""
        raise Unsupported("an altered dictionary from a file", "a dictionary")


def lossless(dictionary: Dictionary) -> Altered:
    """One that writes exactly what is there."""

    def same(x: Mapping[str, Tensor], made: Rows) -> Rows:
        return {site: x[site].to(y) for site, y in made.items()}

    return Altered(dictionary, same, "replaced by the identity")


def shuffled(dictionary: Dictionary, seed: Seed) -> Altered:
    """One that writes at each position what it makes of another, drawn at random from the batch."""

    def moved(x: Mapping[str, Tensor], made: Rows) -> Rows:
        n = len(next(iter(made.values())))
        order = torch.from_numpy(seed.child(n).numpy().permutation(n))
        return {site: y[order.to(y.device)] for site, y in made.items()}

    return Altered(dictionary, moved, "positions shuffled")


def random_dictionary(like: Dictionary, explored: Seen, l0: float, seed: Seed) -> Dictionary:
    """Random unit directions in place of latents: as many, the same number present at a position.

    Where it writes what it reads, what is read is what is written. Reconstructions are scaled by the factor
    under which they fit the explored activations best.

    Args:
        like: the dictionary whose place it takes.
        explored: where means and the factor are taken from.
        l0: latents present at a position; at least one is.
        seed: of the directions.
    """
    reads, writes = explored.beside(like.reads), explored.beside(like.writes)
    generator = seed.torch()

    def drawn(width: int) -> Tensor:
        rows = torch.randn((like.latents, width), generator=generator)
        unit: Tensor = rows / rows.norm(dim=1, keepdim=True)
        return unit

    encoder = drawn(reads.shape[1])
    decoder = encoder.clone() if like.reads == like.writes else drawn(writes.shape[1])
    centre, offset = reads.mean(dim=0), writes.mean(dim=0)
    k = min(max(1, round(l0)), like.latents)
    widths = {s: explored.x[s].shape[1] for s in (*like.reads, *like.writes)}

    def made(factor: float) -> Dictionary:
        weights = Weights(encoder, torch.zeros(like.latents), centre, decoder * factor, offset)
        found = Dictionary(like.reads, like.latents, TopK(k), like.writes)
        return found.with_weights(weights, widths)

    plain, part = made(1.0), slice(0, 4096)
    rows = plain.reconstruct({s: explored.x[s][part] for s in like.reads})
    moved = torch.cat([rows[s] for s in like.writes], dim=1).double() - offset.double()
    wanted = writes[part].double() - offset.double()
    square = float(moved.square().sum())
    return made(float((moved * wanted).sum()) / square if square > 0 else 0.0)
